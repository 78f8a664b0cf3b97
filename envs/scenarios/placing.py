"""How scenarios put vehicles and things on a road network."""

import functools
import math

import warp as wp

from envs.precision import Functions
from envs.roads.general import PLACES
from envs.state import ABSENT, IDM, META, OBSTACLE, world_struct

CAR_SIZE = (5.0, 2.0, 1.5)  # m: length, width, height


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Warp functions that fill a slot.

    clear(world, w, i)                                      nothing is there
    size(world, w, i, length, width, height)                the box of what is there
    put(world, road, w, i, kind, x, y, heading, speed)      a car at a point
    put_on(world, road, w, i, kind, lane, s, speed)         a car on a lane's centre line
    stand(world, road, w, i, x, y, heading, length, width)  an obstacle
    plan(world, road, w, i, destination)                    give it the shortest route to a node
    plan_lanes(world, road, onward, w, i, destination)      the same by the table of the lane after each lane
    engage(world, road, controls, w, i, kind)               make it an agent's: targets from its present speed
    """
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    length, width, height = (real(size) for size in CAR_SIZE)
    idm, meta, absent, obstacle = IDM, META, ABSENT, OBSTACLE
    places = PLACES

    @wp.func
    def size(world: wp.ref[World], w: int, i: int, along: real, across: real, up: real):
        world.vehicle[w, i].length = along
        world.vehicle[w, i].width = across
        world.vehicle[w, i].height = up
        world.vehicle[w, i].reach = real(0.5) * wp.sqrt(along * along + across * across)

    @wp.func
    def clear(world: wp.ref[World], w: int, i: int):
        world.vehicle[w, i].kind = absent
        world.vehicle[w, i].x = real(0.0)
        world.vehicle[w, i].y = real(0.0)
        world.vehicle[w, i].heading = real(0.0)
        world.vehicle[w, i].cos_heading = real(1.0)
        world.vehicle[w, i].sin_heading = real(0.0)
        world.vehicle[w, i].speed = real(0.0)
        world.vehicle[w, i].sin_slip = real(0.0)
        world.vehicle[w, i].acceleration = real(0.0)
        world.vehicle[w, i].target_speed = real(0.0)
        world.vehicle[w, i].exponent = real(4.0)
        world.vehicle[w, i].timer = real(0.0)
        world.vehicle[w, i].impact_x = real(0.0)
        world.vehicle[w, i].impact_y = real(0.0)
        size(world, w, i, length, width, height)
        world.vehicle[w, i].lane_s = real(0.0)
        world.vehicle[w, i].lane_r = real(0.0)
        world.vehicle[w, i].steering = real(0.0)
        world.vehicle[w, i].lateral_speed = real(0.0)
        world.vehicle[w, i].yaw_rate = real(0.0)
        world.vehicle[w, i].reward_share = real(0.0)
        world.vehicle[w, i].lane = 0
        world.vehicle[w, i].target_lane = 0
        world.vehicle[w, i].proposed_lane = 0
        world.vehicle[w, i].speed_index = 0
        world.vehicle[w, i].form = 0
        world.vehicle[w, i].look = 0
        world.vehicle[w, i].changes_lanes = 1
        world.vehicle[w, i].yields = 0
        world.vehicle[w, i].finished = 0
        world.vehicle[w, i].goal_x = real(0.0)
        world.vehicle[w, i].goal_y = real(0.0)
        world.vehicle[w, i].patience = real(0.0)
        world.vehicle[w, i].sequence = i
        world.vehicle[w, i].route_at = 0
        world.vehicle[w, i].route_end = 0
        world.vehicle[w, i].crashed = 0
        world.vehicle[w, i].has_impact = 0
        world.vehicle[w, i].checks_collisions = 1
        world.vehicle[w, i].order = i
        world.vehicle[w, i].rank = i

    @wp.func
    def put(
        world: wp.ref[World],
        road: wp.ref[Road],
        w: int,
        i: int,
        kind: int,
        x: real,
        y: real,
        heading: real,
        speed: real,
    ):
        clear(world, w, i)
        world.vehicle[w, i].kind = kind
        world.vehicle[w, i].x = x
        world.vehicle[w, i].y = y
        world.vehicle[w, i].heading = heading
        world.vehicle[w, i].cos_heading = wp.cos(heading)
        world.vehicle[w, i].sin_heading = wp.sin(heading)
        world.vehicle[w, i].speed = speed
        if kind == idm or kind == meta:
            world.vehicle[w, i].target_speed = speed
        # highway-env staggers the first decisions by a fractional part of the position.
        decimal = (x + y) * real(math.pi)
        world.vehicle[w, i].timer = decimal - wp.floor(decimal)
        road_functions.locate(world, road, w, i)
        world.vehicle[w, i].target_lane = world.vehicle[w, i].lane
        world.vehicle[w, i].proposed_lane = world.vehicle[w, i].lane

    @wp.func
    def put_on(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, kind: int, lane: int, s: real, speed: real):
        place = road_functions.position(road.lanes, lane, s, real(0.0))
        put(world, road, w, i, kind, place[0], place[1], road_functions.heading_at(road, lane, s), speed)

    @wp.func
    def stand(
        world: wp.ref[World],
        road: wp.ref[Road],
        w: int,
        i: int,
        x: real,
        y: real,
        heading: real,
        along: real,
        across: real,
    ):
        put(world, road, w, i, obstacle, x, y, heading, real(0.0))
        size(world, w, i, along, across, real(1.0))

    @wp.func
    def plan(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, destination: int):
        """The route that starts on the present lane; that lane alone where the destination cannot be reached."""
        lane = world.vehicle[w, i].lane
        world.route[w, i, 0] = road.of_lane[lane].road * places + road.of_lane[lane].place + 1
        steps = int(1)
        node = int(road.road_to[road.of_lane[lane].road])
        while node >= 0 and steps < world.route.shape[2]:
            ahead = road.hop[node, destination]
            node = -1
            if ahead >= 0:
                world.route[w, i, steps] = ahead * places
                steps = steps + 1
                node = road.road_to[ahead]
        world.vehicle[w, i].route_at = 0
        world.vehicle[w, i].route_end = steps

    @wp.func
    def plan_lanes(
        world: wp.ref[World], road: wp.ref[Road], onward: wp.array2d(dtype=wp.int32), w: int, i: int, destination: int
    ):
        lane = int(world.vehicle[w, i].lane)
        world.route[w, i, 0] = road.of_lane[lane].road * places + road.of_lane[lane].place + 1
        steps = int(1)
        lane = onward[lane, destination]
        while lane >= 0 and steps < world.route.shape[2]:
            world.route[w, i, steps] = road.of_lane[lane].road * places
            steps = steps + 1
            lane = onward[lane, destination]
        world.vehicle[w, i].route_at = 0
        world.vehicle[w, i].route_end = steps

    @wp.func
    def engage(world: wp.ref[World], road: wp.ref[Road], controls: Controls, w: int, i: int, kind: int):
        world.vehicle[w, i].kind = kind
        if kind == meta:
            index = action_functions.index_of(controls, world.vehicle[w, i].speed)
            world.vehicle[w, i].speed_index = index
            world.vehicle[w, i].target_speed = action_functions.speed_of(controls, index)
        elif kind == idm:
            world.vehicle[w, i].target_speed = road_functions.speed_limit(road, world.vehicle[w, i].lane)
        else:
            world.vehicle[w, i].target_speed = real(0.0)

    return Functions(
        clear=clear, size=size, put=put, put_on=put_on, stand=stand, plan=plan, plan_lanes=plan_lanes, engage=engage
    )
