"""A shield around any policy: where RSS finds a danger, its proper response replaces what the policy wants.

Responsibility-Sensitive Safety (`agents.rss`) calls a pair dangerous where it is too near along the road and across it
at once. Its proper response is to brake at least as hard as the response is sure to (here: as hard as the gap needs, if
that is more), and not to move sideways towards the danger. Who is in front does not have to do anything.

What decides here, on others as `envs.sensors.surroundings` sees them, in the frame of the ego's lane:

    same direction   too near along where `rss.longitudinal` says so, with the one behind as the one who brakes
    towards us       too near along where `rss.opposite` says so, whichever of the two is in its own lane
    across           too near across where `rss.lateral` says so
    crossing         a vehicle that comes from the side is too near across once it can no longer stop beside our way:
                     until then it is taken for one that will, since who goes first there is no matter of distances

The shield sees everything and at every frame. It does not steer around things, and who is hit from behind, or in a gap
that was already too short when it appeared, is not saved by it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents import rss
from agents.rss import RSSParameters
from envs.errors import UserError, unknown
from envs.phases import ALL
from envs.physics.actions import META_ACTIONS
from envs.physics.control import SPEED_GAIN
from envs.scenarios.stage import Stage
from envs.sensors.surroundings import Surroundings as Sensor

EGO_LENGTH, EGO_WIDTH = 5.0, 2.0  # m, highway-env's car, which every ego is
LANE_WIDTH = 4.0  # m, what a lane change is taken to lead aside
ONCOMING = -0.5  # m/s, along the road, from which on somebody comes towards us
CROSSING = 2.0  # m/s, across the road, from which on a vehicle can be one that crosses
DRIFT = 0.1  # m/s, sideways, below which nobody moves to a side
LOST = 3.0  # m beside the lane of the route, from which on it is given up
TOUCH = 0.1  # m, gaps are taken to be at least this large


class Surroundings(NamedTuple):
    """The others and the ego as the observations "surroundings" and "ego" have them.

    Of the others, (N, M): `present`, `in_path` and `person`, `still` bool; `along` and `across` centre to centre [m],
    + ahead and right; `speed`, `sideways` their velocity in the frame of the ego's lane [m/s], `acceleration` along it
    [m/s2]; `gap` and `clearance` between the boxes along and across, negative where they overlap [m]; `length`,
    `width` [m]. Of the ego, (N, 1): `own_speed`, `own_sideways` [m/s].
    """

    present: Tensor
    along: Tensor
    across: Tensor
    speed: Tensor
    sideways: Tensor
    acceleration: Tensor
    length: Tensor
    width: Tensor
    person: Tensor
    still: Tensor
    in_path: Tensor
    gap: Tensor
    clearance: Tensor
    own_speed: Tensor
    own_sideways: Tensor

    @property
    def approach(self) -> Tensor:
        """Speed across the ego's way towards it [m/s]. Shape: (N, M)."""
        return -self.sideways * torch.where(self.across >= 0, 1.0, -1.0)

    @property
    def crossing(self) -> Tensor:
        """Whether a vehicle comes from the side. Shape: (N, M) bool."""
        fast = self.sideways.abs() > CROSSING
        return self.present & ~self.person & fast & (self.sideways.abs() > self.speed.abs())

    @classmethod
    def of(cls, obs: dict[str, Tensor]) -> "Surroundings":
        """Read the observations "surroundings" (N, M, 10) and "ego" (N, 8).

        Raises:
            UserError: the worlds do not give them.
        """
        if "surroundings" not in obs or "ego" not in obs:
            raise UserError("these worlds have no observation 'surroundings': reference drivers need staged cases")
        present, along, across, speed, sideways, acceleration, length, width, kind, in_path = obs[
            "surroundings"
        ].unbind(2)
        ego = obs["ego"]
        return cls(
            present > 0.5,
            along,
            across,
            speed,
            sideways,
            acceleration,
            length,
            width,
            kind == 1,
            kind == 2,
            in_path > 0.5,
            along.abs() - (length + EGO_LENGTH) / 2,
            across.abs() - (width + EGO_WIDTH) / 2,
            ego[:, :1],
            ego[:, 4:5],
        )


