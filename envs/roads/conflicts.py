"""Ways through junctions: which of them meet, where, and where to wait for each other.

A way is what lies between the end of the street that leads to a junction and the start of the one that leads away: one
lane, or two where a turn is in two pieces. It is named by its first lane. Two ways are in conflict where the strips
that cars sweep on them overlap, unless both begin on the same lane or one continues the other. Lanes that meet no
other lane, streets above all, are no ways.

Vehicles wait before the line where their way begins. Where all that begins at a node only merges, as round a
roundabout, they wait just before the first overlap instead: nobody crosses there, and the ring is short.
"""

import functools
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs.precision import Functions
from envs.roads.network import RoadNetwork

STRIP = 2.6  # m, width that a moving car may cover
SAMPLES = 48  # of a way's centre line
SAME_POINT = 0.5  # m
# Where the front bumper comes to rest: so far before the line, or before an overlap [m].
BEFORE_LINE, BEFORE_OVERLAP = 1.25, 1.0


@dataclass(frozen=True)
class Conflict:
    """Where one way meets another: stretches of both, from the start of each [m]."""

    way: int
    other: int
    begins: float
    ends: float
    other_begins: float
    other_ends: float
    merges: bool


@dataclass(frozen=True)
class Way:
    """A way through a junction.

    Attributes:
        lanes: their numbers, in the order of travel; the first one's is the way's.
        length: [m].
        onto: number of the lane that it leads to, -1 for none.
        conflicts: with others.
        wait: where a front bumper rests that must wait, from its start [m].
    """

    lanes: tuple[int, ...]
    length: float
    onto: int
    conflicts: tuple[Conflict, ...]
    wait: float

    @property
    def crosses(self) -> bool:
        """Whether it leads across another way, and does not merely join it."""
        return not all(conflict.merges for conflict in self.conflicts)


def is_regulated(network: RoadNetwork) -> bool:
    """Whether drivers obey the law of junctions on this map: where there are signals or stop lines, or it says so."""
    return bool(network.signals or network.stop_lines or getattr(network, "yields", False))


def ways(network: RoadNetwork) -> list[Way]:
    """The ways through all junctions of a map."""
    paths = _paths(network)
    lanes = network.lanes
    starts = np.array([lanes[path[0]].position(0.0) for path in paths])
    ends = np.array([lanes[path[-1]].position(lanes[path[-1]].length) for path in paths])
    lengths = np.array([sum(lanes[k].length for k in path) for path in paths])
    found: dict[int, list[Conflict]] = {}
    for a, b, stretch in zip(*_overlaps(network, paths, starts, ends, lengths), strict=True):
        merges = bool(np.hypot(*(ends[a] - ends[b])) < SAME_POINT)
        for one, two, along in ((a, b, stretch), (b, a, np.roll(stretch, 2))):
            found.setdefault(one, []).append(Conflict(paths[one][0], paths[two][0], *along.tolist(), merges))
    controlled = {network.number(movement) for signal in network.signals for movement in signal.movements}
    for k, path in enumerate(paths):
        if path[0] in controlled:
            # A light holds who would meet nobody too.
            found.setdefault(k, [])
    nodes = [network.indices[path[0]][0] for path in paths]
    crossing = {nodes[k] for k, conflicts in found.items() if not all(c.merges for c in conflicts)}
    first = {tuple(np.round(lane.position(0.0), 1)): number for number, lane in enumerate(lanes)}
    result = []
    for k, conflicts in sorted(found.items()):
        wait = -BEFORE_LINE
        if nodes[k] not in crossing and paths[k][0] not in controlled:
            wait = max(wait, min(c.begins for c in conflicts) - BEFORE_OVERLAP)
        onto = first.get(tuple(np.round(ends[k], 1)), -1)
        result.append(Way(paths[k], float(lengths[k]), onto, tuple(conflicts), wait))
    return result


def _paths(network: RoadNetwork) -> list[tuple[int, ...]]:
    """Every lane, two of them together where a turn that branches off is in two pieces, before it joins others."""
    into: dict[str, list[tuple[str, str]]] = {}
    for road in network.roads:
        into.setdefault(road[1], []).append(road)

    def joins(road: tuple[str, str]) -> bool:
        """Whether a road is the second piece of a turn."""
        before = into.get(road[0], [])
        return (
            len(before) == 1
            and len(network.graph[road[0]]) == 1
            and len(into[road[1]]) > 1
            and len(network.graph[before[0][0]]) > 1
            and len(network.graph[road[0]][road[1]]) == len(network.graph[before[0][0]][before[0][1]])
        )

    second = {road for road in network.roads if joins(road)}
    result = []
    for start, end, place in network.indices:
        if (start, end) not in second:
            path = [network.number((start, end, place))]
            for following in network.graph.get(end, {}):
                if (end, following) in second:
                    path.append(network.number((end, following, place)))
            result.append(tuple(path))
    return result


def _overlaps(network: RoadNetwork, paths, starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray):
    """Pairs of paths (a, b) whose strips overlap, and where: from, to on a, from, to on b [m]. Shape: (C, 4)."""
    share = np.linspace(0.0, 1.0, SAMPLES)
    points = np.stack([_points(network, path, share) for path in paths])
    low, high = points.min(axis=1) - STRIP / 2, points.max(axis=1) + STRIP / 2
    near = np.all((low[:, None] <= high) & (low <= high[:, None]), axis=-1)
    apart = np.hypot(*(starts[:, None] - starts).transpose(2, 0, 1)) > SAME_POINT
    follows = np.hypot(*(ends[:, None] - starts).transpose(2, 0, 1)) < SAME_POINT
    a, b = np.nonzero(np.triu(near & apart & ~follows & ~follows.T, 1))
    one, two = points[a].astype(np.float32), points[b].astype(np.float32)
    square = (one[:, :, None, 0] - two[:, None, :, 0]) ** 2 + (one[:, :, None, 1] - two[:, None, :, 1]) ** 2
    close = square < STRIP**2
    on_a, on_b = close.any(axis=2), close.any(axis=1)
    meet = on_a.any(axis=1)
    a, b, on_a, on_b = a[meet], b[meet], on_a[meet], on_b[meet]
    stretch = []
    for path, on in ((a, on_a), (b, on_b)):
        spacing = lengths[path] / (SAMPLES - 1)
        last = SAMPLES - 1 - on[:, ::-1].argmax(axis=1)
        stretch += [np.maximum(on.argmax(axis=1) - 0.5, 0.0) * spacing, np.minimum(last + 0.5, SAMPLES - 1) * spacing]
    return a.tolist(), b.tolist(), np.stack(stretch, axis=1)


