"""A stack of convolutions that is also told where colours stand out."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from envs.errors import UserError
from perception.encoders.base import SCALE, Encoder

PATCH = 4  # pixels, a side of what the first layer takes together
CHANNELS = (32, 64, 64)


def opponent(colours: torch.Tensor) -> torch.Tensor:
    """How much each pixel is red, green and yellow: r - max(g, b), g - max(r, b) and min(r, g) - b, not below 0.

    Differences of colours within a pixel, as of cones in the retina (Hering 1878; De Valois et al. 1966): light and
    shade, which change all three alike, leave them as they are.

    Args:
        colours: [..., 3, H, W], on any scale.

    Returns:
        the same shape.
    """
    r, g, b = colours.unbind(-3)
    return torch.stack([r - torch.maximum(g, b), g - torch.maximum(r, b), torch.minimum(r, g) - b], -3).clamp(min=0)


def largest(maps: torch.Tensor, side: int) -> torch.Tensor:
    """The largest value in every square of so many pixels a side; what is left over below and to the right is dropped.

    As `torch.nn.functional.max_pool2d`, which takes three times as long on a CPU.

    Args:
        maps: [B, C, H, W].

    Returns:
        [B, C, H // side, W // side].
    """
    height, width = (size // side * side for size in maps.shape[2:])
    rows = functools.reduce(torch.maximum, (maps[:, :, k:height:side, :width] for k in range(side)))
    return functools.reduce(torch.maximum, (rows[..., k::side] for k in range(side)))


class OpponentEncoder(Encoder):
    """A patch layer and two convolutions, which also see the most red, green and yellow pixel of each patch.

    The mean of a patch hides a lit lamp of two pixels in it, and what a strided convolution learns of such lamps from a
    few thousand pictures does not hold elsewhere; the largest does not hide it. Beside their maps stands, the same
    everywhere, the most red, green and yellow pixel of the picture: whether there is a lit lamp at all.

    Args:
        in_channels, height, width, features: see `Encoder`; channels are red, green and blue of each frame.

    Raises:
        UserError: the image is too small, or not of three colours.
    """

    def __init__(self, in_channels: int, height: int, width: int, features: int | None):
        super().__init__(in_channels, height, width)
        if in_channels % 3:
            raise UserError(f"this encoder takes images of three colours a frame, not {in_channels} channels")
        first, second, third = CHANNELS
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(in_channels, first, PATCH, PATCH),
                nn.Conv2d(first + in_channels, second, 3, 2, 1),
                nn.Conv2d(second, third, 3, 2, 1),
            ]
        )
        size = [pixels // PATCH for pixels in (height, width)]
        for _ in self.convolutions[1:]:
            size = [(pixels - 1) // 2 + 1 for pixels in size]
        self.end((third + in_channels, *size), features)
        for layer in (*self.convolutions, *([self.projection] if features else [])):
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """See `Encoder.convolve`."""
        patches, *rest = self.convolutions
        x = F.relu(F.conv2d(centred, patches.weight / SCALE, patches.bias, PATCH), inplace=True)
        stands_out = opponent(centred.unflatten(1, (-1, 3))).flatten(1, 2)
        patches_stand_out = largest(stands_out, PATCH).to(x.dtype) / SCALE
        x = torch.cat([x, patches_stand_out], 1)
        for layer in rest:
            x = F.relu(layer(x), inplace=True)
        strongest = patches_stand_out.amax((2, 3), keepdim=True)
        return torch.cat([x, strongest.expand(-1, -1, *x.shape[2:])], 1)


def small_opponent(in_channels: int, height: int, width: int, features: int | None = 256) -> OpponentEncoder:
    """As `convolutional.small`, and the colours that stand out in each of its patches."""
    return OpponentEncoder(in_channels, height, width, features)
