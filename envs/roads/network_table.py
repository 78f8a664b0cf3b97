"""The table that `envs.roads.general` reads: every map of a batch, made on the host."""

import math
from collections import deque

import numpy as np
import warp as wp

from envs.errors import UserError, unknown
from envs.roads import conflicts, signals
from envs.roads import lanes as lane_geometry
from envs.roads.general import ALONE, CELL_REACH, build
from envs.roads.lanes import CIRCULAR, SINE, STRAIGHT, Lane
from envs.roads.network import RoadNetwork

CELL, MANY_CELL = 4.0, 8.0  # m, of the grid over a single map and over each of several
SAMPLING = 0.5  # m, of centre lines when lanes are compared
BORDER = 24.0  # m of grid beyond the lanes


def table(
    networks: list[RoadNetwork],
    dtype: str,
    device: str,
    connected: bool = False,
    destinations: list[list[str]] | None = None,
):
    """The `Road` struct over several maps.

    Args:
        networks: the maps.
        dtype: "float32" or "float64".
        device: a Warp device.
        connected: whether neighbours are sought on connected lanes too (highway-env's `*-v1` environments).
        destinations: for each map the nodes that routes may lead to.
    """
    if not networks or not all(network.lanes for network in networks):
        raise UserError("a road network needs at least one lane")
    real = wp.float32 if dtype == "float32" else wp.float64
    functions = build(real)
    road = functions.Road()

    def ints(values):
        return wp.array(np.asarray(values if len(values) else [0], dtype=np.int32), device=device)

    def reals(values):
        return wp.array(np.asarray(values if len(values) else [0.0], dtype=np.float64), dtype=real, device=device)

    lanes = [lane for network in networks for lane in network.lanes]
    of_lane = np.zeros(len(lanes), dtype=functions.OfLane.numpy_dtype())
    road.lanes = lane_geometry.table(lanes, dtype, device)
    road.connected = int(connected)
    road.ways = conflicts.table(networks, dtype, device)
    road.plans = signals.table([(network.signals, network.junctions) for network in networks], dtype, device)
    # Nobody changes lane within a junction.
    of_lane["forbidden"] = np.array([lane.forbidden for lane in lanes]) | (road.ways.of_lane.numpy() >= 0)
    of_lane["priority"] = [lane.priority for lane in lanes]
    lane_road, lane_place, link_first, link_lane, link_offset = [], [], [0], [], []
    road_lane, road_lanes, road_from, road_to, hops = [], [], [], [], []
    node_first, node_road, map_lane = [0], [], [0]
    for network in networks:
        base_lane, base_road, base_node = map_lane[-1], len(road_lane), len(node_first) - 1
        nodes = {node: base_node + k for k, node in enumerate(network.nodes)}
        numbers = {pair: base_road + k for k, pair in enumerate(network.roads)}
        for index in network.indices:
            lane_road.append(numbers[index[:2]])
            lane_place.append(index[2])
            for lane, offset in network.connections(index):
                link_lane.append(base_lane + lane)
                link_offset.append(offset)
            link_first.append(len(link_lane))
        for start, end in network.roads:
            road_lane.append(base_lane + network.number((start, end, 0)))
            road_lanes.append(len(network.graph[start][end]))
            road_from.append(nodes[start])
            road_to.append(nodes[end])
        for node in network.nodes:
            node_road += [numbers[(node, end)] for end in network.graph.get(node, {})]
            node_first.append(len(node_road))
        map_lane.append(base_lane + len(network.lanes))
        goals = destinations[len(hops)] if destinations else []
        hops.append(_hops(network, goals, base_road))
    width = max(1, *(block.shape[1] for block in hops)) if hops else 1
    hops = [np.pad(block, ((0, 0), (0, width - block.shape[1])), constant_values=-1) for block in hops]
    road.hop = wp.array(np.concatenate(hops), dtype=wp.int32, device=device)
    for name, values in (
        ("link_lane", link_lane),
        ("road_lane", road_lane),
        ("road_lanes", road_lanes),
        ("road_from", road_from),
        ("road_to", road_to),
        ("node_first", node_first),
        ("node_road", node_road),
        ("map_lane", map_lane),
    ):
        setattr(road, name, ints(values))
    road.link_offset = reals(link_offset)
    of_lane["road"], of_lane["place"] = lane_road, lane_place
    of_lane["link_first"], of_lane["link_end"] = link_first[:-1], link_first[1:]

    side = CELL if len(networks) == 1 else MANY_CELL
    road.cells_per_metre = 1.0 / side
    road.rules = int(any(n.signals or n.stop_lines or n.yields or n.crossings for n in networks))
    of_lane["alone_from"], of_lane["alone_to"] = np.concatenate([_alone(network) for network in networks]).T
    road.of_lane = wp.array(of_lane, dtype=functions.OfLane, device=device)
    grids = [_grid(network, side) for network in networks]
    road.map_x, road.map_y = reals([g[0] for g in grids]), reals([g[1] for g in grids])
    road.map_columns, road.map_rows = ints([g[2] for g in grids]), ints([g[3] for g in grids])
    road.map_cell = ints(np.cumsum([0] + [g[2] * g[3] for g in grids])[:-1])
    counts = np.concatenate([g[4] for g in grids])
    road.cell_first = ints(np.concatenate(([0], np.cumsum(counts))))
    road.cell_lane = ints(np.concatenate([g[5] + first for g, first in zip(grids, map_lane, strict=False)]))
    road.cell_bound = reals(np.concatenate([g[6] for g in grids]))
    return road


