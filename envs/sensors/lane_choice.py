"""What a driver who may change lanes has to know: the lanes beside it, who is on them, and who it would meet in a turn.

The way begins with the lane under the ego and goes on as that lane leads: to the ego's destination, or, where that has
been missed, wherever the road goes. A lane beside it may begin farther ahead, as at the end of a ramp.
"""

import functools

import numpy as np
import torch
import warp as wp

from envs.launch import Launch
from envs.phases import ENDED
from envs.physics import angles
from envs.physics.control import LOOK_AHEAD
from envs.precision import Functions
from envs.roads import general
from envs.roads.lanes import STRAIGHT
from envs.scenarios import staging
from envs.sensors import base, surroundings
from envs.sensors.lane_plans import ENDLESS, lane_plans
from envs.state import FORMS, LANDMARK, OBSTACLE, world_struct

ROWS = ("own", "left", "right")
LANE = (
    "there",  # 1: leads the same way and may be changed into; -1: oncoming traffic's, behind a dashed line; else 0
    "offset",  # of its middle from the ego's centre, to the right [m]
    "turn",  # of its direction from the ego's heading, to the right [rad]
    "changes",  # of lane that are needed from it to the destination
    "room",  # to where it no longer leads there [m], at most `ENDLESS`
    "opens",  # distance to where it begins to be beside the ego's lane [m]
    "end",  # distance to its own end [m]
    "speed limit",  # [m/s]
    "lower limit",  # the next on the way that is lower, else the same [m/s]
    "lower from",  # distance to where that holds [m], at most `ENDLESS`
    "blind",  # 1 where the road ends where the lane no longer leads to the destination
)
TRAFFIC = (
    *surroundings.OTHER,  # on the way from the lane under the ego
    "along left",  # centre to centre, along the lane to the left of the ego's [m]
    "across left",  # from the middle of that lane to the right [m], `AWAY` where it is not beside it
    "sideways left",  # the other's velocity across it, to the right [m/s]
    "along right",
    "across right",
    "sideways right",
    "meets",  # 1 where a vehicle that comes towards the ego crosses its way if it goes straight on, else the rest is 0
    "way in",  # how far the ego's centre may go until the boxes can touch [m], not negative
    "way out",  # ... until they no longer can [m]
    "other in",  # the same for the other's centre [m]
    "other out",
    "crossing",  # sine of the angle at which they meet, the greatest
)
AWAY = 1000.0  # m
SIGHT = 40.0  # m of its way on which the ego looks for crossing ones
STEP = 0.5  # m
LOST = 3.0  # m beside the lane of the route, from which on the lane under the ego counts
LANES_AHEAD = surroundings.LANES_AHEAD
TOWARDS = -0.2  # cosine of the angle between headings below which somebody comes towards the ego
STANDS = 0.5  # m/s


