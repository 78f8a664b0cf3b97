"""Towns, generated from a seed: streets on a lattice, arterials, crossings of every kind and roundabouts.

Crossings stand on the points of a lattice of `BLOCK` metres. One street in a row or a column of them, or one in each,
is an arterial of two lanes each way, which leads right through the town; of the other streets some are missing, which
leaves T-crossings and bends. Streets that leave the lattice end at the border, where traffic enters and leaves.

Everything stands on a lattice of `TILE` metres: what is on one of its squares, lanes, lines and zebra crossings alike,
depends on the kind of the piece it belongs to, and not on where in the town that is. A ground texture of a few
different squares therefore covers any town. The squares' corners are the multiples of `TILE`; crossings are corners.

Every destination is reached from every entry, the way out beside it included, and no road is one that cannot be come
by or that leads nowhere. Nobody turns round on the spot, but the streets of a town are connected, none of them is a
dead end, and there is a block to drive round.
"""

from dataclasses import dataclass

import numpy as np

from envs.errors import UserError
from envs.random import hash_key
from envs.roads import crossings, lanes
from envs.roads.crossings import Site
from envs.roads.network import LaneIndex, RoadNetwork

BLOCK = 96.0  # m
TILE = 32.0  # m
BORDER = 80.0  # m from the last crossing to the border
ENTRY = 5.0  # m from the border to where a vehicle enters, so that all of it is on the road
HELD_OUT_SHARE = 10  # one map in so many

# To the neighbour at arm 0 to 3 (south, west, north, east).
NEIGHBOUR = ((0, 1), (-1, 0), (0, -1), (1, 0))
Place = tuple[int, int]


@dataclass(frozen=True)
class Town:
    """A road network on which to drive from anywhere to anywhere.

    Attributes:
        network: roads, signals and crossings.
        entries: (lane, s) where the ego may start and traffic may enter: at the border [m].
        destinations: nodes at which a trip may end: at the border.
        turns: what each road (from, to) through a crossing does: "left", "straight" or "right". At a roundabout the
            roads into it and out of it are "roundabout", those along its ring "straight": where two roads of different
            kinds leave a node, the kind says which to take. A right turn in two roads is "right" twice.
    """

    network: RoadNetwork
    entries: list[tuple[LaneIndex, float]]
    destinations: list[str]
    turns: dict[tuple[str, str], str]

    @property
    def manoeuvres(self) -> dict[tuple[str, str], str]:
        """`turns` without the pieces of rings, on which there is nothing to do but to go on."""
        at_ring = {node for road, turn in self.turns.items() if turn == crossings.ROUNDABOUT for node in road}
        return {
            road: turn
            for road, turn in self.turns.items()
            if turn != crossings.STRAIGHT or not at_ring.issuperset(road)
        }


def is_held_out(seed: int) -> bool:
    """Whether a seed's map is kept for evaluation, never for training: one in ten, by a hash of the seed."""
    return hash_key(seed, 0, 0, 0, 0) % HELD_OUT_SHARE == 0


def generate(seed: int, columns: int = 4, rows: int = 4) -> Town:
    """The town of a seed, always the same.

    Args:
        seed: 0 or more.
        columns, rows: crossings from west to east and from north to south, before some are left out; 2 or more.

    Raises:
        UserError: a negative seed, or fewer than 2 columns or rows.
    """
    if seed < 0:
        raise UserError(f"the seed of a town must be 0 or more, not {seed}")
    if columns < 2 or rows < 2:
        raise UserError(f"a town needs at least 2 columns and 2 rows of crossings, not {columns} and {rows}")
    rng = np.random.default_rng(seed)
    plan = _plan(rng, columns, rows)
    sites = {place: _site(rng, place, arms) for place, arms in plan.items()}
    town = Town(RoadNetwork(), [], [], {})
    town.network.yields = True
    for place, site in sites.items():
        for arm in site.arms:
            dx, dy = NEIGHBOUR[arm]
            other = sites.get((place[0] + dx, place[1] + dy))
            if other is None:
                _border(town, site, arm)
            else:
                _street(town.network, site, arm, other)
    for site in sites.values():
        town.turns.update(crossings.build(town.network, site, rng))
    _walks(town.network, sites, rng)
    _stop_lines(town.network)
    return town


# --- which streets there are ------------------------------------------------------------------------------------------


def _plan(rng: np.random.Generator, columns: int, rows: int) -> dict[Place, tuple[int, int, int, int]]:
    """Lanes each way of the four arms of every crossing: the first plan drawn that leaves most of the town."""
    while True:
        plan = _connected(_without_dead_ends(_draw_plan(rng, columns, rows)))
        streets = sum(_leads_to(plan, place, arm) is not None for place in plan for arm in range(4)) // 2
        # A connected town with as many streets as crossings has a block to drive round.
        if streets >= len(plan) >= columns * rows / 2:
            return {place: tuple(arms) for place, arms in plan.items()}


def _draw_plan(rng: np.random.Generator, columns: int, rows: int) -> dict[Place, list[int]]:
    """Arterials lead across the whole lattice; of other streets 80 % are there, and 65 % of the ways out of town."""
    chance, which, along, down = rng.random(4).tolist()
    row, column = int(along * rows), int(down * columns)
    has_row, has_column = which < 0.5 or chance < 0.5, which >= 0.5 or chance < 0.5

    def draw(count: int, arterial: bool) -> list[int]:
        """Lanes of the stretches before, between and after the crossings of one line."""
        drawn = rng.random(count + 1).tolist()
        share = [0.65, *[0.8] * (count - 1), 0.65]
        return [2] * (count + 1) if arterial else [int(u < p) for u, p in zip(drawn, share, strict=True)]

    across = [draw(columns, has_row and j == row) for j in range(rows)]
    downward = [draw(rows, has_column and i == column) for i in range(columns)]
    return {
        (i, j): [downward[i][j + 1], across[j][i], downward[i][j], across[j][i + 1]]
        for j in range(rows)
        for i in range(columns)
    }


