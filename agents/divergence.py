"""Training that has diverged: what became infinite or not a number first.

Statistics of updates are looked at seldom, as that waits for the device. What came into the rollout or the replay is
searched only once they are broken.
"""

import math
from collections.abc import Iterable, Mapping

import torch

from agents.buffers import Observation, RolloutBuffer
from envs.errors import UserError

HINT = "a lower learning rate usually helps"


class Diverged(UserError):
    """Something became infinite or not a number; the message names what did so first."""


class Watch:
    """The numbers of the first update that were not all finite, kept on the device until somebody asks."""

    def __init__(self) -> None:
        self.numbers: torch.Tensor | None = None

    def add(self, numbers: torch.Tensor) -> None:
        """The numbers of an update. Shape: (K,)."""
        before = numbers if self.numbers is None else self.numbers
        self.numbers = torch.where(before.isfinite().all(), numbers, before).detach()

    def check(self, names: Iterable[str], step: int, given: Mapping[str, Observation]) -> None:
        """Look, and wait for the device.

        Args:
            names: of the numbers, K of them.
            step: of the training.
            given: what the updates were made from, see `not_finite`.

        Raises:
            Diverged: a number was not finite.
        """
        if self.numbers is None:
            return
        for name, value in zip(names, self.numbers.tolist(), strict=True):
            if not math.isfinite(value):
                check_given(given, step)
                raise Diverged(f"{name} became {value} before step {step}; {HINT}")


def rollout(buffer: RolloutBuffer) -> dict[str, Observation]:
    """What an update from a rollout is made from, in the order in which one follows from another."""
    named = {"an observation": buffer.observations, "a reward": buffer.rewards, "a value": buffer.values}
    return {f"{name} of the rollout": tensors for name, tensors in named.items()}


def not_finite(given: Mapping[str, Observation]) -> str | None:
    """The name of the first of some tensors, or of dicts of them, that holds something infinite or not a number."""
    for name, tensors in given.items():
        for part, tensor in tensors.items() if isinstance(tensors, dict) else [("", tensors)]:
            if tensor.is_floating_point() and not tensor.isfinite().all():
                return f"{name} ('{part}')" if part else name
    return None


def check_given(given: Mapping[str, Observation], step: int) -> None:
    """Raise `Diverged` where what updates are made from is not finite. Arguments as for `Watch.check`."""
    if (broken := not_finite(given)) is not None:
        raise Diverged(f"{broken} is not finite at step {step}")


def check_weights(network: torch.nn.Module, step: int) -> None:
    """Raise `Diverged` where a network is not fit to be saved."""
    if (broken := not_finite(network.state_dict())) is not None:
        raise Diverged(f"the weight {broken} is not finite at step {step}; {HINT}")
