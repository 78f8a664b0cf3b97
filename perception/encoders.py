"""Encoders: camera images in, features out; and the folder in which a trained one is shared.

An encoder maps uint8 images [B, C, H, W] to float32 features [B, features]; pixel scaling happens inside. No batch
normalisation anywhere: its statistics drift with the policy that chooses the images. `maps` gives the last
convolution's output before it is flattened, where an objective can look at places in the image.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from envs import files
from envs.errors import UserError, unknown
from envs.sensors.rig import Rig

WEIGHTS, CARD = "encoder.safetensors", "encoder.json"
FORMAT = 1
CHUNK = 128  # images encoded at once without gradients: larger activations fall out of a CPU's cache


class ConvEncoder(nn.Module):
    """A stack of convolutions, flattened (where things are matters), projected and layer-normalised.

    Args:
        in_channels: image channels: cameras' colours times stacked frames.
        height, width: image size in pixels.
        convolutions: (channels, kernel, stride, padding) of each layer; the first has no padding, which would not be
            the colour that the pixel scaling centres.
        features: size of the output.

    Raises:
        UserError: the image is too small for the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        height: int,
        width: int,
        convolutions: tuple[tuple[int, int, int, int], ...],
        features: int,
    ):
        super().__init__()
        self.in_channels, self.height, self.width, self.features = in_channels, height, width, features
        self.convolutions = nn.ModuleList()
        size = (height, width)
        channels = in_channels
        for out_channels, kernel, stride, padding in convolutions:
            size = tuple((pixels + 2 * padding - kernel) // stride + 1 for pixels in size)
            self.convolutions.append(nn.Conv2d(channels, out_channels, kernel, stride, padding))
            channels = out_channels
        if min(size) < 1:
            raise UserError(f"images of {height}x{width} pixels are too small for this encoder")
        self.map_shape = (channels, *size)
        self.projection = nn.Linear(channels * size[0] * size[1], features)
        self.norm = nn.LayerNorm(features)
        for layer in (*self.convolutions, self.projection):
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> the last convolution's output [B, *map_shape], in the computing type.

        Floats from 0 to 255 are taken too, but only where gradients with respect to them are asked for.

        Raises:
            UserError: the images have another type or shape than the encoder's.
        """
        expected = (self.in_channels, self.height, self.width)
        if not (images.dtype == torch.uint8 or images.requires_grad) or tuple(images.shape[1:]) != expected:
            found = f"{str(images.dtype).removeprefix('torch.')} of {list(images.shape[1:])}"
            raise UserError(f"the encoder takes uint8 images of {list(expected)}, not {found}")
        bfloat16 = _in_bfloat16(images.device)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            # Flipping the top bit and reading the byte as signed centres it at a fraction of the cost of float
            # arithmetic; the scale goes into the weights.
            centred = (images ^ 128).view(torch.int8) if images.dtype == torch.uint8 else images - 128
            return self.convolve(centred.to(torch.bfloat16 if bfloat16 else torch.float32))

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """Pixels' values less 128, as floats [B, C, H, W] -> the last convolution's output [B, *map_shape]."""
        first, *rest = self.convolutions
        x = F.relu(F.conv2d(centred, first.weight / 64, first.bias, first.stride, first.padding), inplace=True)
        for layer in rest:
            x = F.relu(layer(x), inplace=True)
        return x

    def project(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, *map_shape] -> features float32 [B, features]."""
        with torch.autocast(maps.device.type, torch.bfloat16, enabled=_in_bfloat16(maps.device)):
            x = self.projection(maps.flatten(1))
        return self.norm(x.float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> features float32 [B, features]. Raises UserError on images of another shape."""
        if torch.is_grad_enabled() or images.is_cuda or len(images) <= CHUNK:
            return self.project(self.maps(images))
        return torch.cat([self.project(self.maps(part)) for part in images.split(CHUNK)])


def small(in_channels: int, height: int, width: int) -> ConvEncoder:
    """A strided ConvNet for a CPU: a 4x4 patch layer, then two halvings; 3.9M multiply-adds for 64x96 images of 6
    channels.
    """
    return ConvEncoder(in_channels, height, width, ((32, 4, 4, 0), (64, 3, 2, 1), (64, 3, 2, 1)), features=256)


def nature(in_channels: int, height: int, width: int) -> ConvEncoder:
    """The convolutions of Mnih et al., Nature 518 (2015), layer-normalised at the end."""
    return ConvEncoder(in_channels, height, width, ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)), features=512)


ENCODERS = {"small": small, "nature": nature}


def build(name: str, in_channels: int, height: int, width: int) -> ConvEncoder:
    """A freshly initialised encoder, by name.

    Raises:
        UserError: no such encoder, or images too small for it.
    """
    if name not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    return ENCODERS[name](in_channels, height, width)


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware; elsewhere float32 is the faster."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


_single = False


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Within it encoders compute in float32, whatever the device has."""
    global _single
    before, _single = _single, True
    try:
        yield
    finally:
        _single = before


def _in_bfloat16(device: torch.device) -> bool:
    return not _single and has_bfloat16(device)


def save(encoder: ConvEncoder, folder: str | os.PathLike, card: dict) -> None:
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
        return (
            card
            | {key: int(card[key]) for key in ("in_channels", "height", "width")}
            | {"encoder": str(card["encoder"]), "sha256": str(card["sha256"])}
        )
    except FileNotFoundError:
        raise UserError(f"no encoder in '{folder}': {CARD} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not an encoder's card ({type(error).__name__}: {error})") from None


def load(
    folder: str | os.PathLike,
    device: torch.device | str = "cpu",
    shape: tuple[int, int, int] | None = None,
    rig: Rig | None = None,
) -> ConvEncoder:
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
    encoder = build(card["encoder"], *made_for)
    try:
        encoder.load_state_dict(safetensors.torch.load(weights))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold the weights of encoder '{card['encoder']}': {reason}") from None
    return encoder.to(device).eval().requires_grad_(False)


def describe(rig: Rig) -> dict:
    """A rig as it stands in a card, in JSON's types."""
    return json.loads(json.dumps(dataclasses.asdict(rig)))
