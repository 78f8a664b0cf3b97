"""The pieces that a town is put together from: crossings and roundabouts, each joining the ends of up to four arms.

A piece is drawn once, for the arm that comes from the south, and turned by quarter turns for the others. Arms are
numbered as highway-env's: 0 south, 1 west, 2 north, 3 east (y points down). Traffic drives on the right.

Distances are from the centre of the piece [m]. The arms of a crossing end `CROSSING_REACH` from it, those of a
roundabout `ROUNDABOUT_REACH`: all lengths of straight road are multiples of 16 m, one period of dashed lines. A piece
with its kerbs lies within a square of 64 m, four tiles of 32 m that meet at its centre.

Through a crossing every turn is a road of its own. The leftmost lane turns left into the leftmost lane, the rightmost
turns right into the rightmost, and all go straight on. Where the roads have different numbers of lanes, a right turn is
an arc and 4 m of straight, two roads.
"""

import math
from dataclasses import dataclass

import numpy as np

from envs.roads import lanes
from envs.roads.ground import SHOULDER
from envs.roads.network import Crossing, LaneIndex, RoadNetwork
from envs.roads.signals import Junction, Phase, Signal

LANE = 4.0  # m, width
CROSSING_REACH = 16.0
ROUNDABOUT_REACH = 32.0
RING = 20.0  # radius of a roundabout's centre line
# Radius of the arc that leaves the arm at ROUNDABOUT_REACH and touches the ring: the r of
# (LANE / 2 + r)^2 + ROUNDABOUT_REACH^2 = (RING + r)^2.
ENTRY = (ROUNDABOUT_REACH**2 + (LANE / 2) ** 2 - RING**2) / (2 * RING - LANE)
# Angle between an arm and the place where its entry touches the ring.
TOUCH = math.asin((LANE / 2 + ENTRY) / (RING + ENTRY))
CROSSING_WALK, ROUNDABOUT_WALK = 13.0, 36.0  # where people cross an arm: between the stop line and the other road

STREET_SPEED, ARTERIAL_SPEED = 13.9, 16.7  # m/s
SIDEWAYS = 3.2  # m/s2: bends are limited to the speed at which they are driven with this; 8 m/s round the ring

AMBER = 3.0  # s
LEFT, STRAIGHT, RIGHT = "left", "straight", "right"
ROUNDABOUT = "roundabout"
# From arm k a turn leads to arm (k + OUT[turn]) % 4.
OUT = {LEFT: 1, STRAIGHT: 2, RIGHT: 3}


@dataclass(frozen=True)
class Site:
    """A crossing of a town, before it is built.

    Attributes:
        name: the first part of its nodes' names.
        centre: [m].
        lanes: each way, of the arms 0 to 3; 0 where there is no arm. Opposite arms, if both there, have equally many.
        kind: "priority", "signals" or "roundabout".
        major: which arms go first under priority: 0 for 0 and 2, 1 for 1 and 3.
    """

    name: str
    centre: tuple[float, float]
    lanes: tuple[int, int, int, int]
    kind: str
    major: int

    @property
    def arms(self) -> list[int]:
        """The arms that it has."""
        return [arm for arm in range(4) if self.lanes[arm]]

    @property
    def reach(self) -> float:
        """Where its arms end [m]."""
        return ROUNDABOUT_REACH if self.kind == "roundabout" else CROSSING_REACH

    def node(self, arm: int, part: str) -> str:
        """The name of a node at an arm; "in" and "out" are where traffic comes in and leaves."""
        return f"{self.name}.{'swne'[arm]}.{part}"

    def at(self, arm: int, x: float, y: float) -> tuple[float, float]:
        """A point in the plane, given as if the arm were the southern one, whose traffic comes in at x > 0 [m]."""
        x, y = ((x, y), (-y, x), (-x, -y), (y, -x))[arm]
        return self.centre[0] + x, self.centre[1] + y

    def priority(self, arm: int, turn: str) -> int:
        """Right of way, as in highway-env's intersection: 3 and 1 on the major and the minor road, one less if left."""
        if self.kind == "roundabout":
            return 1
        major = self.kind == "signals" or len(self.arms) == 2 or arm % 2 == self.major
        return (3 if major else 1) - (turn == LEFT)


def offset(place: int) -> float:
    """How far to the right of the road's middle a lane is [m]."""
    return (place + 0.5) * LANE


def speed_limit(count: int) -> float:
    """Of a road of so many lanes each way [m/s]."""
    return ARTERIAL_SPEED if count > 1 else STREET_SPEED


def middle_line(count: int) -> str:
    """Style of the line between the directions of a road of so many lanes each way."""
    return "solid" if count > 1 else "dashed"


def draws_middle_line(arm: int) -> bool:
    """Whether traffic that leaves through this arm draws the middle line, which must not be drawn twice."""
    return arm in (0, 3)