def keeping(ego: Tensor) -> Tensor:
    """The steering that keeps the lane of the route, (N, 8) -> (N,). A missed one is not chased across others."""
    return torch.where(ego[:, 3].abs() > LOST, 0.0, ego[:, 5])


@dataclass
class Response:
    """What RSS leaves to the ego: `braking`, at least this hard, 0 where it is free [m/s2] (N,); `left`, `right`: no
    motion to that side (N,) bool; `change_left`, `change_right`: no change to the lane there (N,) bool."""

    braking: Tensor
    left: Tensor
    right: Tensor
    change_left: Tensor
    change_right: Tensor


def respond(seen: Surroundings, p: RSSParameters) -> Response:
    """The proper response to all others together."""
    ahead = seen.along > 0
    own, other = seen.own_speed, seen.speed
    oncoming = ahead & (other < ONCOMING)
    # Who of the two is on the wrong side is not known here: the longer distance is safe either way.
    forward, theirs, towards = own.clamp(min=0), other.clamp(min=0), (-other).clamp(min=0)
    facing = torch.maximum(rss.opposite(forward, towards, p), rss.opposite(towards, forward, p, ego_correct=False))
    is_followed = rss.longitudinal(theirs, forward, p, p.response_time_other)
    following = torch.where(ahead, rss.longitudinal(forward, theirs, p), is_followed)
    near = seen.present & (seen.gap < torch.where(oncoming, facing, following))

    def too_close(clearance: Tensor, own_sideways: Tensor) -> Tensor:
        side = torch.where(seen.across >= 0, 1.0, -1.0)
        sides = rss.lateral(side * own_sideways, -side * seen.sideways, p)
        # Beside our way it brakes along its own.
        stopping = seen.approach.clamp(min=0) ** 2 / (2 * p.brake_min) + p.lateral_margin
        return clearance < torch.where(seen.crossing, stopping, sides)

    danger = near & too_close(seen.clearance, seen.own_sideways)
    closing = torch.where(oncoming, own - other, own - other.clamp(min=0)).clamp(min=0)
    needed = closing**2 / (2 * (seen.gap - p.margin).clamp(min=TOUCH))
    braking = torch.where(danger & ahead, needed.clamp(p.brake_min, max(p.brake_max, p.brake_min)), 0.0)

    # Beside us there is nothing to turn away from where somebody is wholly ahead in our own lane.
    left = danger & (seen.across < 0) & (seen.clearance > -EGO_WIDTH / 2)
    right = danger & (seen.across >= 0) & (seen.clearance > -EGO_WIDTH / 2)
    still = torch.zeros_like(own)
    beside = near & (seen.clearance > -EGO_WIDTH / 2) & too_close(seen.clearance - LANE_WIDTH, still)
    return Response(
        braking.amax(1),
        left.any(1),
        right.any(1),
        (left | (beside & (seen.across < 0))).any(1),
        (right | (beside & (seen.across >= 0))).any(1),
    )


class Watch:
    """Looks at what is around the egos of worlds, in the midst of a policy step too.

    Args:
        worlds: an `envs.api.VecWorlds` with one agent, of staged cases or on a parallel road.

    Raises:
        UserError: worlds with several agents, of another simulator, or on road networks that are not staged cases.
    """

    def __init__(self, worlds):
        if not hasattr(worlds, "sim"):
            raise UserError("a shield looks into the simulator's state, which only worlds of lanewise show")
        if worlds.sim.maps is not None and not isinstance(worlds.scenario, Stage):
            raise UserError(f"a shield drives staged cases and on parallel roads, not '{worlds.scenario.name}'")
        if worlds.scenario.agents != 1:
            raise UserError(f"a shield drives with one agent a world, not {worlds.scenario.agents}")
        self.worlds, self.launches = worlds, []
        if worlds.sim.maps is not None:
            self.sensor = Sensor(worlds.sim)
            every = (0, worlds.num_worlds)
            self.launches = [launch.record(worlds.sim.warp_device, *every) for launch in self.sensor.launches(ALL)]

    def look(self) -> dict[str, Tensor]:
        """ "surroundings" (N, V-1, 10) and "ego" (N, 8) at present; a parallel road's ego has no steering and hold."""
        if not self.launches:
            return _beside(self.worlds)
        for launch in self.launches:
            launch.launch()
        return self.sensor.outputs


