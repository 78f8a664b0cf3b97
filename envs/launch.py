"""A kernel launch over the worlds of a batch, bound to its arguments but not yet to a slice."""

from dataclasses import dataclass
from typing import Any

import warp as wp


@dataclass(frozen=True)
class Launch:
    """A kernel over (worlds, *per_world) threads; its last argument, the first world of the slice, is added."""

    kernel: Any
    per_world: tuple[int, ...]
    inputs: tuple

    def record(self, device: wp.Device, first: int, count: int):
        """The launch for a slice of worlds, ready to be repeated."""
        dim = (count, *self.per_world) if self.per_world else count
        return wp.launch(self.kernel, dim, [*self.inputs, first], device=device, record_cmd=True)
