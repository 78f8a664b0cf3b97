"""Occupancy grids around the agents: highway-env's OccupancyGrid observation.

Each layer is a feature of the vehicle in a cell, of several the first in highway-env's order, or the road. highway-env
draws the road as points on the lanes' centre lines, up to 100 m to either side of the observer and clipped to the
lane, so that its ends count: a thousand points a map, of which the grid holds a few dozen. A lane whose bounding box is
out of reach is skipped here, and along a lane the distance to the grid is skipped: no point on the way can be inside.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs.errors import UserError
from envs.launch import Launch
from envs.phases import ENDED
from envs.precision import Functions
from envs.roads import general
from envs.roads.lanes import CIRCULAR, SINE, STRAIGHT, Lane
from envs.sensors import vehicle_list
from envs.sensors.vehicle_list import columns_of, per_agent, require_network
from envs.state import world_struct

ROAD_REACH = 100.0  # m along each lane, to either side of the observer
# m added to distances: samples of polyline lanes are up to this far from where the arc says.
SLACK = 1.0


@functools.cache
def build(real: type, as_image: bool) -> Functions:
    """Struct `Grid`, and kernels `fill_vehicles` and `fill_road`."""
    World = world_struct(real)
    roads = general.build(real)
    seeing = vehicle_list.build(real)
    Road, Columns, vec2 = roads.Road, seeing.Columns, roads.vec2
    pixel = wp.uint8 if as_image else wp.float32
    ended, circular, straight = ENDED, CIRCULAR, STRAIGHT
    one, two, zero, white = real(1.0), real(2.0), real(0.0), real(255.0)
    road_reach, slack = real(ROAD_REACH), real(SLACK)

    @wp.struct
    class Grid:
        x: real  # m, the corner with the least x and y
        y: real
        step_x: real
        step_y: real
        columns: wp.int32  # cells along x
        rows: wp.int32  # cells along y
        reach: real  # m, of its farthest corner from the observer
        aligned: wp.int32
        clip: wp.int32
        x_range: vec2  # low and high, equal without one
        y_range: vec2
        spacing: real  # m between points on a lane
        lane_box: wp.array2d(dtype=real)  # [lane, (x0, y0, x1, y1)]
        lane_stretch: wp.array(dtype=real)  # [lane] most metres a metre of s may lead away

    if as_image:

        @wp.func
        def encoded(number: real, clip: int) -> wp.uint8:
            return wp.uint8((wp.clamp(number, -one, one) + one) / two * white)
    else:

        @wp.func
        def encoded(number: real, clip: int) -> wp.float32:
            return wp.float32(wp.where(clip != 0, wp.clamp(number, -one, one), number))

    @wp.func
    def cell_at(world: wp.ref[World], grid: wp.ref[Grid], w: int, a: int, dx: real, dy: real) -> int:
        """The cell of a point relative to the observer, -1 outside."""
        x = real(dx)
        y = real(dy)
        if grid.aligned != 0:
            c = world.vehicle[w, a].cos_heading
            s = world.vehicle[w, a].sin_heading
            x = c * dx + s * dy
            y = c * dy - s * dx
        i = int(wp.floor((x - grid.x) / grid.step_x))
        j = int(wp.floor((y - grid.y) / grid.step_y))
        if i < 0 or j < 0 or i >= grid.columns or j >= grid.rows:
            return -1
        return i * grid.rows + j

    @wp.func
    def there_and_back(number: real, bounds: vec2) -> real:
        """What rounding leaves of a coordinate that was scaled to a range, which is what highway-env locates it by."""
        extent = bounds[1] - bounds[0]
        if extent == zero:
            return number
        share = (number - bounds[0]) * two / extent - one
        return bounds[0] + (share + one) * extent / two

    @wp.func
    def cell_of(world: wp.ref[World], grid: wp.ref[Grid], w: int, a: int, j: int) -> int:
        """The cell that a vehicle is in, -1 where it is in none or the slot holds no vehicle."""
        if world.vehicle[w, j].kind == 0 or seeing.is_object(world, w, j):
            return -1
        dx = there_and_back(world.vehicle[w, j].x - world.vehicle[w, a].x, grid.x_range)
        dy = there_and_back(world.vehicle[w, j].y - world.vehicle[w, a].y, grid.y_range)
        return cell_at(world, grid, w, a, dx, dy)

    @wp.kernel(module="unique")
    def fill_vehicles(
        world: World,
        road: Road,
        grid: Grid,
        columns: Columns,
        observation: wp.array4d(dtype=pixel),
        which: int,
        first_world: int,
    ):
        w, a = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        layers = columns.feature.shape[0]
        for layer in range(layers):
            for cell in range(grid.columns * grid.rows):
                observation[w, a, layer, cell] = pixel(0)
        for j in range(world.slots):
            cell = cell_of(world, grid, w, a, j)
            shown = bool(cell >= 0)
            if shown:
                for k in range(world.slots):
                    if (
                        world.vehicle[w, k].sequence < world.vehicle[w, j].sequence
                        and cell_of(world, grid, w, a, k) == cell
                    ):
                        shown = False
            if shown:
                for layer in range(layers):
                    feature = columns.feature[layer]
                    if feature >= 0:
                        number = seeing.value(world, road, w, j, feature)
                        if seeing.is_relative(feature):
                            number = number - seeing.value(world, road, w, a, feature)
                        number = seeing.scaled(columns, layer, number)
                        observation[w, a, layer, cell] = encoded(number, grid.clip)

    @wp.func
    def out_of_reach(world: wp.ref[World], road: wp.ref[Road], grid: wp.ref[Grid], w: int, a: int, lane: int) -> bool:
        x = world.vehicle[w, a].x
        y = world.vehicle[w, a].y
        reach = grid.reach + slack
        return (
            x + reach < grid.lane_box[lane, 0]
            or y + reach < grid.lane_box[lane, 1]
            or x - reach > grid.lane_box[lane, 2]
            or y - reach > grid.lane_box[lane, 3]
        )

    @wp.func
    def draw_lane(
        world: wp.ref[World],
        road: wp.ref[Road],
        grid: wp.ref[Grid],
        layer: int,
        observation: wp.array4d(dtype=pixel),
        w: int,
        a: int,
        lane: int,
    ):
        if out_of_reach(world, road, grid, w, a, lane):
            return
        x = world.vehicle[w, a].x
        y = world.vehicle[w, a].y
        place = roads.local(road, lane, x, y)
        kind = road.lanes.lane[lane].kind
        if (kind == straight or kind == circular) and wp.abs(place[1]) > grid.reach + slack:
            return
        length = road.lanes.lane[lane].length
        first = place[0] - road_reach
        count = int(wp.ceil(((place[0] + road_reach) - first) / grid.spacing))
        k = int(0)
        while k < count:
            s = first + real(k) * grid.spacing
            point = roads.position(road.lanes, lane, wp.clamp(s, zero, length), zero)
            dx = point[0] - x
            dy = point[1] - y
            cell = cell_at(world, grid, w, a, dx, dy)
            if cell >= 0:
                observation[w, a, layer, cell] = encoded(one, 1)
            if s >= length:
                k = count
            elif s < zero:
                # The points before the start all are the start.
                k = wp.max(k + 1, int(-first / grid.spacing))
            else:
                away = wp.sqrt(dx * dx + dy * dy) - grid.reach - slack
                k = k + wp.max(1, int(away / (grid.spacing * grid.lane_stretch[lane])))

    @wp.kernel(module="unique")
    def fill_road(
        world: World,
        road: Road,
        grid: Grid,
        layer: int,
        observation: wp.array4d(dtype=pixel),
        which: int,
        stride: int,
        first_world: int,
    ):
        """`stride` threads share a map's lanes."""
        w, a, part = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        for lane in range(road.map_lane[world.map[w]] + part, road.map_lane[world.map[w] + 1], stride):
            draw_lane(world, road, grid, layer, observation, w, a, lane)

    return Functions(Grid=Grid, fill_vehicles=fill_vehicles, fill_road=fill_road)


