"""Lists of the nearest vehicles and objects: highway-env's Kinematics and Exit observations, on any road network.

The ego comes first, then what is within 200 m, by distance along the ego's own lane. `build` also offers what a
vehicle looks like to an observer, feature by feature, on which other sensors rest.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs import random
from envs.errors import UserError, unknown
from envs.launch import Launch
from envs.phases import ENDED
from envs.physics import angles
from envs.precision import Functions
from envs.roads import general
from envs.sensors.kinematics import PERCEPTION_DISTANCE
from envs.state import LANDMARK, OBSTACLE, world_struct

FEATURES = (
    "presence",
    "x",
    "y",
    "vx",
    "vy",
    "heading",
    "cos_h",
    "sin_h",
    "cos_d",
    "sin_d",
    "long_off",
    "lat_off",
    "ang_off",
)
# m and m/s: the ranges of x, vx and vy where none are given; that of y is the road's width.
RANGES = {"x": (-PERCEPTION_DISTANCE, PERCEPTION_DISTANCE), "vx": (-80.0, 80.0), "vy": (-80.0, 80.0)}
LANE_WIDTH = 4.0  # m, of a lane in the default range of y, whatever the lanes' own
ORDERS = ("sorted", "shuffled")


@functools.cache
def build(real: type) -> Functions:
    """Struct `Columns`, kernel `list_vehicles`, and what observers see of others:

    is_object(world, w, j)                  whether a slot holds what highway-env keeps in `road.objects`
    is_listed_before(world, w, j, k)        whether j comes before k in `road.vehicles` followed by `road.objects`
    along(world, road, w, j, lane)          longitudinal coordinate on a lane [m]
    value(world, road, w, j, feature)       a feature in absolute coordinates, numbered as `FEATURES`
    is_relative(feature)                    whether observers subtract their own
    scaled(columns, column, value)          the value as a share of the column's range: its ends are -1 and 1
    """
    World = world_struct(real)
    roads = general.build(real)
    Road, vec2 = roads.Road, roads.vec2
    wrap = angles.build(real).wrap
    below = random.build(real).below
    purpose, places, ended = random.SENSOR_NOISE, general.PLACES, ENDED
    obstacle, landmark = OBSTACLE, LANDMARK
    presence, x_feature, y_feature, vx, vy, heading, cos_h, sin_h, cos_d, sin_d, long_off, lat_off, _ = range(
        len(FEATURES)
    )
    one, two, zero, sight = real(1.0), real(2.0), real(0.0), real(PERCEPTION_DISTANCE)

    @wp.struct
    class Columns:
        feature: wp.array(dtype=wp.int32)  # [column]
        has_range: wp.array(dtype=wp.int32)  # [column]
        low: wp.array(dtype=real)  # [column]
        high: wp.array(dtype=real)  # [column]

    @wp.struct
    class View:
        rows: wp.int32
        absolute: wp.int32
        in_order: wp.int32  # by distance, else as listed
        shuffled: wp.int32
        clip: wp.int32
        see_behind: wp.int32
        intentions: wp.int32
        obstacles: wp.int32
        exit_lane: wp.int32  # -1 for none
        distance: wp.array3d(dtype=real)  # [world, agent, row - 1] scratch: of the nearest so far
        slot: wp.array3d(dtype=wp.int32)  # [world, agent, row - 1] scratch: who they are

    @wp.func
    def is_object(world: wp.ref[World], w: int, j: int) -> bool:
        return world.vehicle[w, j].kind == obstacle or world.vehicle[w, j].kind == landmark

    @wp.func
    def is_listed_before(world: wp.ref[World], w: int, j: int, k: int) -> bool:
        if is_object(world, w, j) != is_object(world, w, k):
            return is_object(world, w, k)
        return world.vehicle[w, j].sequence < world.vehicle[w, k].sequence

    @wp.func
    def along(world: wp.ref[World], road: wp.ref[Road], w: int, j: int, lane: int) -> real:
        if world.vehicle[w, j].kind >= obstacle:
            # Nothing keeps track of the lanes of what does not drive.
            return roads.local(road, lane, world.vehicle[w, j].x, world.vehicle[w, j].y)[0]
        return roads.local_of(world, road, w, j, lane)[0]

    @wp.func
    def destination_direction(world: wp.ref[World], road: wp.ref[Road], w: int, j: int) -> vec2:
        """Unit vector to the end of the route, zeros without one."""
        end = world.vehicle[w, j].route_end
        if world.vehicle[w, j].route_at >= end:
            return vec2(zero, zero)
        step = world.route[w, j, end - 1]
        lane = road.road_lane[step / places] + wp.max(step % places - 1, 0)
        goal = roads.position(road.lanes, lane, road.lanes.lane[lane].length, zero)
        away = vec2(goal[0] - world.vehicle[w, j].x, goal[1] - world.vehicle[w, j].y)
        distance = wp.length(away)
        if distance == zero:
            return away
        return away / distance

    @wp.func
    def value(world: wp.ref[World], road: wp.ref[Road], w: int, j: int, feature: int) -> real:
        if feature == presence:
            return one
        if feature == x_feature:
            return world.vehicle[w, j].x
        if feature == y_feature:
            return world.vehicle[w, j].y
        if feature == vx:
            return world.vehicle[w, j].speed * world.vehicle[w, j].cos_heading
        if feature == vy:
            return world.vehicle[w, j].speed * world.vehicle[w, j].sin_heading
        if feature == cos_h:
            return world.vehicle[w, j].cos_heading
        if feature == sin_h:
            return world.vehicle[w, j].sin_heading
        if is_object(world, w, j):
            return zero
        if feature == heading:
            return world.vehicle[w, j].heading
        if feature == cos_d or feature == sin_d:
            return destination_direction(world, road, w, j)[feature - cos_d]
        if feature == long_off:
            return world.vehicle[w, j].lane_s
        if feature == lat_off:
            return world.vehicle[w, j].lane_r
        return wrap(
            world.vehicle[w, j].heading - roads.heading_at(road, world.vehicle[w, j].lane, world.vehicle[w, j].lane_s)
        )

    @wp.func
    def is_relative(feature: int) -> bool:
        return feature >= x_feature and feature <= vy

    @wp.func
    def scaled(columns: Columns, column: int, number: real) -> real:
        if columns.has_range[column] == 0:
            return number
        low = columns.low[column]
        return (number - low) * two / (columns.high[column] - low) - one

    # --- the list -------------------------------------------------------------------------------------------------

    @wp.func
    def insert(world: wp.ref[World], view: View, w: int, a: int, count: int, distance: real, j: int) -> int:
        """Sort j into the nearest so far and return how many they are; the farthest falls off a full list."""
        room = view.rows - 1
        k = int(count)
        while k > 0:
            before = view.slot[w, a, k - 1]
            if distance > view.distance[w, a, k - 1] or (
                distance == view.distance[w, a, k - 1] and is_listed_before(world, w, before, j)
            ):
                break
            if k < room:
                view.distance[w, a, k] = view.distance[w, a, k - 1]
                view.slot[w, a, k] = before
            k = k - 1
        if k < room:
            view.distance[w, a, k] = distance
            view.slot[w, a, k] = j
        return wp.min(count + 1, room)

    @wp.func
    def collect(world: wp.ref[World], road: wp.ref[Road], view: View, w: int, a: int) -> int:
        """The nearest of what the agent sees, in `view.slot`; returns how many."""
        lane = world.vehicle[w, a].lane
        s = roads.local_of(world, road, w, a, lane)[0]
        behind = two * world.vehicle[w, a].length
        count = int(0)
        for j in range(world.slots):
            thing = is_object(world, w, j)
            if j != a and world.vehicle[w, j].kind != 0 and (not thing or view.obstacles != 0):
                away = vec2(
                    world.vehicle[w, j].x - world.vehicle[w, a].x, world.vehicle[w, j].y - world.vehicle[w, a].y
                )
                if wp.length(away) < sight:
                    ahead = along(world, road, w, j, lane) - s
                    # Objects behind are never seen, whatever is asked for.
                    if -behind < ahead or (view.see_behind != 0 and not thing):
                        distance = wp.where(view.in_order != 0, wp.abs(ahead), zero)
                        count = insert(world, view, w, a, count, distance, j)
        return count

    @wp.func
    def seen(world: wp.ref[World], road: wp.ref[Road], view: View, w: int, a: int, j: int, feature: int) -> real:
        if j == a:
            if feature == x_feature and view.exit_lane >= 0:
                return roads.local(road, view.exit_lane, world.vehicle[w, a].x, world.vehicle[w, a].y)[0]
            return value(world, road, w, a, feature)
        if view.intentions == 0 and (feature == cos_d or feature == sin_d):
            return zero
        if view.absolute == 0 and is_relative(feature):
            return value(world, road, w, j, feature) - value(world, road, w, a, feature)
        return value(world, road, w, j, feature)

    @wp.func
    def unknown_of_objects(feature: int) -> bool:
        return feature == heading or feature >= long_off

    @wp.kernel(module="unique")
    def list_vehicles(
        world: World,
        road: Road,
        view: View,
        columns: Columns,
        seed: wp.array(dtype=wp.uint64),
        observation: wp.array4d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w, a = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        count = collect(world, road, view, w, a)
        features = columns.feature.shape[0]
        for row in range(view.rows):
            j = int(a)
            if row > 0 and row <= count:
                j = view.slot[w, a, row - 1]
            for column in range(features):
                feature = columns.feature[column]
                number = real(0.0)
                if row <= count and not (is_object(world, w, j) and unknown_of_objects(feature)):
                    number = scaled(columns, column, seen(world, road, view, w, a, j, feature))
                    if view.clip != 0 and columns.has_range[column] != 0:
                        number = wp.clamp(number, -one, one)
                observation[w, a, row, column] = wp.float32(number)
        if view.shuffled != 0:
            # Fisher and Yates; empty rows are shuffled too, as in highway-env.
            draw = (world.frame[w] * world.agents + a) * view.rows
            for k in range(view.rows - 1, 1, -1):
                other = 1 + below(seed[0], world.world_id[w], world.episode[w], purpose, draw + k, k)
                for column in range(features):
                    kept = observation[w, a, k, column]
                    observation[w, a, k, column] = observation[w, a, other, column]
                    observation[w, a, other, column] = kept

    return Functions(
        Columns=Columns,
        View=View,
        is_object=is_object,
        is_listed_before=is_listed_before,
        along=along,
        value=value,
        is_relative=is_relative,
        scaled=scaled,
        list_vehicles=list_vehicles,
    )


def require_network(simulation, sensor: str) -> None:
    """Raise for a simulation whose worlds do not drive on a `RoadNetwork`.

    Raises:
        UserError: it is on a `ParallelRoad`.
    """
    if not simulation.maps:
        raise UserError(f"{sensor} observes road networks, not a parallel road; that one has Kinematics")


def per_agent(simulation, *shape: int) -> tuple[int, ...]:
    """The shape of one world's observation whose shape is `shape` for each agent."""
    agents = simulation.state.agents
    return (agents, *shape) if agents > 1 else shape


