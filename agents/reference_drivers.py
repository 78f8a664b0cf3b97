"""Drivers that know everything: rule-based references for staged cases.

They read the privileged observations "surroundings" and "ego" (`envs.sensors.surroundings`), keep their lane and
decide on an acceleration; none of them changes lanes or steers around anything. Free driving, the rules of the road
and what counts as being in the way are the same for all; `DRIVERS` lists them by name:

    careful   looks ahead: who is about to cut in, to step out, or to cross, and brakes gently while that is enough
    rss       careful, within the limits of RSS: the proper response to every danger is the least that it brakes
    cc, reg157, fsm, rss157   the models that UN Regulation 157 measures automated vehicles by, see `agents.r157`
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents import r157, rss
from agents.shield import EGO_LENGTH, EGO_WIDTH, Surroundings, keeping, respond
from envs.errors import UserError
from envs.scenarios import Scenario
from envs.scenarios.base import CONTINUOUS
from envs.scenarios.stage import Stage

COMFORT_ACCELERATION = 2.0  # m/s2, IDM's a
COMFORT_BRAKING = 2.5  # m/s2, IDM's b
FIRM_BRAKING = 3.0  # m/s2, the most that is braked for distances which are merely too short
HARDEST_BRAKING = 8.0  # m/s2
HEADWAY, JAM_GAP = 1.4, 2.5  # s, m
STAND_OFF = 1.0  # m, that is left to whoever is braked for
ASIDE = 2.0  # m, that is left to whoever crosses
SIDE_ROOM, PERSON_ROOM = 0.4, 0.8  # m, between the boxes, within which something is in the way
MOVES = 0.15  # m/s, sideways, above which somebody is on the way to or from our lane
CUT_IN_HORIZON, CROSSING_HORIZON = 3.0, 6.0  # s
SLACK = 1.0  # s, between our passing and somebody else's
MAY_YIELD = 2.0  # m/s2; while this much would stop a vehicle beside our way, it is taken to
STEP_OUT = 1.5  # m/s, at which a person beside the road might step out
WATCHED = 4.0  # m, of people this near to our way
PREPARED = 4.0  # m/s2, that suffices for somebody who might step out
FORGET = 3.0  # s without danger, after which a model of UN R157 starts afresh
ROLLING = 2.0  # m, that these models leave to a leader who stands
BRAKE_LIGHTS = 0.5  # m/s2, from which on it is seen that a leader brakes
WALKING_PACE = 2.5  # m/s


class Obstacles(NamedTuple):
    """Who is in the way, or is going to be. Each (N, M).

    Attributes:
        follow: bool, in our lane or on the way into it, so to be followed.
        cross: bool, crosses our way at a time at which we would be there.
        meeting: to the box of who crosses, where it will be nearest while it is in our way [m].
        clears: time until it has left our way again [s], infinite if it does not.
    """

    follow: Tensor
    cross: Tensor
    meeting: Tensor
    clears: Tensor


def obstacles(seen: Surroundings) -> Obstacles:
    """Who is in the way, if everybody goes on as now."""
    half = (seen.width + EGO_WIDTH) / 2 + torch.where(seen.person, PERSON_ROOM, SIDE_ROOM)
    beside = seen.across.abs() - half
    inside = (beside <= 0) | seen.in_path
    towards, never = seen.approach, torch.full_like(half, torch.inf)
    nears, leaves = towards > MOVES, towards < -MOVES
    enters = torch.where(inside, 0.0, torch.where(nears, beside / towards, never))
    out = torch.where(nears, (seen.across.abs() + half) / towards, torch.where(leaves, beside / towards, never))
    clears = torch.where(seen.in_path & (beside > 0), never, out)

    ahead = seen.present & (seen.along > 0) & (seen.gap > -EGO_LENGTH)
    closing = (seen.own_speed - seen.speed).clamp(min=0.1)
    passed = (seen.gap + seen.length + EGO_LENGTH) / closing
    cuts_in = nears & (enters < CUT_IN_HORIZON) & (enters < passed + SLACK)
    sideways = (seen.person | seen.crossing) & (seen.sideways.abs() > MOVES)

    # Who crosses also moves along our way in the meantime.
    nearest = torch.where(seen.speed < 0, clears, enters).clamp(max=CROSSING_HORIZON)
    meeting = seen.gap + seen.speed * nearest
    arrives = meeting.clamp(min=0) / seen.own_speed.clamp(min=0.1)
    passed = (meeting + seen.length + EGO_LENGTH) / seen.own_speed.clamp(min=0.1)
    stops = ~seen.person & (beside > towards.clamp(min=0) ** 2 / (2 * MAY_YIELD))
    meets = (enters < (passed + SLACK).clamp(max=CROSSING_HORIZON)) & (clears > arrives - SLACK)
    # Half way into its way it is best to go on.
    cross = ahead & sideways & ~stops & meets & (meeting > -EGO_LENGTH / 2)
    return Obstacles(ahead & ~sideways & (inside | cuts_in), cross, meeting, clears)


def free_acceleration(ego: Tensor) -> Tensor:
    """IDM on an empty road, within the speed limit and the rules of the road: (N, 8) -> (N,) [m/s2]."""
    speed, wanted, hold, limit = ego[:, 0], ego[:, 2], ego[:, 6], ego[:, 7]
    share = speed.clamp(min=0) / torch.minimum(wanted, limit).clamp(min=0.1)
    return (COMFORT_ACCELERATION * (1 - share**4)).clamp(min=-COMFORT_BRAKING) - hold


class ReferenceDriver:
    """What the reference drivers have in common. See `agents.policies.Policy`.

    Args:
        scenario: staged cases, see `envs.scenarios.stage`.
        device: where its actions are wanted.

    Raises:
        UserError: a scenario in which nobody says what is around.
    """

    name = ""

    def __init__(self, scenario: Scenario, device: torch.device | str = "cpu"):
        if not isinstance(scenario, Stage):
            raise UserError(
                f"'{self.name}' drives staged cases only (evaluate it on a suite), not '{scenario.name}', whose worlds "
                "have no observation 'surroundings'"
            )
        self.device = device
        self.step = 1.0 / scenario.policy_frequency
        self.env_options: dict[str, Any] = {"observation": "state"}
        offered = scenario.actions
        if not (offered.kind == "plain" and offered.throttle and offered.steering):
            # A stage like that of another policy: the brakes are weaker there.
            self.env_options["ego"], offered = "continuous", CONTINUOUS
        self.low, self.high = offered.acceleration_range

    def acceleration(self, seen: Surroundings, ego: Tensor) -> Tensor:
        """What it wants to accelerate by [m/s2]. Shape: (N,)."""
        raise NotImplementedError

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Throttle and steering. Shape: (N, 2) float32.

        Raises:
            UserError: the worlds do not say what is around.
        """
        seen = Surroundings.of(obs)
        wanted = self.acceleration(seen, obs["ego"]).clamp(min=-HARDEST_BRAKING)
        return torch.stack([self.throttle(wanted, obs["ego"][:, 0]), keeping(obs["ego"])], 1)

    def throttle(self, acceleration: Tensor, speed: Tensor) -> Tensor:
        """The throttle that gives an acceleration, without ever driving backwards. Shape: (N,)."""
        acceleration = torch.maximum(acceleration, -speed.clamp(min=0) / self.step)
        return (2 * (acceleration - self.low) / (self.high - self.low) - 1).clamp(-1, 1)

    def explain(self, obs: dict[str, Tensor]) -> None:
        """Its laws have no probabilities and no value."""

    def reset(self, done: Tensor | None = None) -> None:
        """It remembers nothing."""