def build(network: RoadNetwork, site: Site, rng: np.random.Generator) -> dict[tuple[str, str], str]:
    """Add the lanes through a site, its signals and the places where people cross its arms.

    Returns:
        what each road does: "left", "straight", "right" or "roundabout".
    """
    turns = _roundabout(network, site) if site.kind == "roundabout" else _crossing(network, site)
    if site.kind == "signals":
        _signals(network, site, rng)
    if len(site.arms) > 2:
        _walks(network, site, rng)
    return turns


def _arc(site: Site, arm: int, x: float, y: float, radius: float, start: float, end: float, **options) -> lanes.Lane:
    """An arc around (x, y) between two phases, given as if the arm were the southern one."""
    turn = arm * math.pi / 2
    limit = math.sqrt(SIDEWAYS * radius)
    return lanes.circular(
        site.at(arm, x, y), radius, start + turn, end + turn, end > start, speed_limit=limit, **options
    )


# --- crossings --------------------------------------------------------------------------------------------------------


def _crossing(network: RoadNetwork, site: Site) -> dict[tuple[str, str], str]:
    turns = {}
    add = {LEFT: _left, STRAIGHT: _straight, RIGHT: _right}
    for arm in site.arms:
        for turn, step in OUT.items():
            if site.lanes[(arm + step) % 4]:
                turns.update(dict.fromkeys(add[turn](network, site, arm), turn))
    return turns


def _is_bend(site: Site) -> bool:
    return len(site.arms) == 2 and site.arms[1] - site.arms[0] != 2


def _left(network: RoadNetwork, site: Site, arm: int) -> list[tuple[str, str]]:
    road = site.node(arm, "in"), site.node((arm + 1) % 4, "out")
    radius = CROSSING_REACH + LANE / 2
    lines = ("none", "solid" if _is_bend(site) else "none")
    arc = _arc(
        site, arm, -CROSSING_REACH, CROSSING_REACH, radius, 0.0, -math.pi / 2, priority=site.priority(arm, LEFT),
        lines=lines,
    )  # fmt: skip
    network.add_lane(*road, arc)
    return [road]


def _straight(network: RoadNetwork, site: Site, arm: int) -> list[tuple[str, str]]:
    across, to_the_right = (arm + 2) % 4, (arm + 3) % 4
    road = site.node(arm, "in"), site.node(across, "out")
    count = site.lanes[arm]
    # Lines between lanes go on where no road meets; the edge line where none meets from that side.
    goes_on = len(site.arms) == 2
    left = middle_line(count) if goes_on and draws_middle_line(across) else "none"
    right = "none" if site.lanes[to_the_right] else "solid"
    for place in range(count):
        x = offset(place)
        between = "dashed" if goes_on else "none"
        lines = (left if place == 0 else between, right if place == count - 1 else "none")
        lane = lanes.straight(
            site.at(arm, x, CROSSING_REACH),
            site.at(arm, x, -CROSSING_REACH),
            speed_limit=speed_limit(count),
            priority=site.priority(arm, STRAIGHT),
            lines=lines,
        )
        network.add_lane(*road, lane)
    return [road]


def _right(network: RoadNetwork, site: Site, arm: int) -> list[tuple[str, str]]:
    out = (arm + 3) % 4
    start, end = site.node(arm, "in"), site.node(out, "out")
    x, y = offset(site.lanes[arm] - 1), offset(site.lanes[out] - 1)
    radius = CROSSING_REACH - max(x, y)
    options = {
        "priority": site.priority(arm, RIGHT),
        "lines": (middle_line(1) if _is_bend(site) else "none", "solid"),
    }
    arc = _arc(site, arm, x + radius, y + radius, radius, math.pi, 1.5 * math.pi, **options)
    if x == y:
        network.add_lane(start, end, arc)
        return [(start, end)]
    # The arc begins late on an arterial's outer lane, or ends early on its way to it.
    between = site.node(arm, "right")
    options["speed_limit"] = arc.speed_limit
    if x > y:
        before = lanes.straight(site.at(arm, x, CROSSING_REACH), site.at(arm, x, y + radius), **options)
        first, second = before, arc
    else:
        after = lanes.straight(site.at(arm, x + radius, y), site.at(arm, CROSSING_REACH, y), **options)
        first, second = arc, after
    network.add_lane(start, between, first)
    network.add_lane(between, end, second)
    return [(start, between), (between, end)]


# --- roundabouts ------------------------------------------------------------------------------------------------------


