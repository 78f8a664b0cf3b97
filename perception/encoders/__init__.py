"""Encoders: camera images in, features out; and the folder in which a trained one is shared.

An encoder maps uint8 images [B, C, H, W] to float32 features [B, features]; pixel scaling happens inside. No batch
normalisation anywhere: its statistics drift with the policy that chooses the images. `maps` gives what is found at
each place of the image before it is flattened, where an objective can look at places.
"""

from perception.encoders.base import CHUNK, Encoder, has_bfloat16, mixed_precision, single_precision
from perception.encoders.cameras import RigEncoder
from perception.encoders.convolutional import ConvEncoder, nature, small
from perception.encoders.folder import CARD, FORMAT, WEIGHTS, describe, load, read_card, save
from perception.encoders.impala import ImpalaEncoder, impala
from perception.encoders.opponent import OpponentEncoder, small_opponent
from perception.encoders.registry import ENCODERS, architecture, build, rebuild
from perception.encoders.vit import VisionTransformer, vit_tiny

__all__ = [
    "CARD",
    "CHUNK",
    "ENCODERS",
    "FORMAT",
    "WEIGHTS",
    "ConvEncoder",
    "Encoder",
    "ImpalaEncoder",
    "OpponentEncoder",
    "RigEncoder",
    "VisionTransformer",
    "architecture",
    "build",
    "describe",
    "has_bfloat16",
    "impala",
    "load",
    "mixed_precision",
    "nature",
    "read_card",
    "rebuild",
    "save",
    "single_precision",
    "small",
    "small_opponent",
    "vit_tiny",
]
