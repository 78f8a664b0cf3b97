"""What every encoder is: maps of places in the image, then their projection to one layer-normalised vector."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import nn

from envs.errors import UserError

CHUNK = 128  # images encoded at once without gradients: larger activations fall out of a CPU's cache
SCALE = 64  # grey levels: what a pixel's distance from mid-grey is divided by


class Encoder(nn.Module):
    """Base of all encoders: uint8 images [B, C, H, W] in, float32 features [B, features] out.

    A subclass defines `convolve` and calls `end` once it knows the size of its maps. The scale of pixels belongs into
    its first layer: `weight / SCALE`.

    Args:
        in_channels: image channels: colours times stacked frames.
        height, width: image size in pixels.

    Attributes:
        map_shape: (channels, height, width) of what `maps` returns.
        features: size of the output; None for a trunk, which has maps only.
        cameras: heights of the pictures that the image is cut into, from top to bottom; None if it is taken as one.
    """

    cameras: tuple[int, ...] | None = None

    def __init__(self, in_channels: int, height: int, width: int):
        super().__init__()
        self.in_channels, self.height, self.width = in_channels, height, width

    def end(self, map_shape: tuple[int, int, int], features: int | None) -> None:
        """Say how large the maps are, and add what makes features of them: flattened, since where things are matters,
        they are projected and layer-normalised.
        """
        if min(map_shape) < 1:
            raise UserError(f"images of {self.height}x{self.width} pixels are too small for this encoder")
        self.map_shape, self.features = map_shape, features
        if features is not None:
            self.projection = nn.Linear(math.prod(map_shape), features)
            self.norm = nn.LayerNorm(features)

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """Pixels' values less 128, as floats [B, C, H, W] -> maps [B, *map_shape]."""
        raise NotImplementedError

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> maps [B, *map_shape], in the computing type.

        Floats from 0 to 255 are taken too, but only where gradients with respect to them are asked for.

        Raises:
            UserError: the images have another type or shape than the encoder's.
        """
        expected = (self.in_channels, self.height, self.width)
        if not (images.dtype == torch.uint8 or images.requires_grad) or tuple(images.shape[1:]) != expected:
            found = f"{str(images.dtype).removeprefix('torch.')} of {list(images.shape[1:])}"
            raise UserError(f"the encoder takes uint8 images of {list(expected)}, not {found}")
        if not _at_once(images):
            return torch.cat([self.maps(part) for part in images.split(CHUNK)])
        with mixed_precision(images.device) as bfloat16:
            # Flipping the top bit and reading the byte as signed centres it at a fraction of the cost of float
            # arithmetic; the scale goes into the weights.
            centred = (images ^ 128).view(torch.int8) if images.dtype == torch.uint8 else images - 128
            return self.convolve(centred.to(torch.bfloat16 if bfloat16 else torch.float32))

    def project(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, *map_shape] -> features float32 [B, features]."""
        with mixed_precision(maps.device):
            x = self.projection(maps.flatten(1))
        return self.norm(x.float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> features float32 [B, features]. Raises UserError on images of another shape."""
        if _at_once(images):
            return self.project(self.maps(images))
        return torch.cat([self.project(self.maps(part)) for part in images.split(CHUNK)])


def _at_once(images: torch.Tensor) -> bool:
    """Whether a batch is best encoded as a whole."""
    return torch.is_grad_enabled() or images.is_cuda or len(images) <= CHUNK


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


@contextlib.contextmanager
def mixed_precision(device: torch.device) -> Iterator[bool]:
    """Within it matrices are multiplied in bfloat16, where the device has that; yields whether."""
    bfloat16 = not _single and has_bfloat16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield bfloat16
