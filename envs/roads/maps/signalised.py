"""A crossing of two roads with traffic signals, and the plans that switch them.

Its lanes are those of a town's crossing (see `envs.roads.crossings`), with longer arms: 0 south, 1 west, 2 north,
3 east. Traffic comes in from "x.s.from" to "x.s.in" and leaves from "x.s.out" to "x.s.to", where s is the arm. The
leftmost lane of an approach turns left, the rightmost right, and all go straight on.
"""

from dataclasses import dataclass

import numpy as np

from envs.roads import crossings, lanes
from envs.roads.crossings import CROSSING_REACH, LANE, LEFT, OUT, RIGHT, STRAIGHT, Site
from envs.roads.ground import SHOULDER
from envs.roads.network import LaneIndex, RoadNetwork
from envs.roads.signals import Junction, Phase, Signal

APPROACH = 128.0  # m, from where traffic enters to the stop line
AMBER, ALL_RED = 3.0, 1.5  # s


@dataclass(frozen=True)
class Plan:
    """How a crossing is built and switched.

    Attributes:
        lanes: each way, of the road from south to north and of that from west to east; 1 or 2.
        protected: for each road, whether left turns have an arrow and a phase of their own, before the others; else
            they go with the others and give way to oncoming traffic.
        actuated: whether greens last as long as traffic comes.
    """

    lanes: tuple[int, int]
    protected: tuple[bool, bool] = (False, False)
    actuated: bool = False


# Two phases with permissive left turns, three and four with protected ones, fixed and actuated.
PLANS = (
    Plan((2, 1)),
    Plan((1, 1)),
    Plan((2, 1), (True, False)),
    Plan((2, 2), (True, True)),
    Plan((2, 1), actuated=True),
    Plan((2, 2), (True, True), actuated=True),
)
# s: green of a left-turn phase and of another; the longest where they are actuated, and the least.
LEFT_GREEN, GREEN = 6.0, 12.0
LEFT_LONGEST, LONGEST, LEAST = 8.0, 16.0, 5.0


def network(plan: Plan) -> RoadNetwork:
    """The crossing of a plan."""
    result = RoadNetwork()
    site = Site("x", (0.0, 0.0), (*plan.lanes, *plan.lanes), "priority", 0)
    crossings.build(result, site, np.random.default_rng(0))
    result.crossings.clear()
    for arm in range(4):
        _arm(result, site, arm)
    phases = []
    for road, protected in enumerate(plan.protected):
        arms = (road, road + 2)
        if protected:
            lefts = tuple(_head(result, site, arm, (LEFT,)) for arm in arms)
            others = tuple(_head(result, site, arm, (STRAIGHT, RIGHT)) for arm in arms)
            phases += [_phase(plan, lefts, (), LEFT_GREEN, LEFT_LONGEST), _phase(plan, others, (), GREEN, LONGEST)]
        else:
            heads = tuple(_head(result, site, arm, (LEFT, STRAIGHT, RIGHT)) for arm in arms)
            phases.append(_phase(plan, (), heads, GREEN, LONGEST))
    heads = tuple(range(len(result.signals)))
    result.junctions.append(Junction(heads, tuple(phases), AMBER, ALL_RED, plan.actuated))
    return result


def approach(arm: int, place: int) -> LaneIndex:
    """A lane on which traffic comes in."""
    return f"x.{'swne'[arm]}.from", f"x.{'swne'[arm]}.in", place


def destination(arm: int) -> str:
    """The node where traffic leaves."""
    return f"x.{'swne'[arm]}.to"


def places(plan: Plan, arm: int, turn: str) -> range:
    """The lanes of an approach from which a turn may be made; none goes straight on that has to wait for an arrow."""
    count = plan.lanes[arm % 2]
    if turn == STRAIGHT:
        return range(int(plan.protected[arm % 2] and count > 1), count)
    return range(1) if turn == LEFT else range(count - 1, count)


def _phase(plan: Plan, protected: tuple, permissive: tuple, green: float, longest: float) -> Phase:
    if plan.actuated:
        return Phase(protected, permissive, LEAST, longest)
    return Phase(protected, permissive, green, green)


def _arm(result: RoadNetwork, site: Site, arm: int) -> None:
    """The ways in and out at an arm."""
    count, outer = site.lanes[arm], CROSSING_REACH + APPROACH
    draws = crossings.draws_middle_line(arm)
    for side, road in ((1, ("from", "in")), (-1, ("out", "to"))):
        for place in range(count):
            x = side * crossings.offset(place)
            ends = [site.at(arm, x, outer), site.at(arm, x, CROSSING_REACH)][::side]
            middle = crossings.middle_line(count) if draws == (side < 0) else "none"
            lines = ("dashed" if place else middle, "solid" if place == count - 1 else "none")
            lane = lanes.straight(*ends, speed_limit=crossings.speed_limit(count), priority=3, lines=lines)
            index = result.add_lane(site.node(arm, road[0]), site.node(arm, road[1]), lane)
            if side > 0:
                result.stop_lines.append(index)


def _head(result: RoadNetwork, site: Site, arm: int, turns: tuple[str, ...]) -> int:
    """Add a head for these turns of an arm. Returns its place in the network."""
    start = site.node(arm, "in")
    movements = []
    for turn in turns:
        out = (arm + OUT[turn]) % 4
        end = site.node(out, "out")
        if end not in result.graph[start]:
            end = site.node(arm, "right")
        movements += [(start, end, place) for place in range(len(result.graph[start][end]))]
    # 1 m beyond the line and 0.6 m behind the kerb, an arrow beside it.
    arrow = turns == (LEFT,)
    place = site.at(arm, site.lanes[arm] * LANE + SHOULDER + (1.4 if arrow else 0.6), CROSSING_REACH - 1.0)
    result.signals.append(Signal(tuple(movements), place, (arm - 1) * np.pi / 2, arrow))
    return len(result.signals) - 1
