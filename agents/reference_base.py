"""What all reference drivers have in common: who they take to be in the way, free driving, and their actions."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.shield import EGO_LENGTH, EGO_WIDTH, Surroundings
from envs.errors import UserError
from envs.scenarios import Scenario
from envs.scenarios.base import CONTINUOUS
from envs.scenarios.stage import Stage

COMFORT_ACCELERATION = 2.0  # m/s2, IDM's a
COMFORT_BRAKING = 2.5  # m/s2, IDM's b
HARDEST_BRAKING = 8.0  # m/s2
STAND_OFF = 1.0  # m, that is left to whoever is braked for
SIDE_ROOM, PERSON_ROOM = 0.4, 0.8  # m, between the boxes, within which something is in the way
MOVES = 0.15  # m/s, sideways, above which somebody is on the way to or from our lane
CUT_IN_HORIZON, CROSSING_HORIZON = 3.0, 6.0  # s
SLACK = 1.0  # s, between our passing and somebody else's
MAY_YIELD = 2.0  # m/s2; while this much would stop a vehicle beside our way, it is taken to


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

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """Throttle and steering. Shape: (N, 2) float32.

        Raises:
            UserError: the worlds do not say what is around.
        """
        raise NotImplementedError

    def throttle(self, acceleration: Tensor, speed: Tensor) -> Tensor:
        """The throttle that gives an acceleration, without ever driving backwards. Shape: (N,)."""
        acceleration = torch.maximum(acceleration, -speed.clamp(min=0) / self.step)
        return (2 * (acceleration - self.low) / (self.high - self.low) - 1).clamp(-1, 1)

    def explain(self, obs: dict[str, Tensor]) -> None:
        """Its laws have no probabilities and no value."""

    def reset(self, done: Tensor | None = None) -> None:
        """It remembers nothing."""
