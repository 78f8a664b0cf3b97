"""Plain stacks of convolutions."""

import torch
import torch.nn.functional as F
from torch import nn

from perception.encoders.base import SCALE, Encoder


class ConvEncoder(Encoder):
    """A stack of convolutions, each followed by a ReLU.

    Args:
        in_channels, height, width: see `Encoder`.
        convolutions: (channels, kernel, stride, padding) of each layer; the first has no padding, which would not be
            the colour that the pixel scaling centres.
        features: size of the output, see `Encoder`.

    Raises:
        UserError: the image is too small for the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        height: int,
        width: int,
        convolutions: tuple[tuple[int, int, int, int], ...],
        features: int | None,
    ):
        super().__init__(in_channels, height, width)
        self.convolutions = nn.ModuleList()
        size = (height, width)
        channels = in_channels
        for out_channels, kernel, stride, padding in convolutions:
            size = tuple((pixels + 2 * padding - kernel) // stride + 1 for pixels in size)
            self.convolutions.append(nn.Conv2d(channels, out_channels, kernel, stride, padding))
            channels = out_channels
        self.end((channels, *size), features)
        for layer in (*self.convolutions, *([self.projection] if features else [])):
            nn.init.orthogonal_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """See `Encoder.convolve`."""
        first, *rest = self.convolutions
        x = F.relu(F.conv2d(centred, first.weight / SCALE, first.bias, first.stride, first.padding), inplace=True)
        for layer in rest:
            x = F.relu(layer(x), inplace=True)
        return x


def small(in_channels: int, height: int, width: int, features: int | None = 256) -> ConvEncoder:
    """A strided ConvNet for a CPU: a 4x4 patch layer, then two halvings; 4.2M multiply-adds for 64x96 images of 6
    channels.
    """
    return ConvEncoder(in_channels, height, width, ((32, 4, 4, 0), (64, 3, 2, 1), (64, 3, 2, 1)), features)


def nature(in_channels: int, height: int, width: int, features: int | None = 512) -> ConvEncoder:
    """The convolutions of Mnih et al., Nature 518 (2015), layer-normalised at the end."""
    return ConvEncoder(in_channels, height, width, ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)), features)