def columns_of(
    features: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
    simulation,
    others: Sequence[str] = (),
):
    """`Columns` of the features by name; those among `others` have the feature -1.

    Raises:
        UserError: an unknown feature, none at all, or an empty range.
    """
    known = (*FEATURES, *others)
    for name in (*features, *ranges):
        if name not in known:
            raise unknown("feature", name, known)
    if not features:
        raise UserError(f"an observation needs at least one feature (known: {', '.join(known)})")
    for name, (low, high) in ranges.items():
        if not low < high:
            raise UserError(f"the range of '{name}' must be (low, high) with low < high, not ({low:g}, {high:g})")
    bounds = [ranges.get(name, (-1.0, 1.0)) for name in features]
    columns = build(simulation.real).Columns()

    def array(values, dtype):
        return wp.array(np.array(values), dtype=dtype, device=simulation.warp_device)

    columns.feature = array([FEATURES.index(name) if name in FEATURES else -1 for name in features], wp.int32)
    columns.has_range = array([name in ranges for name in features], wp.int32)
    columns.low = array([low for low, _ in bounds], simulation.real)
    columns.high = array([high for _, high in bounds], simulation.real)
    return columns


class VehicleList:
    """highway-env's `Kinematics` observation on road networks, and with `exit_lane` its `ExitObservation`.

    Rows: the observer, then what is nearest along its lane, empty rows 0. Shape: (N, rows, features) float32, with
    several agents (N, A, rows, features). Objects have no heading and no place on a lane: 0, where highway-env has NaN.

    Args:
        features: columns, among `FEATURES`.
        rows: the observer's own included.
        ranges: feature -> the values that become -1 and 1; those not named are left as they are. By default x by 200
            m, vx and vy by 80 m/s and y by 4 m times `lanes`.
        absolute: positions and velocities of others as they are, not less the observer's own.
        order: "sorted" by distance, or "shuffled": the first in highway-env's order, in a random one.
        normalize: whether to scale by `ranges`.
        clip: whether to clip to [-1, 1] what is scaled.
        see_behind: whether vehicles more than two lengths behind are seen; objects there never are.
        intentions: whether the others' cos_d and sin_d are seen, else they are 0; the observer's own always are.
        obstacles: whether objects are seen.
        exit_lane: number of the lane along which the observer's own x is measured; no objects are seen then.
        lanes: number of lanes in the default range of y: highway-env counts those of the road on which the observer
            was first seen in the episode, and keeps to that.

    Raises:
        UserError: an unknown feature or order, no rows, or neither `ranges` nor `lanes` to scale by.
    """

    def __init__(
        self,
        simulation,
        features: Sequence[str] = FEATURES[:5],
        rows: int = 5,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        absolute: bool = False,
        order: str = "sorted",
        normalize: bool = True,
        clip: bool = True,
        see_behind: bool = False,
        intentions: bool = False,
        obstacles: bool = True,
        exit_lane: int | None = None,
        lanes: int | None = None,
    ):
        require_network(simulation, "VehicleList")
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        if rows < 1:
            raise UserError(f"rows must be at least 1, the observer's own, not {rows}")
        if normalize and ranges is None:
            if lanes is None:
                raise UserError("the default range of y needs 'lanes', the number of lanes of the observer's road")
            ranges = RANGES | {"y": (-LANE_WIDTH * lanes, LANE_WIDTH * lanes)}
        self._simulation = simulation
        self.features = tuple(features)
        self._columns = columns_of(features, ranges or {} if normalize else {}, simulation)
        n, agents, device = simulation.num_worlds, simulation.state.agents, simulation.warp_device
        view = build(simulation.real).View()
        view.rows, view.absolute, view.clip = rows, absolute, clip
        view.see_behind, view.intentions = see_behind, intentions
        # highway-env's ExitObservation looks for vehicles only, and always for the nearest.
        view.obstacles = obstacles and exit_lane is None
        view.in_order = order == "sorted" or exit_lane is not None
        view.shuffled = order == "shuffled"
        view.exit_lane = -1 if exit_lane is None else exit_lane
        view.distance = wp.zeros((n, agents, rows), dtype=simulation.real, device=device)
        view.slot = wp.zeros((n, agents, rows), dtype=wp.int32, device=device)
        self._view = view
        shape = per_agent(simulation, rows, len(features))
        output = torch.zeros((n, *shape), dtype=torch.float32, device=simulation.device)
        self._rows = wp.from_torch(output.view(n, agents, rows, len(features)))
        self.outputs, self.finals = {"state": output}, {"state": torch.zeros_like(output)}
        self.spaces = {"state": spaces.Box(-np.inf, np.inf, shape, np.float32)}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        seed = wp.from_torch(simulation.seed, dtype=wp.uint64)
        inputs = (simulation.state.warp, simulation.road, self._view, self._columns, seed, self._rows, which)
        return [Launch(build(simulation.real).list_vehicles, (simulation.state.agents,), inputs)]