def _beside(worlds) -> dict[str, Tensor]:
    """What is around on a parallel road, whose lanes all lead along +x."""
    state, road = worlds.state, worlds.road
    cos_slip = (1 - state.sin_slip**2).sqrt()
    along = state.speed * (state.cos_heading * cos_slip - state.sin_heading * state.sin_slip)
    across = state.speed * (state.sin_heading * cos_slip + state.cos_heading * state.sin_slip)
    cos, sin = state.cos_heading.abs(), state.sin_heading.abs()
    length, width = cos * state.length + sin * state.width, sin * state.length + cos * state.width
    x, y = state.x - state.x[:, :1], state.y - state.y[:, :1]
    in_path = y.abs() < (width + width[:, :1]) / 2
    acceleration, kind = state.acceleration * state.cos_heading, torch.zeros_like(x)
    columns = (state.kind != 0, x, y, along, across, acceleration, length, width, kind, in_path)
    ego = torch.zeros((worlds.num_worlds, 8), device=worlds.device)
    ego[:, 0], ego[:, 1], ego[:, 4] = state.speed[:, 0], state.acceleration[:, 0], across[:, 0]
    ego[:, 3] = state.y[:, 0] - state.lane[:, 0] * road.lane_width
    ego[:, 7] = road.speed_limit
    return {"surroundings": torch.stack([column.float() for column in columns], 2)[:, 1:], "ego": ego}


