"""The folder in which a trained encoder is shared: its weights, and a card that says what they are."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from envs import files
from envs.errors import UserError
from envs.sensors.rig import Rig
from perception.encoders.base import Encoder
from perception.encoders.registry import rebuild

WEIGHTS, CARD = "encoder.safetensors", "encoder.json"
FORMAT = 1


def save(encoder: Encoder, folder: str | os.PathLike, card: dict) -> None:
    """Write an encoder folder: encoder.safetensors and encoder.json, each whole or not at all.

    Args:
        encoder: what to write.
        folder: where; made if it is missing.
        card: JSON's types. Must hold "encoder" (a name that `build` knows); "rig" (from `describe`) is what `load`
            compares; anything else is for readers: objective, scenario, data, time, figures. The image shape and a
            checksum of the weights are added.

    Raises:
        OSError: a file could not be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    )
    shape = {
        "in_channels": encoder.in_channels,
        "height": encoder.height,
        "width": encoder.width,
        "features": encoder.features,
    }
    if encoder.cameras is not None:
        shape["cameras"] = list(encoder.cameras)
    card = {"format": FORMAT, **card, **shape, "sha256": hashlib.sha256(weights).hexdigest()}
    files.write(folder / WEIGHTS, weights)
    files.write(folder / CARD, json.dumps(card, indent=2) + "\n")


def read_card(folder: str | os.PathLike) -> dict:
    """The card of an encoder folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_bytes())
        if card["format"] != FORMAT:
            raise UserError(f"{path} has format {card['format']}, this version reads format {FORMAT}")
        card |= {key: int(card[key]) for key in ("in_channels", "height", "width")}
        card |= {key: str(card[key]) for key in ("encoder", "sha256")}
        return card | ({"cameras": [int(rows) for rows in card["cameras"]]} if "cameras" in card else {})
    except FileNotFoundError:
        raise UserError(f"no encoder in '{folder}': {CARD} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not an encoder's card ({type(error).__name__}: {error})") from None


def load(
    folder: str | os.PathLike,
    device: torch.device | str = "cpu",
    shape: tuple[int, int, int] | None = None,
    rig: Rig | None = None,
) -> Encoder:
    """Read an encoder folder; the encoder comes frozen (no gradients) and in evaluation mode.

    Args:
        folder: a folder written by `save`.
        device: where to put it.
        shape: (C, H, W) of the images that it will be given; not compared if None.
        rig: the cameras that will film them; not compared if None.

    Raises:
        UserError: no encoder there, a file is damaged, or it was made for images of another size, channel count or rig.
    """
    card = read_card(folder)
    made_for = (card["in_channels"], card["height"], card["width"])
    if shape is not None and tuple(shape) != made_for:
        raise UserError(
            f"the encoder in '{folder}' is for images of {list(made_for)} (channels, height, width), "
            f"these are {list(shape)}"
        )
    if rig is not None and card.get("rig") != describe(rig):
        name = (card.get("rig") or {}).get("name", "unknown")
        difference = f"this one is '{rig.name}'" if name != rig.name else "whose cameras differ from this one's"
        raise UserError(f"the encoder in '{folder}' was trained with camera rig '{name}', {difference}")
    path = Path(folder) / WEIGHTS
    try:
        weights = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no encoder in '{folder}': {WEIGHTS} is missing") from None
    if hashlib.sha256(weights).hexdigest() != card["sha256"]:
        raise UserError(f"{path} is damaged or belongs to another {CARD}: the checksum differs; copy the folder again")
    encoder = rebuild(card)
    try:
        encoder.load_state_dict(safetensors.torch.load(weights))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold the weights of encoder '{card['encoder']}': {reason}") from None
    return encoder.to(device).eval().requires_grad_(False)


def describe(rig: Rig) -> dict:
    """A rig as it stands in a card, in JSON's types."""
    return json.loads(json.dumps(dataclasses.asdict(rig)))