@functools.cache
def build(real: type) -> Functions:
    """Kernels `look_at_lanes` and `look_at_traffic`."""
    World = world_struct(real)
    roads, seeing = general.build(real), surroundings.build(real)
    Road, local, heading_at = roads.Road, roads.local, roads.heading_at
    own_lane, beyond, wrap = seeing.own_lane, seeing.beyond, angles.build(real).wrap
    vec3 = wp.vec3f if real is wp.float32 else wp.vec3d
    ended, straight, lanes_ahead, landmark, obstacle = ENDED, STRAIGHT, LANES_AHEAD, LANDMARK, OBSTACLE
    person_form, cyclist_form = FORMS.index("person"), FORMS.index("cyclist")
    zero, half, look_ahead, lost, stands = (real(k) for k in (0.0, 0.5, LOOK_AHEAD, LOST, STANDS))
    away, endless, step, towards = real(AWAY), real(ENDLESS), real(STEP), real(TOWARDS)
    steps, first_side, first_meeting, f = int(SIGHT / STEP), len(surroundings.OTHER), TRAFFIC.index("meets"), wp.float32

    @wp.struct
    class Plans:
        """See `envs.sensors.lane_plans.LanePlans`."""

        through: wp.array2d(dtype=wp.int32)
        changes: wp.array2d(dtype=wp.int32)
        room: wp.array2d(dtype=real)
        blind: wp.array2d(dtype=wp.int32)
        oncoming: wp.array(dtype=wp.int32)
        goals: wp.array(dtype=wp.int32)  # [case] each one's destination, -1 for none

    @wp.func
    def lane_under(world: wp.ref[World], road: wp.ref[Road], w: int) -> int:
        """The lane of the route that the ego is on; where it has left that far behind, the closest that it follows."""
        here = world.vehicle[w, 0].lane
        lane = own_lane(world, road, w)
        if lane != here:
            aside = local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)[1]
            turn = heading_at(road, here, world.vehicle[w, 0].lane_s) - world.vehicle[w, 0].heading
            if wp.abs(aside) > lost and wp.cos(turn) > zero:
                return here
        return lane

    @wp.func
    def side_lane(road: wp.ref[Road], lane: int, side: int) -> int:
        """The straight lane beside a lane into which one may change, -1 for none."""
        found = wp.where(side == 1, roads.left_of(road, lane), roads.right_of(road, lane))
        if found >= 0:
            if road.of_lane[found].forbidden != 0 or road.lanes.lane[found].kind != straight:
                return -1
        return found

    @wp.func
    def beside(
        world: wp.ref[World], road: wp.ref[Road], plans: Plans, goal: int, w: int, lane: int, side: int
    ) -> wp.vec2i:
        """The lane on a side of the way, now or first of all, and how many of its lanes come before; -1 for none."""
        here = int(lane)
        for n in range(lanes_ahead + 1):
            if here >= 0:
                found = side_lane(road, here, side)
                if found >= 0:
                    return wp.vec2i(found, n)
                here = beyond(world, plans.through, goal, here)
        return wp.vec2i(-1, 0)

    @wp.func
    def place_along(
        world: wp.ref[World], road: wp.ref[Road], plans: Plans, goal: int, w: int, j: int, lane: int
    ) -> vec3:
        """Vehicle j along a lane and those after it from the ego on, to the right of their middle [m], and its velocity
        to the right of them [m/s]."""
        x = world.vehicle[w, j].x
        y = world.vehicle[w, j].y
        own = local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)[0]
        result = vec3(zero, away, zero)
        here = int(lane)
        passed = real(0.0)
        for _step in range(lanes_ahead + 1):
            if here >= 0:
                place = local(road, here, x, y)
                length = road.lanes.lane[here].length
                begins = place[0] >= zero or here == lane
                if begins and place[0] <= length and wp.abs(place[1]) < wp.abs(result[1]):
                    turn = world.vehicle[w, j].heading - heading_at(road, here, place[0])
                    result = vec3(passed + place[0] - own, place[1], world.vehicle[w, j].speed * wp.sin(turn))
                passed = passed + length
                here = beyond(world, plans.through, goal, here)
        return result

    @wp.func
    def describe_lane(
        world: wp.ref[World],
        road: wp.ref[Road],
        plans: Plans,
        lanes: wp.array3d(dtype=wp.float32),
        goal: int,
        w: int,
        row: int,
        lane: int,
    ):
        own = local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)
        ahead = heading_at(road, lane, own[0] + world.vehicle[w, 0].speed * look_ahead)
        limit = roads.speed_limit(road, lane)
        lower = real(limit)
        lower_from = real(endless)
        passed = road.lanes.lane[lane].length - own[0]
        here = beyond(world, plans.through, goal, lane)
        for _step in range(lanes_ahead):
            if here >= 0:
                if roads.speed_limit(road, here) < lower:
                    lower = roads.speed_limit(road, here)
                    lower_from = passed
                passed = passed + road.lanes.lane[here].length
                here = beyond(world, plans.through, goal, here)
        lanes[w, row, 0] = f(1.0)
        lanes[w, row, 1] = f(-own[1])
        lanes[w, row, 2] = f(wrap(ahead - world.vehicle[w, 0].heading))
        lanes[w, row, 3] = f(real(plans.changes[lane, 1 + goal]))
        room = plans.room[lane, 1 + goal]
        lanes[w, row, 4] = f(wp.where(room < endless, room - own[0], endless))
        lanes[w, row, 6] = f(road.lanes.lane[lane].length - own[0])
        lanes[w, row, 7] = f(limit)
        lanes[w, row, 8] = f(lower)
        lanes[w, row, 9] = f(lower_from)
        lanes[w, row, 10] = f(plans.blind[lane, 1 + goal])

    @wp.kernel(module="unique")
    def look_at_lanes(
        world: World, road: Road, plans: Plans, lanes: wp.array3d(dtype=wp.float32), which: int, first_world: int
    ):
        w, row = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        for column in range(lanes.shape[2]):
            lanes[w, row, column] = f(0.0)
        goal = plans.goals[world.world_id[w] % plans.goals.shape[0]]
        lane = lane_under(world, road, w)
        if row == 0:
            describe_lane(world, road, plans, lanes, goal, w, row, lane)
            return
        found = beside(world, road, plans, goal, w, lane, row)
        if found[0] >= 0:
            describe_lane(world, road, plans, lanes, goal, w, row, found[0])
            opens = -local(road, found[0], world.vehicle[w, 0].x, world.vehicle[w, 0].y)[0]
            lanes[w, row, 5] = f(wp.where(found[1] > 0, wp.max(opens, zero), zero))
        elif row == 1:
            oncoming = plans.oncoming[lane]
            if oncoming >= 0:
                aside = local(road, oncoming, world.vehicle[w, 0].x, world.vehicle[w, 0].y)
                lanes[w, row, 0] = f(-1.0)
                lanes[w, row, 1] = f(aside[1])
                lanes[w, row, 6] = f(aside[0])

    @wp.func
    def describe_meeting(
        world: wp.ref[World],
        road: wp.ref[Road],
        plans: Plans,
        traffic: wp.array3d(dtype=wp.float32),
        goal: int,
        w: int,
        j: int,
        lane: int,
    ):
        """Where the ego's way and the straight one of a vehicle that comes towards it cross."""
        dx = world.vehicle[w, j].cos_heading
        dy = world.vehicle[w, j].sin_heading
        here = int(lane)
        s = local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)[0]
        way_in = real(-1.0)
        way_out = real(0.0)
        other_in = real(away)
        other_out = real(0.0)
        crossing = real(0.0)
        for n in range(steps):
            if here >= 0:
                point = roads.position(road.lanes, here, s, zero)
                x = point[0] - world.vehicle[w, j].x
                y = point[1] - world.vehicle[w, j].y
                turn = heading_at(road, here, s) - world.vehicle[w, j].heading
                c = wp.abs(wp.cos(turn))
                d = wp.abs(wp.sin(turn))
                ahead = x * dx + y * dy
                # Half of the ego's box along the other's way and across it.
                along = half * (world.vehicle[w, 0].length * c + world.vehicle[w, 0].width * d)
                across = half * (world.vehicle[w, 0].length * d + world.vehicle[w, 0].width * c)
                near = wp.abs(y * dx - x * dy) < across + half * world.vehicle[w, j].width
                if near and ahead > -along - half * world.vehicle[w, j].length:
                    if way_in < zero:
                        way_in = real(wp.max(n - 1, 0)) * step
                    way_out = real(n + 1) * step
                    other_in = wp.min(other_in, ahead - along - half * world.vehicle[w, j].length)
                    other_out = wp.max(other_out, ahead + along + half * world.vehicle[w, j].length)
                    crossing = wp.max(crossing, d)
                elif way_in >= zero:
                    break
                s = s + step
                if s > road.lanes.lane[here].length:
                    s = s - road.lanes.lane[here].length
                    here = beyond(world, plans.through, goal, here)
        if way_in >= zero:
            row = j - 1
            traffic[w, row, first_meeting] = f(1.0)
            traffic[w, row, first_meeting + 1] = f(way_in)
            traffic[w, row, first_meeting + 2] = f(way_out)
            traffic[w, row, first_meeting + 3] = f(other_in)
            traffic[w, row, first_meeting + 4] = f(other_out)
            traffic[w, row, first_meeting + 5] = f(crossing)

    @wp.kernel(module="unique")
    def look_at_traffic(
        world: World, road: Road, plans: Plans, traffic: wp.array3d(dtype=wp.float32), which: int, first_world: int
    ):
        w, row = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        j = row + 1
        for column in range(traffic.shape[2]):
            traffic[w, row, column] = f(0.0)
        kind = world.vehicle[w, j].kind
        if kind == 0 or kind == landmark:
            return
        goal = plans.goals[world.world_id[w] % plans.goals.shape[0]]
        lane = lane_under(world, road, w)
        seeing.describe(world, road, plans.through, goal, traffic, w, j, lane)
        for side in range(1, 3):
            lane_there = beside(world, road, plans, goal, w, lane, side)[0]
            place = vec3(zero, away, zero)
            if lane_there >= 0:
                place = place_along(world, road, plans, goal, w, j, lane_there)
            for k in range(3):
                traffic[w, row, first_side + 3 * side - 3 + k] = f(place[k])
        form = world.vehicle[w, j].form
        drives = kind < obstacle and form != person_form and form != cyclist_form
        turn = world.vehicle[w, j].heading - world.vehicle[w, 0].heading
        goes_straight = road.lanes.lane[world.vehicle[w, j].lane].kind == straight
        if drives and goes_straight and world.vehicle[w, j].speed > stands and wp.cos(turn) < towards:
            describe_meeting(world, road, plans, traffic, goal, w, j, lane)

    return Functions(Plans=Plans, look_at_lanes=look_at_lanes, look_at_traffic=look_at_traffic)


