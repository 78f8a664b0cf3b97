"""Road networks on the host: lanes between named nodes, routes through them, and what is wrong with an impossible one.

A network is a graph whose edges are roads of one or more lanes, as in highway-env. Lanes are numbered in graph order:
by their from node, then their to node, each in the order first added, then from left to right.
"""

import math
from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from envs.errors import UserError, unknown
from envs.roads.lanes import Lane
from envs.roads.signals import Junction, Signal

LaneIndex = tuple[str, str, int]
# A lane's centre line [P, 2] in m, style of its left line, style of its right line, width in m.
Polyline = tuple[np.ndarray, str, str, float]


@dataclass(frozen=True)
class Crossing:
    """A zebra crossing: a strip across lanes on which people walk.

    Attributes:
        start, end: where the walk across begins and ends, at the kerbs [m].
        width: of the strip [m].
        zebra: whether it is painted; people have right of way on a painted one.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    width: float = 4.0
    zebra: bool = True


class RoadNetwork:
    """Lanes by (from node, to node, place on that road), the leftmost lane first.

    Attributes:
        graph: from node -> to node -> the road's lanes.
        crossings: where people cross.
        signals: signal heads.
        junctions: the plans that switch them.
        stop_lines: lanes with a stop line painted across their end.
        paved: strips of asphalt that are no lanes, as straight lanes of any width without lines.
        yields: whether drivers obey the law of junctions even where there are neither signals nor stop lines.
    """

    def __init__(self):
        self.graph: dict[str, dict[str, list[Lane]]] = {}
        self.crossings: list[Crossing] = []
        self.signals: list[Signal] = []
        self.junctions: list[Junction] = []
        self.stop_lines: list[LaneIndex] = []
        self.paved: list[Lane] = []
        self.yields = False

    def add_lane(self, start: str, end: str, lane: Lane) -> LaneIndex:
        """Add a lane to the right of those that the road from `start` to `end` has already."""
        road = self.graph.setdefault(start, {}).setdefault(end, [])
        road.append(lane)
        self.__dict__.pop("_order", None)
        return start, end, len(road) - 1

    @cached_property
    def _order(self) -> tuple[list[Lane], list[LaneIndex], dict[LaneIndex, int]]:
        indices = [
            (start, end, place)
            for start, roads in self.graph.items()
            for end, road in roads.items()
            for place in range(len(road))
        ]
        return [self.graph[a][b][k] for a, b, k in indices], indices, {index: n for n, index in enumerate(indices)}

    @property
    def lanes(self) -> list[Lane]:
        """Every lane, by number."""
        return self._order[0]

    @property
    def indices(self) -> list[LaneIndex]:
        """The index of every lane, by number."""
        return self._order[1]

    @property
    def roads(self) -> list[tuple[str, str]]:
        """(from, to) of every road, in graph order."""
        return [(start, end) for start, roads in self.graph.items() for end in roads]

    @property
    def nodes(self) -> list[str]:
        """Every node, in the order first met."""
        return list(dict.fromkeys(node for start, end in self.roads for node in (start, end)))

    def number(self, index: LaneIndex) -> int:
        """A lane's number.

        Raises:
            UserError: the network has no such lane.
        """
        if index not in self._order[2]:
            start, end, _ = index
            count = len(self.graph.get(start, {}).get(end, []))
            raise UserError(f"the road network has no lane {index}; the road from '{start}' to '{end}' has {count}")
        return self._order[2][index]

    def lane(self, index: LaneIndex) -> Lane:
        """The lane of that index; see `number`."""
        return self.lanes[self.number(index)]

    def shortest_path(self, start: str, goal: str) -> list[str]:
        """The nodes of a path with the fewest roads, start and goal included; of several the first by name.

        Raises:
            UserError: no such node, or no path.
        """
        for node in (start, goal):
            if node not in self.nodes:
                raise unknown("node", node, self.nodes)
        before: dict[str, str] = {start: start}
        queue = deque([start])
        while queue and goal not in before:
            node = queue.popleft()
            for following in sorted(self.graph.get(node, {})):
                if following not in before:
                    before[following] = node
                    queue.append(following)
        if goal not in before:
            raise UserError(f"no road leads from node '{start}' to node '{goal}'")
        path = [goal]
        while path[-1] != start:
            path.append(before[path[-1]])
        return path[::-1]

    def connections(self, index: LaneIndex) -> list[tuple[int, float]]:
        """The lanes that continue a lane and those that lead into it, as highway-env's connected search has them.

        Returns:
            (lane number, offset) pairs: a distance s along that lane is s + offset along this one [m].
        """
        start, end, place = index
        length = self.lane(index).length

        def same_place(a: str, b: str) -> int:
            return self.number((a, b, place if place < len(self.graph[a][b]) else 0))

        onward = [(same_place(end, following), length) for following in self.graph.get(end, {})]
        inward = [same_place(before, start) for before, roads in self.graph.items() if start in roads]
        return onward + [(lane, -self.lanes[lane].length) for lane in inward]

    def polylines(self) -> list[Polyline]:
        """Each lane's centre line with the styles of its left and right markings and its width."""
        return [(lane.centre_line(), *lane.lines, lane.width) for lane in self.lanes]

    def bounds(self) -> tuple[float, float, float, float]:
        """Least and greatest x and y of the lanes' surfaces: x0, y0, x1, y1 [m]."""
        reach = max(lane.width for lane in self.lanes) / 2
        points = np.concatenate([lane.centre_line() for lane in self.lanes])
        return (*(points.min(axis=0) - reach), *(points.max(axis=0) + reach))

    def check(self, tolerance: float = 0.5) -> None:
        """Raise for a network that cannot be driven.

        Args:
            tolerance: how far apart, along the road, a lane's end and its successor's start may be [m].

        Raises:
            UserError: no lanes, or a road that no lane of those which lead to it meets.
        """
        if not self.graph:
            raise UserError("a road network needs at least one lane")
        for node, roads in self.graph.items():
            ends = [lane for road in self.graph.values() for lane in road.get(node, [])]
            for following, road in roads.items():
                gaps = [_gap(before, after) for before in ends for after in road]
                if gaps and min(gaps) > tolerance:
                    raise UserError(
                        f"the road from '{node}' to '{following}' begins {min(gaps):.1f} m from the end of every lane "
                        "that leads to it: lanes that follow each other must meet"
                    )


def _gap(before: Lane, after: Lane) -> float:
    """How far the start of a lane is from the end of another, less what side by side makes up for [m]."""
    s = before.length
    heading = float(before.heading_at(s))
    dx, dy = after.position(0.0) - before.position(s)
    along, across = dx * math.cos(heading) + dy * math.sin(heading), dy * math.cos(heading) - dx * math.sin(heading)
    return math.hypot(along, max(abs(across) - (before.width + after.width) / 2, 0.0))
