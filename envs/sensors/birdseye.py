"""The surroundings from above, as a raster of what is there: for agents that need not see, and to learn from.

The raster is aligned with the observer, who looks up in it from a third of its height. It is privileged: it shows
what stands behind a truck, which way to go, and what signals show, even to those whom a signal does not face.

The ground comes from the tables that the camera reads. Everything else is a box: `gather` lists those within the
raster, which `envs.sensors.raster` draws.
"""

import functools
import math

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs.errors import UserError
from envs.launch import Launch
from envs.physics.bicycle import MAX_SPEED
from envs.precision import Functions
from envs.roads import general, parallel
from envs.roads import lanes as lane_geometry
from envs.roads.network import RoadNetwork
from envs.roads.signals import AMBER, GREEN, RED
from envs.sensors import columns, surfaces
from envs.sensors import raster as raster_functions
from envs.sensors.raster import CHANNELS, MAX_BOXES
from envs.sensors.vehicle_list import per_agent
from envs.state import FORMS, IDM, LANDMARK, META, OBSTACLE, WALKER, world_struct

PERSON, CYCLIST = FORMS.index("person"), FORMS.index("cyclist")
PIECE = 2.0  # m, of a curved lane, which is drawn as straight pieces
BAR = 2.0  # m, how long a signal's stop line is drawn along its lane
MEETS = 0.5  # m, between the end of a lane and the start of one that continues it
# How the lane to be taken is known: by the route, or the lane steered to; as the one to be kept; not at all.
BY_ROUTE, TO_KEEP, UNKNOWN = range(3)


