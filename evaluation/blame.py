"""Which collisions of a batch are laid to the ego, worked out while it is driven, from two frames of each episode."""

import torch
from torch import Tensor

from evaluation.metrics.collision import collision_at_fault
from evaluation.recorder import Frames


class Blame:
    """Keeps the last frame before the ego's first collision, and that of the collision.

    Args:
        worlds: as they are at the start of their episodes.
    """

    def __init__(self, worlds):
        self._frames = Frames(worlds, 2)
        self._frames.capture()
        self._frames.capture()
        self._hit = torch.zeros(worlds.num_worlds, dtype=torch.bool, device=worlds.device)
        scenario = worlds.scenario
        self._dt, self._frames_per_step = 1.0 / scenario.simulation_frequency, scenario.frames_per_step

    def on_frame(self, running: Tensor) -> None:
        """Take the present state of the worlds whose first episode goes on. Shape: (N,) bool."""
        going = running & ~self._hit
        for name, array in self._frames.arrays.items():
            array[0, going] = array[1, going]
            array[1, going] = getattr(self._frames.state, name)[going].to(array.dtype)
        self._hit |= going & (self._frames.state.crashed[:, 0] != 0)

    def at_fault(self) -> Tensor:
        """Whether the ego collided and `collision_at_fault` lays it to the ego. Shape: (N,) bool."""
        worlds, nothing = len(self._hit), torch.zeros(0, len(self._hit), device=self._hit.device)
        trajectory = self._frames.trajectory(
            frames=torch.full((worlds,), 2, device=self._hit.device),
            actions=nothing,
            rewards=nothing,
            steps=torch.zeros(worlds, dtype=torch.int64, device=self._hit.device),
            dt=self._dt,
            frames_per_step=self._frames_per_step,
        )
        return collision_at_fault(trajectory).value > 0
