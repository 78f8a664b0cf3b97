"""The residual network of IMPALA.

Source: Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures", figure 3, the large architecture, up to its fully connected layer; that one's ReLU is here the layer
normalisation that all encoders end with.
"""

import torch
import torch.nn.functional as F
from torch import nn

from perception.encoders.base import SCALE, Encoder

CHANNELS = (16, 32, 32)  # of the sections
BLOCKS = 2  # residual blocks of a section


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3 and of as many channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape in and out: (B, channels, H, W)."""
        return x + self.second(F.relu(self.first(F.relu(x)), inplace=True))


class Section(nn.Module):
    """A convolution, 3x3 pooling with stride 2, and residual blocks."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(channels) for _ in range(BLOCKS)))

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) -> (B, channels, H/2, W/2), rounded up; `weight` is that of the convolution."""
        x = F.conv2d(x, weight, self.convolution.bias, padding=1)
        return self.blocks(F.max_pool2d(x, 3, stride=2, padding=1))


class ImpalaEncoder(Encoder):
    """Three sections of a convolution, pooling and two residual blocks: 15 convolutions, 0.1M weights.

    There is no normalisation inside, as there is none in the paper. Each residual branch begins small, so that an image
    keeps its scale through all of them.

    Args:
        in_channels, height, width, features: see `Encoder`.
    """

    def __init__(self, in_channels: int, height: int, width: int, features: int | None):
        super().__init__(in_channels, height, width)
        sizes = (in_channels, *CHANNELS)
        self.sections = nn.ModuleList(Section(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True))
        for _ in CHANNELS:
            height, width = (height + 1) // 2, (width + 1) // 2
        self.end((CHANNELS[-1], height, width), features)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
            if isinstance(layer, Residual):
                nn.init.orthogonal_(layer.first.weight, gain=2**0.5)
                nn.init.orthogonal_(layer.second.weight, gain=(len(CHANNELS) * BLOCKS) ** -0.5)

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """See `Encoder.convolve`."""
        first, *rest = self.sections
        # Channels last halves the time on a CPU: narrow 3x3 layers on large maps. "small" gains nothing by it.
        centred = centred.contiguous(memory_format=torch.channels_last)
        x = first(centred, first.convolution.weight / SCALE)
        for section in rest:
            x = section(x, section.convolution.weight)
        return F.relu(x)


def impala(in_channels: int, height: int, width: int, features: int | None = 256) -> ImpalaEncoder:
    """IMPALA's residual network: 49M multiply-adds for 64x96 images of 6 channels."""
    return ImpalaEncoder(in_channels, height, width, features)