def _roundabout(network: RoadNetwork, site: Site) -> dict[tuple[str, str], str]:
    """Entries and exits, arcs that touch the ring, and the ring, which is driven anticlockwise as seen from above."""
    turns = {}
    corner, down, quarter = LANE / 2 + ENTRY, ROUNDABOUT_REACH, math.pi / 2
    for arm in site.arms:
        leaves, joins = site.node(arm, "leave"), site.node(arm, "join")
        entry = _arc(
            site, arm, corner, down, ENTRY, math.pi, 3 * quarter - TOUCH,
            priority=site.priority(arm, RIGHT), lines=("none", "solid"),
        )  # fmt: skip
        network.add_lane(site.node(arm, "in"), joins, entry)
        exit_ = _arc(
            site, arm, -corner, down, ENTRY, TOUCH - quarter, 0.0, priority=3, lines=("none", "solid")
        )  # fmt: skip
        network.add_lane(leaves, site.node(arm, "out"), exit_)
        past = _arc(
            site, arm, 0.0, 0.0, RING, quarter + TOUCH, quarter - TOUCH, priority=3, lines=("solid", "dashed")
        )  # fmt: skip
        network.add_lane(leaves, joins, past)
        step = next(n for n in (1, 2, 3) if site.lanes[(arm - n) % 4])
        following = site.node((arm - step) % 4, "leave")
        onward = _arc(
            site, arm, 0.0, 0.0, RING, quarter - TOUCH, quarter + TOUCH - step * quarter,
            priority=3, lines=("solid", "solid"),
        )  # fmt: skip
        network.add_lane(joins, following, onward)
        turns[site.node(arm, "in"), joins] = turns[leaves, site.node(arm, "out")] = ROUNDABOUT
        turns[leaves, joins] = turns[joins, following] = STRAIGHT
    return turns


# --- people -----------------------------------------------------------------------------------------------------------


def _walks(network: RoadNetwork, site: Site, rng: np.random.Generator) -> None:
    """Places to cross some arms. Where signals stop the traffic none is painted; nor is any across an arterial."""
    signals = site.kind == "signals"
    for arm, chance in zip(range(4), rng.random(4).tolist(), strict=True):
        if chance < 0.4 and (site.lanes[arm] == 1 or signals and site.lanes[arm]):
            y = ROUNDABOUT_WALK if site.kind == "roundabout" else CROSSING_WALK
            network.crossings.append(walk(site, arm, y, zebra=not signals))


def walk(site: Site, arm: int, y: float, zebra: bool = True) -> Crossing:
    """A strip across an arm, at distance y from the centre [m]."""
    x = site.lanes[arm] * LANE + SHOULDER
    return Crossing(site.at(arm, x, y), site.at(arm, -x, y), zebra=zebra)


# --- signals ----------------------------------------------------------------------------------------------------------


def _signals(network: RoadNetwork, site: Site, rng: np.random.Generator) -> None:
    """Heads, stop lines and a plan: each axis in turn; arterials may have their left turns go first, protected."""
    protect, actuate, wait, green, at = rng.random(5).tolist()
    actuated = actuate < 0.4
    phases = []
    for arms in ([arm for arm in axis if site.lanes[arm]] for axis in ((0, 2), (1, 3))):
        opposed = len(arms) == 2
        arrows = opposed and site.lanes[arms[0]] > 1 and protect < 0.6
        mains, lefts, permissive = [], [], []
        for arm in arms:
            turns_left = bool(site.lanes[(arm + 1) % 4])
            if arrows and turns_left:
                mains.append(_head(network, site, arm, (STRAIGHT, RIGHT)))
                lefts.append(_head(network, site, arm, (LEFT,)))
            else:
                # Left turns give way where somebody comes the other way.
                kind = permissive if turns_left and opposed else mains
                kind.append(_head(network, site, arm, (LEFT, STRAIGHT, RIGHT)))
        if lefts:
            phases.append(Phase(tuple(lefts), green=6.0, longest=12.0 if actuated else 6.0))
        longest = 12.0 + 10.0 * green
        phases.append(Phase(tuple(mains), tuple(permissive), 6.0 if actuated else longest, longest))
    all_red = 1.5 + 0.5 * (wait < 0.5)
    cycle = sum(phase.longest + AMBER + all_red for phase in phases)
    heads = tuple(sorted(head for phase in phases for head in (*phase.protected, *phase.permissive)))
    network.junctions.append(Junction(heads, tuple(phases), AMBER, all_red, actuated, offset=at * cycle))


def _head(network: RoadNetwork, site: Site, arm: int, turns: tuple[str, ...]) -> int:
    """Add a head for these turns of an arm, and stop lines where they are missing. Returns its place in the network."""
    start, arrow = site.node(arm, "in"), turns == (LEFT,)
    movements: list[LaneIndex] = []
    for turn in turns:
        out = (arm + OUT[turn]) % 4
        if site.lanes[out]:
            in_pieces = turn == RIGHT and site.lanes[arm] != site.lanes[out]
            end = site.node(arm, "right") if in_pieces else site.node(out, "out")
            movements += [(start, end, place) for place in range(len(network.graph[start][end]))]
    # 1 m beyond the stop line and 0.6 m behind the kerb, an arrow 0.8 m to the right of that.
    x = site.lanes[arm] * LANE + SHOULDER + (1.4 if arrow else 0.6)
    place = site.at(arm, x, CROSSING_REACH - 1.0)
    network.signals.append(Signal(tuple(movements), place, (arm - 1) * math.pi / 2, arrow))
    return len(network.signals) - 1