@functools.cache
def build(real: type, tiled: bool) -> Functions:
    """Struct `Bars` and kernel `gather`; `tiled` as in `envs.sensors.surfaces`."""
    World, skipped, rasters = world_struct(real), columns.build(real).skipped, raster_functions.build(real, tiled)
    Raster, Boxes, add = rasters.Raster, rasters.Boxes, rasters.add
    road_functions = general.build(real) if tiled else parallel.build(real)
    Road = road_functions.Road
    f = wp.float32
    zero, half, one = f(0.0), f(0.5), f(1.0)
    idm, meta, obstacle, walker, landmark, person, cyclist = IDM, META, OBSTACLE, WALKER, LANDMARK, PERSON, CYCLIST
    red, amber, green = RED, AMBER, GREEN
    ROUTE, VEHICLE, WALKING, SOLID, STOP, GO, EGO = (
        CHANNELS.index(name) for name in ("route", "vehicle", "person", "obstacle", "stop", "go", "ego")
    )
    full, dim, top_speed = f(255.0), f(128.0), f(MAX_SPEED)
    by_route, to_keep = BY_ROUTE, TO_KEEP
    straight, piece, places = lane_geometry.STRAIGHT, real(PIECE), general.PLACES

    @wp.struct
    class Bars:
        """The stop lines of signals."""

        first: wp.array(dtype=wp.int32)  # [map + 1] a map's first
        x: wp.array(dtype=real)  # [bar] m
        y: wp.array(dtype=real)  # [bar] m
        cosine: wp.array(dtype=wp.float32)  # [bar]
        sine: wp.array(dtype=wp.float32)  # [bar]
        width: wp.array(dtype=wp.float32)  # [bar] m
        head: wp.array(dtype=wp.int32)  # [bar] the map's signal head

    @wp.func
    def place_of(world: wp.ref[World], w: int, a: int, x: real, y: real, c: f, s: f) -> wp.vec4f:
        """A point and a direction of the map as the observer has them."""
        dx = f(x - world.vehicle[w, a].x)
        dy = f(y - world.vehicle[w, a].y)
        ce = f(world.vehicle[w, a].cos_heading)
        se = f(world.vehicle[w, a].sin_heading)
        return wp.vec4f(dx * ce + dy * se, dy * ce - dx * se, c * ce + s * se, s * ce - c * se)

    # --- where to go ----------------------------------------------------------------------------------------------

    @wp.func
    def lane_taken(world: wp.ref[World], raster: Raster, w: int, a: int) -> int:
        if raster.way == to_keep:
            return world.reference_lane[w]
        if world.vehicle[w, a].kind == meta or world.vehicle[w, a].kind == idm:
            return world.vehicle[w, a].target_lane
        return world.vehicle[w, a].lane

    if tiled:

        @wp.func
        def add_lane(
            world: wp.ref[World], road: wp.ref[Road], raster: Raster, boxes: wp.ref[Boxes], w: int, a: int, lane: int
        ):
            """The part of a lane that is within reach, as boxes."""
            here = road_functions.local(road, lane, world.vehicle[w, a].x, world.vehicle[w, a].y)[0]
            s = wp.max(here - real(raster.reach), real(0.0))
            end = wp.min(here + real(raster.reach), road.lanes.lane[lane].length)
            while s < end:
                last = wp.min(s + piece, end)
                if road.lanes.lane[lane].kind == straight:
                    last = end
                middle = (s + last) * real(0.5)
                point = road_functions.position(road.lanes, lane, middle, real(0.0))
                heading = road_functions.heading_at(road, lane, middle)
                place = place_of(world, w, a, point[0], point[1], f(wp.cos(heading)), f(wp.sin(heading)))
                # Pieces overlap by a cell, which leaves no seams.
                size = wp.vec2f(half * (f(last - s) + raster.cell), half * f(road.lanes.lane[lane].width))
                add(raster, boxes, w * world.agents + a, place, size, ROUTE, wp.vec3f(full, zero, zero))
                s = last

        @wp.func
        def add_way(world: wp.ref[World], road: wp.ref[Road], raster: Raster, boxes: wp.ref[Boxes], w: int, a: int):
            at = int(world.vehicle[w, a].route_at)
            end = world.vehicle[w, a].route_end
            if raster.way == by_route and at < end:
                while at < end:
                    step = world.route[w, a, at]
                    ahead = step / places
                    place = step % places - 1
                    if place >= 0:
                        add_lane(world, road, raster, boxes, w, a, road.road_lane[ahead] + place)
                    else:
                        for k in range(road.road_lanes[ahead]):
                            add_lane(world, road, raster, boxes, w, a, road.road_lane[ahead] + k)
                    at = at + 1
            elif raster.way == by_route or raster.way == to_keep:
                add_lane(world, road, raster, boxes, w, a, lane_taken(world, raster, w, a))

    else:

        @wp.func
        def add_way(world: wp.ref[World], road: wp.ref[Road], raster: Raster, boxes: wp.ref[Boxes], w: int, a: int):
            y = real(lane_taken(world, raster, w, a)) * road.lane_width
            place = place_of(world, w, a, world.vehicle[w, a].x, y, one, zero)
            size = wp.vec2f(raster.reach, half * f(road.lane_width))
            add(raster, boxes, w * world.agents + a, place, size, ROUTE, wp.vec3f(full, zero, zero))

    # --- what is there --------------------------------------------------------------------------------------------

    @wp.func
    def channel_of(world: wp.ref[World], w: int, j: int) -> int:
        kind = world.vehicle[w, j].kind
        form = world.vehicle[w, j].form
        if kind == landmark:
            return ROUTE
        if kind == walker or form == person or form == cyclist:
            return WALKING
        if kind == obstacle:
            return SOLID
        return VEHICLE

    @wp.func
    def shade_of(speed: f) -> f:
        return wp.round(dim + wp.clamp(speed / top_speed, -one, one) * (dim - one))

    @wp.func
    def add_things(world: wp.ref[World], raster: Raster, boxes: wp.ref[Boxes], w: int, a: int):
        landmarks = int(0)
        for j in range(world.slots):
            shown = world.vehicle[w, j].kind != 0
            if world.vehicle[w, j].kind == landmark:
                # Of several agents each sees the goal that is its own.
                shown = world.agents == 1 or landmarks == a
                landmarks = landmarks + 1
            if shown:
                c = f(world.vehicle[w, j].cos_heading)
                s = f(world.vehicle[w, j].sin_heading)
                place = place_of(world, w, a, world.vehicle[w, j].x, world.vehicle[w, j].y, c, s)
                size = wp.vec2f(half * f(world.vehicle[w, j].length), half * f(world.vehicle[w, j].width))
                channel = channel_of(world, w, j)
                value = wp.vec3f(full, zero, zero)
                if channel == VEHICLE or channel == WALKING:
                    speed = f(world.vehicle[w, j].speed)
                    value = wp.vec3f(full, shade_of(speed * place[2]), shade_of(speed * place[3]))
                if j == a:
                    channel = EGO
                add(raster, boxes, w * world.agents + a, place, size, channel, value)

    @wp.func
    def add_bars(world: wp.ref[World], raster: Raster, boxes: wp.ref[Boxes], bars: wp.ref[Bars], w: int, a: int):
        m = world.map[w]
        for k in range(bars.first[m], bars.first[m + 1]):
            shown = world.signal[w, bars.head[k]]
            channel = wp.where(shown == red or shown == amber, STOP, GO)
            value = wp.where(shown == red or shown == green, full, dim)
            place = place_of(world, w, a, bars.x[k], bars.y[k], bars.cosine[k], bars.sine[k])
            size = wp.vec2f(f(BAR / 2.0), half * bars.width[k])
            add(raster, boxes, w * world.agents + a, place, size, channel, wp.vec3f(value, zero, zero))

    @wp.kernel(module="unique")
    def gather(world: World, road: Road, raster: Raster, boxes: Boxes, bars: Bars, which: int, first_world: int):
        """List what is within an agent's raster."""
        w, a = wp.tid()
        w = w + first_world
        if skipped(world, which, w):
            return
        boxes.count[w * world.agents + a] = 0
        add_things(world, raster, boxes, w, a)
        if wp.static(tiled):
            add_bars(world, raster, boxes, bars, w, a)
        add_way(world, road, raster, boxes, w, a)

    return Functions(Bars=Bars, gather=gather)


