"""Defects that are put into a driver on purpose, to see whether an evaluation finds them.

Each takes a reference driver, or any policy with continuous actions of throttle and steering that observes "ego"
(`envs.sensors.surroundings`), and drives like it but for the defect. `DEFECTS` lists them by name; "careful+late" is
the careful driver with the first of them, "careful+late+drifting" with two.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agents.reference_drivers import ReferenceDriver
from envs.errors import unknown
from envs.physics import control
from envs.physics.actions import STEERING_RANGE

SPEED, OFFSET, SIDEWAYS, HOLD = 0, 3, 4, 6  # columns of "ego"
AMBER_TIME = 3.0  # s, of a signal plan by default
MOVING = 3.0  # m/s
SLOWEST = 0.1  # m/s, for laws that divide by a speed


class Defect:
    """What the defects have in common: they pass on what they do not change. See `agents.policies.Policy`.

    Args:
        driver: who has it.
    """

    title = ""

    def __init__(self, driver: ReferenceDriver):
        self.driver, self.step = driver, driver.step
        self.name = f"{driver.name}+{self.title}"
        self.env_options: dict[str, Any] = driver.env_options

    def throttle(self, acceleration: Tensor, speed: Tensor) -> Tensor:
        """See `ReferenceDriver`."""
        return self.driver.throttle(acceleration, speed)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Policy`. Shape: (N, 2)."""
        return self.driver.act(obs)

    def explain(self, obs: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """See `Policy`."""
        return self.driver.explain(obs)

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`."""
        self.driver.reset(done)


class Late(Defect):
    """Its brakes answer `seconds` late: they come on and go off that much later.

    Args:
        driver: who has it.
        seconds: the delay, rounded to whole policy steps, at least one [s].
    """

    title = "late"

    def __init__(self, driver: ReferenceDriver, seconds: float = 0.3):
        super().__init__(driver)
        self.steps = max(1, round(seconds / self.step))
        # What was wanted in the last steps, the newest last.
        self._past: Tensor | None = None

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`."""
        super().reset(done)
        if done is None:
            self._past = None
        elif self._past is not None:
            self._past[done] = 0.0

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Policy`."""
        action = self.driver.act(obs)
        wanted = action[:, 0]
        if self._past is None:
            self._past = wanted.new_zeros((len(wanted), self.steps))
        braking = self._past[:, 0]
        self._past = torch.cat([self._past[:, 1:], wanted.clamp(max=0)[:, None]], 1)
        # Brakes that are still on must not drive it backwards.
        stop = self.throttle(torch.full_like(braking, -math.inf), obs["ego"][:, SPEED])
        late = torch.where(braking < 0, torch.maximum(braking, stop), wanted.clamp(min=0))
        return torch.stack([late, action[:, 1]], 1)


class Drifting(Defect):
    """It keeps beside the middle of its lane: the law of lane keeping (`envs.physics.control`) with a shifted middle.

    Args:
        driver: who has it.
        metres: how far to the right, negative to the left [m].
    """

    title = "drifting"

    def __init__(self, driver: ReferenceDriver, metres: float = 0.5):
        super().__init__(driver)
        self.metres = metres
        # Slip angle of the last command [rad].
        self._slip: Tensor | None = None

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`."""
        super().reset(done)
        if done is None:
            self._slip = None
        elif self._slip is not None:
            self._slip[done] = 0.0

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Policy`."""
        action = self.driver.act(obs)
        speed, offset, sideways = (obs["ego"][:, column] for column in (SPEED, OFFSET, SIDEWAYS))
        speed = speed.clamp(min=SLOWEST)
        gain = control.HALF_LENGTH * control.HEADING_GAIN / speed
        if self._slip is None:
            self._slip = torch.zeros_like(speed)
        # The heading relative to the lane: what the law's answer tells, or, where that is cut off, how we move.
        sine = torch.sin(_slip(action[:, 1]))
        heading = _reference(offset, speed) - sine / gain
        moving = torch.asin((sideways / speed).clamp(-1, 1)) - self._slip
        heading = torch.where(action[:, 1].abs() < 0.99, heading, moving)
        sine = (gain * (_reference(offset - self.metres, speed) - heading)).clamp(
            -control.MAX_SIN_SLIP, control.MAX_SIN_SLIP
        )
        steering = (torch.atan(2 * torch.tan(torch.asin(sine))) / STEERING_RANGE[1]).clamp(-1, 1)
        self._slip = _slip(steering)
        return torch.stack([action[:, 0], steering], 1)


def _slip(steering: Tensor) -> Tensor:
    """The slip angle that a steering command leads to [rad]."""
    return torch.atan(torch.tan(steering * STEERING_RANGE[1]) / 2)


def _reference(offset: Tensor, speed: Tensor) -> Tensor:
    """The heading, relative to the lane, with which the law steers back to its middle [rad]."""
    limit = control.MAX_HEADING_REFERENCE
    return torch.asin((-control.LATERAL_GAIN * offset / speed).clamp(-1, 1)).clamp(-limit, limit)


class IgnoresAmber(Defect):
    """It does not brake for signals until they are red.

    It is not told what signals show, only how hard the rules of the road would make it brake ("hold"). What begins
    while it moves is taken for an amber light and ignored for as long as one lasts, so that it comes late to other
    stops too; what it stands at already is obeyed.

    Args:
        driver: who has it.
        seconds: how long amber lasts [s].
    """

    title = "ignores-amber"

    def __init__(self, driver: ReferenceDriver, seconds: float = AMBER_TIME):
        super().__init__(driver)
        self.seconds = seconds
        self._held: Tensor | None = None

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`."""
        super().reset(done)
        if done is None:
            self._held = None
        elif self._held is not None:
            self._held[done] = 0.0

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Policy`."""
        ego = obs["ego"].clone()
        hold = ego[:, HOLD]
        if self._held is None:
            self._held = torch.zeros_like(hold)
        ignored = (hold > 0) & (self._held < self.seconds) & (ego[:, SPEED] > MOVING)
        self._held = torch.where(hold > 0, self._held + self.step, 0.0)
        ego[:, HOLD] = torch.where(ignored, 0.0, hold)
        return self.driver.act({**obs, "ego": ego})


DEFECTS: dict[str, type[Defect]] = {defect.title: defect for defect in (Late, Drifting, IgnoresAmber)}


def seed(driver: ReferenceDriver, names: Sequence[str]) -> ReferenceDriver | Defect:
    """The driver with defects of these names, the first of them innermost.

    Raises:
        UserError: no defect of that name.
    """
    for name in names:
        if name not in DEFECTS:
            raise unknown("defect", name, DEFECTS)
        driver = DEFECTS[name](driver)
    return driver