class Careful(ReferenceDriver):
    """An attentive driver: IDM behind everybody who is in the way or about to be, and harder where that is needed.

    Braking that only mends a short distance stays below `FIRM_BRAKING`. It gets harder, up to `HARDEST_BRAKING`, as
    hard as it takes not to touch whoever is braked for, if they go on as they do.
    """

    name = "careful"

    def acceleration(self, seen: Surroundings, ego: Tensor) -> Tensor:
        """See `ReferenceDriver`."""
        found = obstacles(seen)
        free = free_acceleration(ego)
        wanted = torch.where(found.follow, self._following(seen, free[:, None]), torch.inf)
        wanted = torch.minimum(wanted, torch.where(found.cross, self._letting_pass(seen, found), torch.inf))
        wanted = torch.minimum(wanted, torch.where(self._watched(seen), -FIRM_BRAKING, torch.inf))
        return torch.minimum(free, wanted.amin(1))

    def _following(self, seen: Surroundings, free: Tensor) -> Tensor:
        speed, leader = seen.own_speed, seen.speed
        room = (seen.gap - STAND_OFF).clamp(min=0.1)
        closing = speed - leader.clamp(min=0)
        desired = (
            JAM_GAP + speed * HEADWAY + speed * closing / (2 * (COMFORT_ACCELERATION * COMFORT_BRAKING) ** 0.5)
        ).clamp(min=0)
        law = free - COMFORT_ACCELERATION * (desired / seen.gap.clamp(min=0.1)) ** 2
        # Down to its speed; to a stop where it stops; half way where it comes towards us.
        needed = closing.clamp(min=0) ** 2 / (2 * room)
        stopping = leader.clamp(min=0) ** 2 / (2 * (-seen.acceleration).clamp(min=0.5))
        needed = torch.where(
            seen.acceleration < -0.5, torch.maximum(needed, speed**2 / (2 * (room + stopping))), needed
        )
        needed = torch.where(leader < -MOVES, speed * (speed - leader) / (2 * room), needed)
        return torch.maximum(law, -(1.2 * needed).clamp(min=FIRM_BRAKING))

    def _letting_pass(self, seen: Surroundings, found: Obstacles) -> Tensor:
        """Stop before its way, or slow down such that we arrive when it has gone: whichever is the gentler."""
        room, speed = (found.meeting - ASIDE).clamp(min=0.1), seen.own_speed.clamp(min=0)
        stop, until = -(speed**2) / (2 * room), found.clears + SLACK / 2
        return 1.2 * torch.maximum(stop, 2 * (room - speed * until) / until**2).clamp(max=0)

    def _watched(self, seen: Surroundings) -> Tensor:
        """People beside the road whom we could not stop for in comfort, should they step out now."""
        near = seen.present & seen.person & (seen.gap > 0) & (seen.along > 0) & (seen.clearance < WATCHED)
        time = (seen.clearance - SIDE_ROOM).clamp(min=0) / STEP_OUT
        passing = (seen.gap + seen.length + EGO_LENGTH) / (seen.own_speed - seen.speed).clamp(min=0.1)
        needed = (seen.own_speed - seen.speed).clamp(min=0) ** 2 / (2 * (seen.gap - STAND_OFF).clamp(min=0.1))
        return near & (seen.approach > -MOVES) & (time < passing) & (needed > PREPARED)


class RSSLimited(Careful):
    """Drives like `Careful`, but never brakes less than RSS's proper response to the dangers around (`rss.AD_RSS`)."""

    name = "rss"

    def acceleration(self, seen: Surroundings, ego: Tensor) -> Tensor:
        """See `ReferenceDriver`."""
        braking = respond(seen, rss.AD_RSS).braking
        wanted = super().acceleration(seen, ego)
        return torch.where(braking > 0, torch.minimum(wanted, -braking), wanted)


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

    def acceleration(self, seen: Surroundings, ego: Tensor) -> Tensor:
        """See `ReferenceDriver`."""
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