def stop_bars(network: RoadNetwork) -> list[tuple[float, float, float, float, float, int]]:
    """The ends of the lanes on which traffic waits for a network's signals.

    Returns:
        Of each x, y of its middle [m], cosine and sine of its direction, width [m] and the signal head.
    """
    bars = {}
    for head, signal in enumerate(network.signals):
        starts = np.array([network.lane(index).position(0.0) for index in signal.movements])
        nodes = {start for start, _, _ in signal.movements}
        for number, (_, end, _) in enumerate(network.indices):
            lane = network.lanes[number]
            if end in nodes and np.hypot(*(starts - lane.position(lane.length)).T).min() < MEETS:
                heading = float(lane.heading_at(lane.length))
                x, y = lane.position(lane.length - BAR / 2)
                bars[head, number] = (float(x), float(y), math.cos(heading), math.sin(heading), lane.width, head)
    return list(bars.values())


class BirdsEye:
    """A raster of what is around every agent, from above. Shape: (N, C, H, W) uint8, with several agents (N, A, C, H,
    W); the channels are `CHANNELS`. The observer is in the middle of a row, a third of the height from the bottom, and
    looks up.

    Values are shares of a pixel that something covers, of 255:
        road, marking: asphalt, and paint on it.
        route: the roads of the observer's route, and its goal; without a route the lane that it is on or steers to.
        vehicle, person, obstacle: drivers and agents; people, on bicycles too; what stands.
        stop, go: stop lines where a signal shows red (amber: 128), and green (128 where left turns have to give way).
        ego: the observer.
    Besides, "forward" and "right" tell where a vehicle or a person is how fast it moves in these directions of the
    observer, 1 to 255 for -40 to 40 m/s, 128 where it stands; the observer's own speed is not subtracted.

    Args:
        simulation: the worlds.
        height, width: of the raster [px]; width is a multiple of 16.
        cell: side of a pixel [m].

    Raises:
        UserError: a size that cannot be drawn.
    """

    def __init__(self, simulation, height: int = 64, width: int = 64, cell: float = 1.0):
        if height < 3 or width < 16 or width % 16:
            raise UserError(f"a raster's width must be a multiple of 16 pixels, not {height}x{width}")
        if not surfaces.ground.TEXEL <= cell < math.inf:
            raise UserError(f"a pixel of a raster covers {surfaces.ground.TEXEL:g} m or more, not {cell:g} m")
        self._simulation = simulation
        self._tiled = simulation.maps is not None
        self._kernels = build(simulation.real, self._tiled)
        self._drawing = raster_functions.build(simulation.real, self._tiled)
        self._ground = surfaces.table(simulation)
        self._raster = self._raster_of(height, width, cell)
        n, agents, device = simulation.num_worlds, simulation.state.agents, simulation.device
        shape = per_agent(simulation, len(CHANNELS), height, width)
        output = torch.zeros((n, *shape), dtype=torch.uint8, device=device)
        self.outputs, self.finals = {"bev": output}, {"bev": torch.zeros_like(output)}
        self.spaces = {"bev": spaces.Box(0, 255, shape, np.uint8)}
        self.memory: dict[str, torch.Tensor] = {}
        self._image = wp.from_torch(output.view(n, -1, height, width))
        self._words = wp.from_torch(output.view(torch.int32).view(n, -1, width // 16, 4), dtype=wp.vec4i)
        boxes, rasters = self._drawing.Boxes(), n * agents
        boxes.count = wp.zeros(rasters, dtype=wp.int32, device=simulation.warp_device)
        for name, dtype in (("place", wp.vec4f), ("size", wp.vec2f), ("channel", wp.int32), ("value", wp.vec3f)):
            setattr(boxes, name, wp.zeros((rasters, MAX_BOXES), dtype=dtype, device=simulation.warp_device))
        self._boxes = boxes
        self._bars = self._bars_of(simulation.maps or [])

    def _raster_of(self, height: int, width: int, cell: float):
        scenario = self._simulation.scenario
        raster = self._drawing.Raster()
        raster.cell, raster.rows, raster.columns, raster.ahead = cell, height, width, height - height // 3
        raster.reach = math.hypot(width / 2, raster.ahead) * cell
        raster.level = int(math.log2(cell / surfaces.ground.TEXEL))
        raster.way = BY_ROUTE if scenario.uses_lanes else UNKNOWN
        if scenario.family == "lane-keeping":
            raster.way = TO_KEEP
        return raster

    def _bars_of(self, networks: list[RoadNetwork]):
        lists = [stop_bars(network) for network in networks]
        rows = [bar for each in lists for bar in each] or [(0.0,) * 6]
        table, device = self._kernels.Bars(), self._simulation.warp_device
        table.first = wp.array(np.cumsum([0, *map(len, lists)]), dtype=wp.int32, device=device)
        kinds = {"x": self._simulation.real, "y": self._simulation.real, "head": wp.int32}
        for name, column in zip(("x", "y", "cosine", "sine", "width", "head"), zip(*rows, strict=True), strict=True):
            setattr(table, name, wp.array(np.array(column), dtype=kinds.get(name, wp.float32), device=device))
        return table

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        world, agents = simulation.state.warp, simulation.state.agents
        # On a GPU a thread draws a row.
        stride = 1 if simulation.device.type == "cpu" else int(self._raster.rows)
        listed = (world, simulation.road, self._raster, self._boxes, self._bars, which)
        drawn = (world, self._ground, self._raster, self._boxes, self._image, self._words, stride, which)
        return [
            Launch(self._kernels.gather, (agents,), listed),
            Launch(self._drawing.draw, (agents, stride), drawn),
        ]