class LaneChoice:
    """{"lanes": float32 (N, 3, 11), "traffic": float32 (N, V - 1, 22)}: columns `LANE` and `TRAFFIC`.

    The rows of "lanes" are `ROWS`, row k of "traffic" is slot k + 1. Lanes beside the ego's are straight ones only.

    Args:
        simulation: of an `envs.scenarios.stage.Stage`.
    """

    def __init__(self, simulation):
        self._simulation = simulation
        stage, device = simulation.scenario, simulation.warp_device
        goals = stage.destinations(simulation.maps)
        numbers = staging.task_tables(stage.cases, stage.map_names, stage.slots)
        found = lane_plans(simulation.maps, staging.onward(simulation.maps, goals))
        self._plans = plans = build(simulation.real).Plans()
        for name in ("through", "changes", "blind", "oncoming"):
            setattr(plans, name, wp.array(getattr(found, name).astype(np.int32), dtype=wp.int32, device=device))
        plans.room = wp.array(found.room, dtype=simulation.real, device=device)
        destination = numbers["case_ints"][:, staging.CASE_INTS.index("destination")]
        plans.goals = wp.array(destination, dtype=wp.int32, device=device)
        shapes = {"lanes": (len(ROWS), len(LANE)), "traffic": (simulation.state.slots - 1, len(TRAFFIC))}
        self.outputs, self.finals, self.spaces = base.numbers(simulation, shapes)
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        kernels, known = build(simulation.real), (simulation.state.warp, simulation.road, self._plans)
        lanes, traffic = (wp.from_torch(output) for output in self.outputs.values())
        return [
            Launch(kernels.look_at_lanes, (len(ROWS),), (*known, lanes, which)),
            Launch(kernels.look_at_traffic, (simulation.state.slots - 1,), (*known, traffic, which)),
        ]
