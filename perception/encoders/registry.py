"""Encoders by name."""

from collections.abc import Callable, Sequence
from typing import Any

from envs.errors import unknown
from perception.encoders.base import Encoder
from perception.encoders.cameras import RigEncoder
from perception.encoders.convolutional import nature, small
from perception.encoders.impala import impala
from perception.encoders.opponent import small_opponent
from perception.encoders.vit import vit_tiny

# Each takes channels, height and width of its images, and features=None for a trunk alone.
ENCODERS: dict[str, Callable[..., Encoder]] = {
    "small": small,
    "small_opponent": small_opponent,
    "nature": nature,
    "impala": impala,
    "vit_tiny": vit_tiny,
}


def build(name: str, in_channels: int, height: int, width: int, cameras: Sequence[int] | None = None) -> Encoder:
    """A freshly initialised encoder, by name.

    Args:
        name: one of `ENCODERS`.
        in_channels, height, width: of its images.
        cameras: heights of the pictures that a rig stacks in them, from top to bottom, to be seen each by itself; None
            to see them as one. See `RigEncoder`.

    Raises:
        UserError: no such encoder, or images that it cannot take.
    """
    if name not in ENCODERS:
        raise unknown("encoder", name, ENCODERS)
    if cameras is None:
        return ENCODERS[name](in_channels, height, width)
    return RigEncoder(ENCODERS[name], in_channels, height, width, cameras)


def architecture(card: dict[str, Any]) -> dict[str, Any]:
    """What of a card `rebuild` needs."""
    return {key: card[key] for key in ("encoder", "in_channels", "height", "width", "cameras") if key in card}


def rebuild(card: dict[str, Any]) -> Encoder:
    """A freshly initialised encoder of the architecture that a card names. See `build` for the errors."""
    return build(card["encoder"], card["in_channels"], card["height"], card["width"], card.get("cameras"))