def _leads_to(plan: dict[Place, list[int]], place: Place, arm: int) -> Place | None:
    """The crossing at the other end of an arm, if there is one."""
    dx, dy = NEIGHBOUR[arm]
    other = place[0] + dx, place[1] + dy
    return other if plan[place][arm] and other in plan else None


def _without_dead_ends(plan: dict[Place, list[int]]) -> dict[Place, list[int]]:
    """Take away streets that lead to a crossing from which none goes on, until there are no more."""
    waiting = list(plan)
    while waiting:
        place = waiting.pop()
        arms = [arm for arm in range(4) if plan[place][arm]]
        if len(arms) == 1:
            other = _leads_to(plan, place, arms[0])
            plan[place][arms[0]] = 0
            if other is not None:
                plan[other][(arms[0] + 2) % 4] = 0
                waiting.append(other)
    return plan


def _connected(plan: dict[Place, list[int]]) -> dict[Place, list[int]]:
    """The part of the town that hangs together with its arterial."""
    start = next(place for place, arms in plan.items() if max(arms) > 1)
    found, waiting = {start}, [start]
    while waiting:
        place = waiting.pop()
        for arm in range(4):
            other = _leads_to(plan, place, arm)
            if other is not None and other not in found:
                found.add(other)
                waiting.append(other)
    return {place: arms for place, arms in plan.items() if place in found}


def _site(rng: np.random.Generator, place: Place, arms: tuple[int, int, int, int]) -> Site:
    """Draw what kind of crossing it is. Nobody waits at a bend; a roundabout has one lane, so no arterial leads in.

    Where arterials cross there are always signals.
    """
    chance, major = rng.random(2).tolist()
    if sum(map(bool, arms)) == 2:
        kind = "priority"
    elif min(arms) > 1:
        kind = "signals"
    elif max(arms) > 1:
        kind = "signals" if chance < 0.75 else "priority"
    else:
        kind = "roundabout" if chance < 0.3 else "signals" if chance < 0.6 else "priority"
    # The wider road goes first, or that which leads on, or either.
    width = [min(arms[0], arms[2]), min(arms[1], arms[3])]
    first = int(major < 0.5) if width[0] == width[1] else int(width[1] > width[0])
    return Site(f"{place[0]}.{place[1]}", (BLOCK * place[0], BLOCK * place[1]), arms, kind, first)


# --- streets between crossings ----------------------------------------------------------------------------------------


def _add_road(network: RoadNetwork, road: tuple[str, str], ends, count: int, middle: bool, priority: int) -> None:
    """Add the lanes of one direction of a street.

    Args:
        ends: of each lane, its start and end [m].
        middle: whether it draws the middle line.
        priority: at the crossing to which it leads.
    """
    for place, (start, end) in enumerate(ends):
        left = "dashed" if place else crossings.middle_line(count) if middle else "none"
        right = "solid" if place == count - 1 else "none"
        lane = lanes.straight(
            start, end, speed_limit=crossings.speed_limit(count), priority=priority, lines=(left, right)
        )
        network.add_lane(*road, lane)


def _street(network: RoadNetwork, site: Site, arm: int, other: Site) -> None:
    """The way from a crossing to its neighbour; the way back is added from there."""
    count, facing = site.lanes[arm], (arm + 2) % 4
    offsets = [crossings.offset(place) for place in range(count)]
    ends = [(site.at(arm, -x, site.reach), other.at(facing, x, other.reach)) for x in offsets]
    road = site.node(arm, "out"), other.node(facing, "in")
    priority = other.priority(facing, crossings.STRAIGHT)
    _add_road(network, road, ends, count, crossings.draws_middle_line(arm), priority)


def _border(town: Town, site: Site, arm: int) -> None:
    """The ways into town and out of it at an arm that leads to the border."""
    count = site.lanes[arm]
    offsets = [crossings.offset(place) for place in range(count)]
    way_in = site.node(arm, "from"), site.node(arm, "in")
    way_out = site.node(arm, "out"), site.node(arm, "to")
    inward = [(site.at(arm, x, BORDER), site.at(arm, x, site.reach)) for x in offsets]
    outward = [(site.at(arm, -x, site.reach), site.at(arm, -x, BORDER)) for x in offsets]
    draws = crossings.draws_middle_line(arm)
    _add_road(town.network, way_in, inward, count, not draws, site.priority(arm, crossings.STRAIGHT))
    _add_road(town.network, way_out, outward, count, draws, 3)
    town.entries.extend(((*way_in, place), ENTRY) for place in range(count))
    town.destinations.append(way_out[1])


def _walks(network: RoadNetwork, sites: dict[Place, Site], rng: np.random.Generator) -> None:
    """Zebra crossings half-way along some streets of one lane each way."""
    for (i, j), site in sites.items():
        for arm, chance in zip((0, 3), rng.random(2).tolist(), strict=True):
            dx, dy = NEIGHBOUR[arm]
            other = sites.get((i + dx, j + dy))
            if chance < 0.2 and other and site.lanes[arm] == 1 and "roundabout" not in (site.kind, other.kind):
                network.crossings.append(crossings.walk(site, arm, BLOCK / 2))


def _stop_lines(network: RoadNetwork) -> None:
    """Stop lines on all lanes that end at a signal."""
    controlled = {movement[0] for signal in network.signals for movement in signal.movements}
    network.stop_lines.extend(index for index in network.indices if index[1] in controlled)
