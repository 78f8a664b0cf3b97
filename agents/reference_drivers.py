"""Drivers that know everything: rule-based references for staged cases.

They read privileged observations (`envs.sensors.surroundings`, and the first two `envs.sensors.lane_choice`). Free
driving, the rules of the road and what counts as being in the way are the same for all; `DRIVERS` lists them by name:

    careful   looks ahead: who is about to cut in, to step out, or to cross, brakes gently while that is enough, and
              changes lanes where it has to or where it helps
    rss       careful, within the limits of RSS: the proper response to every danger is the least that it brakes
    cc, reg157, fsm, rss157   the models that UN Regulation 157 measures automated vehicles by, see `agents.r157`; they
              keep their lane
"""

import torch
from torch import Tensor

from agents import r157
from agents.careful import Careful, RSSLimited
from agents.reference_base import (
    HARDEST_BRAKING,
    MOVES,
    STAND_OFF,
    Obstacles,
    ReferenceDriver,
    free_acceleration,
    obstacles,
)
from agents.shield import EGO_LENGTH, Surroundings, keeping
from envs.scenarios import Scenario

FORGET = 3.0  # s without danger, after which a model of UN R157 starts afresh
ROLLING = 2.0  # m, that these models leave to a leader who stands
BRAKE_LIGHTS = 0.5  # m/s2, from which on it is seen that a leader brakes
WALKING_PACE = 2.5  # m/s


class RegulationDriver(ReferenceDriver):
    """One of the four models of UN Regulation 157 at the wheel.

    The model decides how to brake for leaders and for those who cut in. Two of them have a law for cut-ins alone and
    are told when a leader is to be braked for: when it brakes and is nearer than they keep, or when their delay and
    their brakes need the distance that is left. They say nothing about people and vehicles that cross: whoever is
    going to be in our way at the time at which we would be there is shown to them as somebody who stands there in our
    lane. They look at the others one by one, and answer to the one that asks for most.

    Between dangers the set speed is kept by IDM, without speeding up towards a leader who is nearer than the model
    keeps. The models stand for one danger; after `FORGET` seconds without any they start afresh, delay included.
    """

    model: r157.Driver

    def __init__(self, scenario: Scenario, device: torch.device | str = "cpu"):
        super().__init__(scenario, device)
        self._memory: r157.Memory | None = None
        self._calm: Tensor | None = None

    def reset(self, done: Tensor | None = None) -> None:
        """Forget the dangers of the past."""
        if done is None:
            self._memory = None
        elif self._memory is not None:
            self._memory = self.model.start(self._calm).where(done, self._memory)

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `ReferenceDriver`."""
        seen = Surroundings.of(obs)
        wanted = self.acceleration(seen, obs["ego"]).clamp(min=-HARDEST_BRAKING)
        return torch.stack([self.throttle(wanted, obs["ego"][:, 0]), keeping(obs["ego"])], 1)

    def acceleration(self, seen: Surroundings, ego: Tensor) -> Tensor:
        """What it wants to accelerate by [m/s2]. Shape: (N,)."""
        found = obstacles(seen)
        scene = self._scene(seen, ego, found)
        danger = seen.present & (found.cross | (seen.along > 0))
        danger &= self.model.danger(scene) | (self._evident(seen, found, scene) & self.model.danger_ahead(scene))
        # Dangers of one strength: the nearest.
        strength = self.model.wanted(scene) + 1 / (1 + scene.gap.clamp(min=0))
        worst = torch.where(danger, strength, -1.0).argmax(1, keepdim=True)
        one = r157.Scene(*(value.expand_as(danger).gather(1, worst)[:, 0] for value in scene))
        any_danger = danger.any(1)

        if self._memory is None:
            self._memory, self._calm = self.model.start(one.speed), torch.zeros_like(one.speed)
        self._calm = torch.where(any_danger, 0.0, self._calm + self.step)
        self._memory = self.model.start(one.speed).where(self._calm > FORGET, self._memory)
        braking, self._memory = self.model.react(one, self._memory, self.step, danger=any_danger)

        keeps = self.model.keeps(seen.own_speed) + ROLLING
        close = (found.follow & (seen.clearance <= 0) & (seen.gap < keeps)).any(1)
        free = free_acceleration(ego)
        free = torch.where(close, free.clamp(max=0), free)
        # Some models plan to stop at no distance at all; none of them runs into what it has nearly stopped for.
        halting = found.follow & (seen.clearance <= 0) & (seen.own_speed < WALKING_PACE)
        closing = (seen.own_speed - seen.speed).clamp(min=0)
        halt = -(closing**2) / (2 * (seen.gap - STAND_OFF / 2).clamp(min=0.1))
        free = torch.minimum(free, torch.where(halting, halt, torch.inf).amin(1).clamp(min=-self.model.hardest))
        return torch.where(any_danger, torch.minimum(free, braking), free)

    def _evident(self, seen: Surroundings, found: Obstacles, scene: r157.Scene) -> Tensor:
        """Whether it is plain that somebody ahead in our lane has to be braked for. Shape: (N, M) bool."""
        closing, hardest = scene.speed - scene.other_speed, self.model.hardest
        # With the model's own delay and brakes, which take `hardest / jerk` to come on.
        delay = self.model.delay + hardest / self.model.jerk / 2 + 2 * self.step
        due = closing * delay + closing.clamp(min=0) ** 2 / (2 * hardest) + ROLLING
        brakes = (seen.acceleration < -BRAKE_LIGHTS) & (scene.gap < self.model.keeps(scene.speed) + ROLLING)
        settled = found.cross | (found.follow & (scene.clearance <= 0) & (seen.sideways.abs() <= MOVES))
        return settled & (closing > 0) & ((scene.gap < due) | brakes)

    def _scene(self, seen: Surroundings, ego: Tensor, found: Obstacles) -> r157.Scene:
        """The others, (N, M), as the models know them. They have boxes; on bends the way says who is in it."""
        inside = seen.in_path | found.cross
        return r157.Scene(
            seen.own_speed,
            ego[:, 1:2],
            torch.where(found.cross, 0.0, seen.speed),
            torch.where(found.cross, found.meeting, seen.gap),
            (seen.length + EGO_LENGTH) / 2,
            torch.where(inside, seen.clearance.clamp(max=0), seen.clearance),
            torch.where(inside, seen.approach.clamp(min=0), seen.approach),
        )


class CCHuman(RegulationDriver):
    """UN R157's competent and careful human driver."""

    name, model = "cc", r157.MODELS["cc"]


class Reg157(RegulationDriver):
    """The braking of UN R157, paragraph 5.2.5.2."""

    name, model = "reg157", r157.MODELS["reg157"]


class FSM(RegulationDriver):
    """The fuzzy safety model."""

    name, model = "fsm", r157.MODELS["fsm"]


class RSS157(RegulationDriver):
    """RSS as it is compared with UN R157."""

    name, model = "rss157", r157.MODELS["rss"]


DRIVERS: dict[str, type[ReferenceDriver]] = {
    driver.name: driver for driver in (Careful, RSSLimited, CCHuman, Reg157, FSM, RSS157)
}
