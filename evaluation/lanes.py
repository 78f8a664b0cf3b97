"""The lanes under the ego: where it is on them, whether it is against their direction, whether it is beside them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from envs.roads.network import RoadNetwork
from envs.roads.parallel import ParallelRoad
from evaluation.ways import Places, project

NEARBY = 15.0  # m around a lane: further lanes have no part in what is on or beside it
# A rectangle for every metre of a bend leaves wedges open on its outer side; they are shorter than this [m].
WEDGE = 0.3
LAWS = ("signals", "stop_lines", "yields")  # what makes drivers obey the law of junctions


class Strip(NamedTuple):
    """Something that may be driven on: a centre line and the width around it."""

    line: np.ndarray  # [m], shape (P, 2)
    width: np.ndarray  # [m], of each piece, shape (P - 1,)
    directed: bool  # whether traffic has a direction on it


class Lanes:
    """The lanes of a batch of worlds, counted through all their maps as the simulator does.

    Args:
        maps: the networks, or the one parallel road.

    Attributes:
        length, width, speed_limit: of each lane, [m] and [m/s]. Shape: (lanes,).
        road: number of each lane's road. Shape: (lanes,), int64.
        first: number of each map's first lane, and of all lanes. Shape: (maps + 1,).
        start, end: number of the nodes that each lane leads from and to. Shape: (lanes,), int64.
        head: the signal head that a way through a junction obeys, counted within its map; -1 for none. Shape: (lanes,).
        stop: whether there is a stop line at a lane's end, and no signal. Shape: (lanes,), bool.
        signals, ruled: of each map: whether it has signals, and whether it has a law of junctions. Shape: (maps,).
    """

    def __init__(self, maps: Sequence[RoadNetwork | ParallelRoad]):
        self._strips: list[Strip] = []
        self._beside: list[list[Strip]] = []  # of each map: what may be driven on without being a lane
        self.first = [0]
        limits, roads, heads, stops = [], [], [], []
        for each in maps:
            if isinstance(each, ParallelRoad):
                self._strips += [Strip(line, np.array([width]), True) for line, _, _, width in each.polylines()]
                limits += [each.speed_limit] * each.lanes
                names = [("", "", 0)] * each.lanes
                self._beside.append([])
                heads += [-1] * each.lanes
                stops += [False] * each.lanes
            else:
                self._strips += [_strip(lane) for lane in each.lanes]
                limits += [lane.speed_limit for lane in each.lanes]
                names = each.indices
                self._beside.append([_strip(strip)._replace(directed=False) for strip in each.paved])
                head = {lane: number for number, signal in enumerate(each.signals) for lane in signal.movements}
                heads += [head.get(index, -1) for index in each.indices]
                controlled = {start for start, _, _ in head}
                stops += [index in each.stop_lines and index[1] not in controlled for index in each.indices]
            roads += [(len(self.first), start, end) for start, end, _ in names]
            self.first.append(len(self._strips))
        numbers = {road: number for number, road in enumerate(dict.fromkeys(roads))}
        self.road = torch.tensor([numbers[road] for road in roads])
        ends = dict.fromkeys((number, node) for number, *nodes in roads for node in nodes)
        nodes = {node: number for number, node in enumerate(ends)}
        self.start = torch.tensor([nodes[number, start] for number, start, _ in roads])
        self.end = torch.tensor([nodes[number, end] for number, _, end in roads])
        self.head, self.stop = torch.tensor(heads), torch.tensor(stops)
        self.signals = torch.tensor([bool(getattr(each, "signals", ())) for each in maps])
        self.ruled = torch.tensor([any(getattr(each, law, ()) for law in LAWS) for each in maps])
        self.speed_limit = torch.tensor(limits)
        self.length = torch.tensor([float(np.hypot(*np.diff(s.line, axis=0).T).sum()) for s in self._strips])
        self.width = torch.tensor([float(s.width.max()) for s in self._strips])
        self._bend = torch.tensor([_sharpest(s.line) for s in self._strips])
        self._near: dict[int, tuple[Tensor, ...]] = {}

    def places(self, lane: Tensor, x: Tensor, y: Tensor, heading: Tensor) -> Places:
        """Places on a lane each: along it, to the right of its middle, and turned from its direction (-pi to pi).

        Args:
            lane: Shape: (M,), int64.
            x, y, heading: [m], [rad]. Shape: (M,).
        """
        found = Places(*(torch.empty_like(x) for _ in range(3)))
        for number, rows in grouped(lane):
            line = torch.from_numpy(self._strips[number].line).to(x)
            for part, values in zip(found, project(x[rows], y[rows], heading[rows], line), strict=True):
                part[rows] = values
        return found._replace(heading=torch.remainder(found.heading + torch.pi, 2 * torch.pi) - torch.pi)

    def outside(
        self, lane: Tensor, on: Places, boxes: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], tolerance: float
    ) -> Tensor:
        """Whether a corner of a box is further than a tolerance from everything that may be driven on.

        Args:
            lane: the closest to each box. Shape: (M,), int64.
            on: its place on that lane. Shape: (M,).
            boxes: x, y, heading, length, width. Shape: (M,) each.
            tolerance: [m].
        """
        x, y, heading, length, width = boxes
        # Most boxes are wholly on their lane, which their extent across it tells, with what a bend adds to it.
        reach = 0.5 * (length * on.heading.sin().abs() + width * on.heading.cos().abs())
        bulge = 0.125 * (length**2 + width**2) * self._bend.to(x)[lane]
        over_the_side = on.across.abs() + reach + bulge > 0.5 * self.width.to(x)[lane] + tolerance
        near_an_end = (on.along < length) | (on.along + length > self.length.to(x)[lane])
        rows = (over_the_side | near_an_end).nonzero()[:, 0]
        outside = torch.zeros_like(x, dtype=torch.bool)
        cos, sin = heading[rows].cos(), heading[rows].sin()
        for ahead, right in ((1, 1), (1, -1), (-1, -1), (-1, 1)):
            a, b = 0.5 * ahead * length[rows], 0.5 * right * width[rows]
            corner = x[rows] + a * cos - b * sin, y[rows] + a * sin + b * cos
            outside[rows] |= ~self._covered(lane[rows], *corner, tolerance)[0]
        return outside

    def against(self, lane: Tensor, on: Places, x: Tensor, y: Tensor, heading: Tensor) -> Tensor:
        """Whether somebody drives the wrong way: its centre is on a lane, and every lane that it is on leads more than
        90 degrees away from its heading.

        Args:
            lane: the closest to each. Shape: (M,), int64.
            on: its place on that lane. Shape: (M,).
            x, y, heading: [m], [rad]. Shape: (M,).
        """
        well = (on.heading.abs() <= torch.pi / 2) & (on.across.abs() <= 0.5 * self.width.to(x)[lane])
        rows = (~well).nonzero()[:, 0]
        against = torch.zeros_like(well)
        on_any, along_any = self._covered(lane[rows], x[rows], y[rows], 0.0, heading[rows])
        against[rows] = on_any & ~along_any
        return against

    def _covered(
        self, lane: Tensor, x: Tensor, y: Tensor, tolerance: float, heading: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Whether points lie on what may be driven on; with a heading: on a lane, and on one that leads its way."""
        covered, along = torch.zeros_like(x, dtype=torch.bool), torch.zeros_like(x, dtype=torch.bool)
        for number, rows in grouped(lane):
            x0, y0, cos, sin, length, half, directed = (part.to(x) for part in self._pieces(number))
            for some in rows.split(max(1, 1_000_000 // len(x0))):
                dx, dy = x[some, None] - x0, y[some, None] - y0
                s, r = dx * cos + dy * sin, (dy * cos - dx * sin).abs()
                slack = tolerance + WEDGE * (length < 2.0)  # pieces of a bend are a metre long
                inside = (s >= -slack) & (s <= length + slack) & (r <= half + tolerance)
                if heading is not None:
                    inside &= directed > 0
                    agrees = cos * heading[some, None].cos() + sin * heading[some, None].sin() >= 0
                    along[some] = (inside & agrees).any(1)
                covered[some] = inside.any(1)
        return covered, along

    def _pieces(self, lane: int) -> tuple[Tensor, ...]:
        """The straight pieces of everything near a lane: x, y of the start, cosine and sine of the direction, length,
        half the width, and 1 where traffic has a direction. Shape: (Q,) each."""
        if lane not in self._near:
            number = int(np.searchsorted(self.first, lane, side="right")) - 1
            own = self._strips[lane].line
            low, high = own.min(0) - NEARBY, own.max(0) + NEARBY
            rows = []
            for strip in (*self._strips[self.first[number] : self.first[number + 1]], *self._beside[number]):
                start, step = strip.line[:-1], np.diff(strip.line, axis=0)
                margin = strip.width[:, None] / 2
                least = np.minimum(start, start + step) - margin
                most = np.maximum(start, start + step) + margin
                near = ((least <= high) & (most >= low)).all(1)
                length = np.hypot(*step.T)
                unit = step / length[:, None]
                directed = np.full(len(length), float(strip.directed))
                rows.append(np.column_stack([start, unit, length, strip.width / 2, directed])[near])
            self._near[lane] = torch.from_numpy(np.concatenate(rows)).unbind(1)
        return self._near[lane]


def grouped(keys: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The rows of each key. Shape of `keys`: (M,), int64."""
    order = keys.argsort()
    values, counts = keys[order].unique_consecutive(return_counts=True)
    yield from zip(values.tolist(), order.split(counts.tolist()), strict=True)


def _strip(lane) -> Strip:
    """A lane of a network."""
    line = lane.centre_line()
    apart = np.concatenate(([True], np.hypot(*np.diff(line, axis=0).T) > 1e-6))
    line = line[apart]
    width = np.full(len(line) - 1, lane.width)
    if lane.samples is not None:
        at = np.linspace(0.0, lane.length, len(line))[:-1]
        width = lane.samples[np.clip(at.astype(int), 0, len(lane.samples) - 1), 4]
    return Strip(line, width, True)


def _sharpest(line: np.ndarray) -> float:
    """The sharpest bend of a line [1/m]."""
    if len(line) < 3:
        return 0.0
    step = np.diff(line, axis=0)
    turn = np.diff(np.unwrap(np.arctan2(step[:, 1], step[:, 0])))
    length = np.hypot(*step.T)
    return float(np.max(np.abs(turn) / (0.5 * (length[1:] + length[:-1]))))