def _points(network: RoadNetwork, path: tuple[int, ...], share: np.ndarray) -> np.ndarray:
    """Points on a path's centre line at these shares of its length. Shape: (P, 2)."""
    lanes = [network.lanes[k] for k in path]
    if len(lanes) == 1:
        return lanes[0].position(share * lanes[0].length)
    first, second = lanes
    s = share * (first.length + second.length)
    return np.where((s < first.length)[:, None], first.position(s), second.position(s - first.length))


# --- tables -----------------------------------------------------------------------------------------------------------


@functools.cache
def build(real: type) -> Functions:
    """Struct `Ways`: the ways of several maps, by the number of their first lane."""

    @wp.struct
    class Ways:
        present: wp.array(dtype=wp.int32)  # [map] whether drivers obey the law there
        of_lane: wp.array(dtype=wp.int32)  # [lane] the way that it is part of, -1 for none
        shift: wp.array(dtype=real)  # [lane] m, where it begins on that
        ahead: wp.array(dtype=wp.int32)  # [lane] whether a way begins at its end
        head: wp.array(dtype=wp.int32)  # [way] the map's signal head that it obeys, -1 for none
        junction: wp.array(dtype=wp.int32)  # [way] the map's junction that switches it, -1 for none
        onto: wp.array(dtype=wp.int32)  # [way] the lane after it, -1 for none
        crosses: wp.array(dtype=wp.int32)  # [way] whether it leads across others
        length: wp.array(dtype=real)  # [way] m
        wait: wp.array(dtype=real)  # [way] m, where the front of who waits rests
        clear: wp.array(dtype=real)  # [way] m, where its last conflict ends
        first: wp.array(dtype=wp.int32)  # [way + 1] where its conflicts begin
        other: wp.array(dtype=wp.int32)  # [conflict] with which way
        begins: wp.array(dtype=real)  # [conflict] m, on the way itself
        ends: wp.array(dtype=real)  # [conflict] m
        other_begins: wp.array(dtype=real)  # [conflict] m, on the other one
        other_ends: wp.array(dtype=real)  # [conflict] m

    return Functions(Ways=Ways)


def table(networks: list[RoadNetwork], dtype: str, device: str):
    """The struct `Ways` over several maps; empty where none asks for it."""
    real = wp.float32 if dtype == "float32" else wp.float64
    result = build(real).Ways()
    regulated = [is_regulated(network) for network in networks]
    count = sum(len(network.lanes) for network in networks)
    ints = {name: np.full(count, -1) for name in ("of_lane", "head", "junction", "onto")}
    ints |= {name: np.zeros(count, dtype=int) for name in ("ahead", "crosses")}
    reals = {name: np.zeros(count) for name in ("shift", "length", "wait", "clear")}
    conflicts: list[list[Conflict]] = [[] for _ in range(count)]
    base = 0
    for network, wanted in zip(networks, regulated, strict=True):
        if wanted:
            _fill(network, base, ints, reals, conflicts)
        base += len(network.lanes)
    flat = [conflict for each in conflicts for conflict in each]
    ints |= {
        "present": np.array(regulated),
        "first": np.cumsum([0] + [len(each) for each in conflicts]),
        "other": np.array([lane for lane, _ in flat]),
    }
    for name in ("begins", "ends", "other_begins", "other_ends"):
        reals[name] = np.array([getattr(conflict, name) for _, conflict in flat])
    for names, kind in ((ints, wp.int32), (reals, real)):
        for name, values in names.items():
            values = values if len(values) else np.zeros(1)
            setattr(result, name, wp.array(values.astype(float), dtype=kind, device=device))
    return result


def _fill(network: RoadNetwork, base: int, ints: dict, reals: dict, conflicts: list) -> None:
    """Enter the ways of a map whose first lane has the number `base`."""
    heads = {network.number(m): k for k, signal in enumerate(network.signals) for m in signal.movements}
    switched_by = {head: k for k, junction in enumerate(network.junctions) for head in junction.signals}
    begin = set()
    for way in ways(network):
        number = base + way.lanes[0]
        s = 0.0
        for lane in way.lanes:
            ints["of_lane"][base + lane], reals["shift"][base + lane] = number, s
            s += network.lanes[lane].length
        head = heads.get(way.lanes[0], -1)
        ints["head"][number], ints["junction"][number] = head, switched_by.get(head, -1)
        ints["onto"][number] = base + way.onto if way.onto >= 0 else -1
        ints["crosses"][number] = way.crosses
        reals["length"][number], reals["wait"][number] = way.length, way.wait
        reals["clear"][number] = max((conflict.ends for conflict in way.conflicts), default=0.0)
        conflicts[number] = [(base + conflict.other, conflict) for conflict in way.conflicts]
        begin.add(network.indices[way.lanes[0]][0])
    for lane, (_, end, _) in enumerate(network.indices):
        ints["ahead"][base + lane] = end in begin