class Shield:
    """A policy behind RSS. See `agents.policies.Policy`, and `on_frame` for what else it needs.

    Continuous actions are replaced. Of meta-actions, lane changes into danger and changes of speed while the shield
    brakes become IDLE; braking is done through the target speed, at every frame, and when the danger is over the
    policy's own target comes back.

    Args:
        policy: any that drives one agent.
        parameters: of RSS.

    Raises:
        UserError: a policy that does not drive by its actions.
    """

    def __init__(self, policy, parameters: RSSParameters = rss.AD_RSS):
        if policy.env_options.get("ego") == "idm":
            raise UserError(f"'{policy.name}' cannot be shielded: it does not drive by actions")
        self.policy, self.parameters = policy, parameters
        self.name = f"{policy.name} behind RSS"
        self.env_options: dict[str, Any] = policy.env_options
        self._watch: Watch | None = None
        self._fresh = True

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`. Worlds that are `done` no longer count among the interventions."""
        self.policy.reset(done)
        if done is None:
            self._fresh = True
        elif not self._fresh:
            self._changed += self._touched & self._running
            self._running &= ~done
            self._wish[done] = torch.nan

    def explain(self, obs: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """What the policy explains."""
        return self.policy.explain(obs)

    @property
    def interventions(self) -> Tensor:
        """Share of an episode's policy steps in which the policy did not get its way, since `reset(None)`. Shape: (N,)

        A world counts until its first episode has ended.
        """
        return self._changed / self._steps.clamp(min=1)

    def on_frame(self, worlds) -> None:
        """Look, and brake, between two frames. To be called before the first step and after every frame.

        Args:
            worlds: what it drives in.
        """
        if self._watch is None or self._watch.worlds is not worlds:
            self._watch, self._fresh = Watch(worlds), True
        if self._fresh:
            n, device = worlds.num_worlds, worlds.device
            self._steps, self._changed = torch.zeros((2, n), device=device)
            self._running = torch.ones(n, dtype=torch.bool, device=device)
            self._touched = ~self._running
            # What the policy wants the target speed to be, where the shield has replaced it [m/s].
            self._wish = torch.full((n,), torch.nan, dtype=worlds.state.speed.dtype, device=device)
            self._fresh = False
            return
        seen, response = self._look()
        if worlds.action_names:
            self._hold_speed(response)
            self._hold_lane(seen, response)
        else:
            command, frequency = worlds.state.acceleration[:, 0], worlds.scenario.simulation_frequency
            braking, stopping = self._bounded(response.braking, frequency), self._stopping(frequency)
            brakes = response.braking > 0
            self._touched |= brakes & (command > -braking)
            # The command of the whole step may be more than what stops in this frame.
            command.copy_(
                torch.where(brakes, torch.maximum(command.clamp(max=0), -stopping).minimum(-braking), command)
            )

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Policy`.

        Raises:
            RuntimeError: `on_frame` has not been called before.
        """
        if self._fresh:
            raise RuntimeError("a shield has to see its worlds first: call on_frame(worlds)")
        wanted = self.policy.act(obs)
        seen, response = self._look()
        self._steps += self._running
        self._touched = torch.zeros_like(self._running)
        if self._watch.worlds.action_names:
            action = self._meta(wanted, response)
            self._hold_speed(response)
        else:
            action = self._continuous(wanted, response)
        self._touched |= (action != wanted).reshape(len(action), -1).any(1)
        return action

    def _look(self) -> tuple[Surroundings, Response]:
        self._seen = self._watch.look()
        seen = Surroundings.of(self._seen)
        return seen, respond(seen, self.parameters)

    def _stopping(self, frequency: float) -> Tensor:
        """The braking that stops within a frame or a step, of which there are `frequency` a second [m/s2]."""
        return self._watch.worlds.state.speed[:, 0].clamp(min=0) * frequency

    def _bounded(self, braking: Tensor, frequency: float) -> Tensor:
        """The braking of the next frame or step: none that would drive backwards."""
        stopping = self._stopping(frequency)
        return torch.minimum(braking.to(stopping), stopping)

    def _meta(self, action: Tensor, response: Response) -> Tensor:
        """The meta-actions that are left of those wanted."""
        names = self._watch.worlds.action_names
        left, idle, right, faster, slower = (names.index(n) if n in names else -1 for n in META_ACTIONS)
        brakes = response.braking > 0
        refused = (action == left) & response.change_left | (action == right) & response.change_right
        refused |= brakes & ((action == faster) | (action == slower))
        # Who wants to be slower does not get a faster target back.
        state = self._watch.worlds.state
        wish = torch.where(self._wish.isnan(), state.target_speed[:, 0], self._wish)
        slowed = torch.minimum(wish, state.speed[:, 0])
        self._wish = torch.where(brakes & (action == slower), slowed, self._wish)
        return torch.where(refused, idle, action)

    def _hold_speed(self, response: Response) -> None:
        """Set the target speed that makes the cruise control brake, or give the policy its own back."""
        state = self._watch.worlds.state
        target, speed, brakes = state.target_speed[:, 0], state.speed[:, 0], response.braking > 0
        wish = torch.where(self._wish.isnan(), target, self._wish)
        bounded = self._bounded(response.braking, self._watch.worlds.scenario.simulation_frequency)
        braking = torch.minimum(wish, speed - bounded / SPEED_GAIN)
        self._touched |= brakes & (braking < wish)
        target.copy_(torch.where(brakes, braking, wish))
        self._wish = torch.where(brakes, wish, torch.nan)

    def _hold_lane(self, seen: Surroundings, response: Response) -> None:
        """Break off lane changes that have become dangerous."""
        state, sideways = self._watch.worlds.state, seen.own_sideways[:, 0]
        target, lane = state.target_lane[:, 0], state.lane[:, 0]
        towards = response.right & (sideways > DRIFT) | response.left & (sideways < -DRIFT)
        refused = towards & (target != lane)
        self._touched |= refused
        target.copy_(torch.where(refused, lane, target))

    def _continuous(self, action: Tensor, response: Response) -> Tensor:
        """The throttle and the steering that are left of those wanted."""
        scenario, action = self._watch.worlds.scenario, action.clone()
        offered = scenario.actions
        if offered.throttle:
            low, high = offered.acceleration_range
            braking = self._bounded(response.braking, scenario.policy_frequency)
            most = (2 * (-braking - low) / (high - low) - 1).clamp(-1, 1).to(action)
            action[:, 0] = torch.where(response.braking > 0, torch.minimum(action[:, 0], most), action[:, 0])
        if offered.steering:
            steering, straight = action[:, -1], keeping(self._seen["ego"])
            towards = response.right & (steering > straight) | response.left & (steering < straight)
            action[:, -1] = torch.where(towards, straight, steering)
        return action


SHIELDS: dict[str, RSSParameters] = {"rss": rss.AD_RSS, "rss-r157": rss.R157}


def around(policy, name: str) -> Shield:
    """The policy behind a shield by its name.

    Raises:
        UserError: no shield of that name, or a policy that none can be put around.
    """
    if name not in SHIELDS:
        raise unknown("shield", name, SHIELDS)
    return Shield(policy, SHIELDS[name])
