"""A rig's pictures, each by itself."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from envs.errors import UserError
from perception.encoders.base import Encoder

FEATURES = 256


class RigEncoder(Encoder):
    """The pictures of a rig, which are stacked from top to bottom, each through a trunk; then their maps are joined.

    Pictures of the same size share a trunk, so that cameras alike see alike and learn from each other; a picture of
    another size has its own. No layer before the projection looks across the seam between two pictures.

    Args:
        make: makes a trunk from channels, height, width and features=None.
        in_channels, height, width: of the stacked image, see `Encoder`.
        cameras: heights of the pictures, from top to bottom [px].

    Raises:
        UserError: the pictures do not make up the image, or are too small for the trunk.
    """

    def __init__(self, make: Callable[..., Encoder], in_channels: int, height: int, width: int, cameras: Sequence[int]):
        super().__init__(in_channels, height, width)
        self.cameras = tuple(cameras)
        if sum(self.cameras) != height or min(self.cameras) < 1:
            raise UserError(f"pictures of heights {list(self.cameras)} do not make up an image of {height} rows")
        sizes = sorted(set(self.cameras), key=self.cameras.index)
        self.trunks = nn.ModuleDict({str(rows): make(in_channels, rows, width, features=None) for rows in sizes})
        shapes = [self.trunks[str(rows)].map_shape for rows in self.cameras]
        channels, _, columns = shapes[0]
        self.end((channels, sum(rows for _, rows, _ in shapes), columns), FEATURES)
        nn.init.orthogonal_(self.projection.weight, gain=2**0.5)
        nn.init.zeros_(self.projection.bias)

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """See `Encoder.convolve`; the maps stand from top to bottom as the pictures do."""
        tops = [sum(self.cameras[:place]) for place in range(len(self.cameras))]
        found: list[torch.Tensor | None] = [None] * len(self.cameras)
        for rows, trunk in self.trunks.items():
            alike = [place for place, height in enumerate(self.cameras) if height == int(rows)]
            pictures = torch.cat([centred.narrow(2, tops[place], int(rows)) for place in alike])
            maps = trunk.convolve(pictures).unflatten(0, (len(alike), -1))
            for part, place in enumerate(alike):
                found[place] = maps[part]
        return torch.cat(found, dim=2)