def _box(lane: Lane) -> list[float]:
    points = lane.centre_line()
    return [*points.min(axis=0), *points.max(axis=0)]


def _stretch(lane: Lane) -> float:
    return math.hypot(1.0, lane.parameters[4] * lane.parameters[5]) if lane.kind == SINE else 1.0


class OccupancyGrid:
    """highway-env's `OccupancyGrid` observation. Shape: (N, features, cells along x, cells along y) float32, with
    several agents (N, A, features, ...); empty cells are 0.

    Args:
        features: layers, among `envs.sensors.vehicle_list.FEATURES` (positions and velocities less the observer's) and
            "on_road", 1 where a lane's centre line passes.
        size: ((least x, greatest x), (least y, greatest y)) of the grid around the observer [m].
        step: length and width of a cell [m].
        ranges: feature -> the values that become -1 and 1; by default those of vx and vy, 80 m/s.
        aligned: whether x points where the observer looks, else along the map's axis.
        clip: whether to clip to [-1, 1], whatever the feature.
        as_image: uint8, where -1 is 0 and 1 is 255; empty cells are 0 too.

    Raises:
        UserError: an unknown feature, a grid without cells, or an image whose size is no multiple of 4 bytes.
    """

    def __init__(
        self,
        simulation,
        features: Sequence[str] = ("presence", "on_road"),
        size: Sequence[tuple[float, float]] = ((-18.0, 18.0), (-18.0, 18.0)),
        step: tuple[float, float] = (3.0, 3.0),
        ranges: Mapping[str, tuple[float, float]] | None = None,
        aligned: bool = True,
        clip: bool = True,
        as_image: bool = False,
    ):
        require_network(simulation, "OccupancyGrid")
        cells = (0, 0)
        if min(step) > 0:
            cells = tuple(math.floor((high - low) / width) for (low, high), width in zip(size, step, strict=True))
        if min(cells) < 1:
            raise UserError(f"a grid of size {size} in steps of {step} m has no cells")
        shape = per_agent(simulation, len(features), *cells)
        if as_image and math.prod(shape) % 4:
            raise UserError(f"an image of shape {shape} is not a multiple of 4 bytes: choose another size or step")
        if ranges is None:
            ranges = {name: vehicle_list.RANGES[name] for name in ("vx", "vy")}
        self._simulation, self._as_image = simulation, as_image
        self._columns = columns_of(features, ranges, simulation, ("on_road",))
        self._road_layers = [layer for layer, name in enumerate(features) if name == "on_road"]
        self._lanes = max(len(network.lanes) for network in simulation.maps)
        self._grid = self._table(size, step, cells, ranges, aligned, clip)

        n, agents = simulation.num_worlds, simulation.state.agents
        dtype = torch.uint8 if as_image else torch.float32
        output = torch.zeros((n, *shape), dtype=dtype, device=simulation.device)
        self._cells = wp.from_torch(output.view(n, agents, len(features), -1))
        self.outputs, self.finals = {"state": output}, {"state": torch.zeros_like(output)}
        box = spaces.Box(0, 255, shape, np.uint8) if as_image else spaces.Box(-np.inf, np.inf, shape, np.float32)
        self.spaces = {"state": box}
        self.memory: dict[str, torch.Tensor] = {}

    def _table(self, size, step, cells, ranges, aligned, clip):
        simulation = self._simulation
        lanes = [lane for network in simulation.maps for lane in network.lanes]
        grid = build(simulation.real, self._as_image).Grid()
        (grid.x, _), (grid.y, _) = size
        grid.step_x, grid.step_y = step
        grid.columns, grid.rows = cells
        corners = [(low, low + count * width) for (low, _), count, width in zip(size, cells, step, strict=True)]
        grid.reach = math.hypot(*(max(abs(low), abs(high)) for low, high in corners))
        grid.aligned, grid.clip, grid.spacing = aligned, clip, min(step)
        vec2 = general.build(simulation.real).vec2
        grid.x_range, grid.y_range = (vec2(*ranges.get(name, (0.0, 0.0))) for name in ("x", "y"))
        device = simulation.warp_device
        grid.lane_box = wp.array([_box(lane) for lane in lanes], dtype=simulation.real, device=device)
        grid.lane_stretch = wp.array([_stretch(lane) for lane in lanes], dtype=simulation.real, device=device)
        return grid

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        kernels = build(simulation.real, self._as_image)
        world, road, agents = simulation.state.warp, simulation.road, simulation.state.agents
        vehicles = (world, road, self._grid, self._columns, self._cells, which)
        program = [Launch(kernels.fill_vehicles, (agents,), vehicles)]
        for layer in self._road_layers:
            # A thread on a CPU copies the structs that it is given, which costs more than a lane out of reach.
            stride = self._lanes if simulation.device.type == "cuda" else 1
            inputs = (world, road, self._grid, layer, self._cells, which, stride)
            program.append(Launch(kernels.fill_road, (agents, stride), inputs))
        return program
