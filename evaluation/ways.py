"""The way ahead of a car on a road network, and where everything is along and across it.

An ego's way is the centre line of its lane and of those that follow: along its route where it has one, else the lane
that begins nearest. Positions along and across that line take the place of x and y, so what is defined on a straight
road (a leader, a gap, a time to collision) holds on a bend too. An ego that is off its lane, or more than 45 degrees
turned from it (on a car park, say), has no use for it: its way is straight along its heading.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.roads.general import PLACES
from envs.roads.network import RoadNetwork

AHEAD = 100.0  # m that a way goes on beyond the end of the ego's lane, and in which a leader is sought
TURNED = math.pi / 4  # rad from the way's direction, beyond which the ego does not follow it
AT_ONCE = 2_000_000  # pairs of a place and a piece of a way that are compared at a time


class Places(NamedTuple):
    """Where boxes are on the ego's way. Every field has the same shape."""

    along: Tensor  # [m], from the way's start
    across: Tensor  # [m], to the right of its middle
    heading: Tensor  # [rad], from its direction


class Ways:
    """The ways over the networks of a batch. Lanes and roads are counted through all of them, as the simulator does.

    Args:
        maps: the networks.
        followed: whether it is known which lanes the egos are on; else all ways are straight.

    Attributes:
        road: number of each lane's road. Shape: (lanes,), int64.
        followed: as given.
    """

    def __init__(self, maps: Sequence[RoadNetwork], followed: bool = True):
        self.followed = followed
        self._lanes = [(network, index) for network in maps for index in network.indices]
        roads = [(number, *road) for number, network in enumerate(maps) for road in network.roads]
        numbers = {road: number for number, road in enumerate(roads)}
        keys = [(number, *index) for number, network in enumerate(maps) for index in network.indices]
        self._numbers = {key: number for number, key in enumerate(keys)}
        self._maps = [key[0] for key in keys]
        self.road = torch.tensor([numbers[key[:3]] for key in keys])
        self._lines: dict[tuple, np.ndarray] = {}

    @staticmethod
    def routes(route: Tensor, route_end: Tensor) -> tuple[tuple[int, ...], ...]:
        """The roads on each ego's route, from the state's `route` (N, V, R) and `route_end` (N, V)."""
        ends = route_end[:, 0].tolist()
        rows = (route[:, 0] // PLACES).tolist()
        return tuple(tuple(row[:end]) for row, end in zip(rows, ends, strict=True))

    def following(self, lane: int, route: tuple[int, ...]) -> int | None:
        """The lane after the end of a lane, None where the road ends."""
        network, (_, end, _) = self._lanes[lane]
        after = [
            self._numbers[self._maps[lane], end, node, place]
            for node, road in network.graph.get(end, {}).items()
            for place in range(len(road))
        ]
        own = int(self.road[lane])
        wanted = dict(itertools.pairwise(route)).get(own)
        after = [number for number in after if int(self.road[number]) == wanted] or after
        here = self._lane(lane).position(self._lane(lane).length)
        return min(after, key=lambda number: math.dist(here, self._lane(number).position(0.0)), default=None)

    def beside(self, before: int, after: int) -> bool:
        """Whether who drove on one lane and then on another went over to a lane beside, on its road or the next."""
        own, new = int(self.road[before]), int(self.road[after])
        if own == new:
            return True
        onward = self.following(before, (own, new))
        return onward is not None and onward != after and int(self.road[onward]) == new

    def line(self, lane: int, route: tuple[int, ...]) -> np.ndarray:
        """The middle of the way that begins with a lane, as points [m]. Shape: (P, 2)."""
        route = route if int(self.road[lane]) in route else ()
        if (lane, route) not in self._lines:
            points, left, at = [self._lane(lane).centre_line()], AHEAD, lane
            while left > 0 and (at := self.following(at, route)) is not None:
                points.append(self._lane(at).centre_line())
                left -= self._lane(at).length
            line = np.concatenate(points)
            apart = np.hypot(*np.diff(line, axis=0).T) > 1e-3  # lanes that meet share a point
            self._lines[lane, route] = line[np.concatenate(([True], apart))]
        return self._lines[lane, route]

    def width(self, lane: int) -> float:
        """Of a lane [m]."""
        return self._lane(lane).width

    def _lane(self, number: int):
        network, index = self._lanes[number]
        return network.lane(index)


def project(x: Tensor, y: Tensor, heading: Tensor, line: Tensor) -> Places:
    """Places on a line of straight pieces, the first and last of which go on for ever.

    Args:
        x, y, heading: [m], [rad]. Shape: (M,).
        line: no two neighbouring points are equal [m]. Shape: (P, 2), P >= 2.

    Returns:
        Shape: (M,). The distance across is that from the line, negative on its left (-y of a line along +x).
    """
    start, step = line[:-1], line.diff(dim=0)
    length = step.norm(dim=1)
    unit = step / length[:, None]
    before = length.cumsum(0) - length
    low, high = torch.zeros_like(length), length.clone()
    low[0], high[-1] = -torch.inf, torch.inf
    parts = []
    for rows in torch.arange(len(x), device=x.device).split(max(1, AT_ONCE // len(length))):
        dx, dy = x[rows, None] - start[:, 0], y[rows, None] - start[:, 1]
        share = (dx * unit[:, 0] + dy * unit[:, 1]).clamp(low, high)
        distance = torch.hypot(dx - share * unit[:, 0], dy - share * unit[:, 1])
        nearest = distance.argmin(1, keepdim=True)
        side = (dy * unit[:, 0] - dx * unit[:, 1]).gather(1, nearest)
        across = torch.where(side < 0, -1.0, 1.0) * distance.gather(1, nearest)
        direction = torch.atan2(unit[:, 1], unit[:, 0])[nearest]
        along = before[nearest] + share.gather(1, nearest)
        parts.append(torch.cat([along, across, heading[rows, None] - direction], 1))
    return Places(*(torch.cat(parts) if parts else x.new_zeros(0, 3)).unbind(1))