def _hops(network: RoadNetwork, goals: list[str], base_road: int) -> np.ndarray:
    """The first road of the shortest path from every node to every goal, of several the first by name; -1 for none.

    Shape: (nodes, goals).
    """
    nodes = network.nodes
    place = {node: k for k, node in enumerate(nodes)}
    number = {pair: base_road + k for k, pair in enumerate(network.roads)}
    into: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in network.roads:
        into[end].append(start)
    result = np.full((len(nodes), len(goals)), -1, dtype=np.int64)
    for column, goal in enumerate(goals):
        if goal not in place:
            raise unknown("destination", goal, nodes)
        distance = {goal: 0}
        queue = deque([goal])
        while queue:
            node = queue.popleft()
            for before in into[node]:
                if before not in distance:
                    distance[before] = distance[node] + 1
                    queue.append(before)
        for node, steps in distance.items():
            if steps:
                ahead = min(end for end in network.graph[node] if distance.get(end) == steps - 1)
                result[place[node], column] = number[(node, ahead)]
    return result


def _bound_factor(lane: Lane) -> float:
    """A lane's cost is at least this times the distance from its centre line.

    Across and along a straight lane or an arc add up to a path to the centre line, which is no shorter than the
    distance. Beyond the end of a sine lane the cost is measured to the curve's continuation, whose slope stretches it.
    """
    if lane.kind in (STRAIGHT, CIRCULAR):
        return 1.0
    if lane.kind == SINE:
        return 1.0 / math.hypot(1.0, lane.parameters[4] * lane.parameters[5])
    return 0.0


def _alone(network: RoadNetwork) -> np.ndarray:
    """The longest stretch of each lane near which no other lane runs, as (from, to) of s [m]. Shape: (lanes, 2).

    A point that costs less than ALONE lies within ALONE of its lane, so another lane at a distance of d costs it at
    least (d - ALONE) times the other's factor.
    """
    lanes = [lane.centre_line(SAMPLING) if lane.kind != STRAIGHT else _dense(lane, SAMPLING) for lane in network.lanes]
    owner = np.repeat(np.arange(len(lanes)), [len(points) for points in lanes])
    needed = np.array([ALONE / max(_bound_factor(lane), 1e-6) + ALONE + SAMPLING for lane in network.lanes])[owner]
    places = np.concatenate(lanes)
    lowest, highest = (np.array([reduce(points, axis=0) for points in lanes]) for reduce in (np.min, np.max))
    result = np.tile((1.0, 0.0), (len(lanes), 1))
    for number, points in enumerate(lanes):
        low, high = lowest[number] - needed.max(), highest[number] + needed.max()
        close = ((highest > low) & (lowest < high)).all(axis=1)
        close[number] = False
        others = np.flatnonzero(close[owner])
        others = others[((places[others] > low) & (places[others] < high)).all(axis=1)]
        away = np.hypot(*(points[:, None] - places[others]).transpose(2, 0, 1)) - needed[others]
        free = away.min(axis=1, initial=np.inf) > 0
        if not free.any():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate(([0], free.astype(int), [0]))))
        first, last = edges.reshape(-1, 2)[np.argmax(np.diff(edges.reshape(-1, 2), axis=1))]
        step = network.lanes[number].length / (len(points) - 1)
        result[number] = first * step, (last - 1) * step
    return result


def _grid(network: RoadNetwork, side: float) -> tuple:
    """A map's cells: x0, y0, columns, rows, entries a cell, lanes by bound, bounds."""
    x0, y0, x1, y1 = network.bounds()
    x0, y0 = x0 - BORDER, y0 - BORDER
    columns, rows = math.ceil((x1 + BORDER - x0) / side), math.ceil((y1 + BORDER - y0) / side)
    cells, lanes, bounds = [], [], []
    for number, lane in enumerate(network.lanes):
        factor = _bound_factor(lane)
        points = lane.centre_line(0.5) if lane.kind != STRAIGHT else _dense(lane)
        spacing = 1.0  # m, above the distance of neighbouring points on any of our lanes
        near = CELL_REACH / factor + spacing if factor else math.inf
        low, high = points.min(axis=0), points.max(axis=0)
        first = np.clip(((low - near - (x0, y0)) // side), 0, (columns - 1, rows - 1)) if factor else np.zeros(2)
        last = np.clip(((high + near - (x0, y0)) // side), 0, (columns - 1, rows - 1)) if factor else None
        last = np.array((columns - 1, rows - 1)) if last is None else last
        cx = np.arange(int(first[0]), int(last[0]) + 1)
        cy = np.arange(int(first[1]), int(last[1]) + 1)
        # Distance of each point from each cell's square.
        ax = np.abs(points[:, 0, None] - (x0 + (cx + 0.5) * side)) - side / 2
        ay = np.abs(points[:, 1, None] - (y0 + (cy + 0.5) * side)) - side / 2
        ax, ay = np.maximum(ax, 0.0), np.maximum(ay, 0.0)
        away = np.sqrt((ax[:, None, :] ** 2 + ay[:, :, None] ** 2).min(axis=0))
        bound = np.maximum(away - spacing / 2, 0.0) * factor - 1e-3
        row, column = np.nonzero(bound <= CELL_REACH)
        cells.append(cy[row] * columns + cx[column])
        lanes.append(np.full(len(row), number))
        bounds.append(bound[row, column])
    cell, lane, bound = np.concatenate(cells), np.concatenate(lanes), np.concatenate(bounds)
    order = np.lexsort((lane, bound, cell))
    return x0, y0, columns, rows, np.bincount(cell, minlength=columns * rows), lane[order], bound[order]


def _dense(lane: Lane, spacing: float = 1.0) -> np.ndarray:
    count = math.ceil(lane.length / spacing) + 1
    return lane.position(np.linspace(0.0, lane.length, count))
