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
        world.length[w, i] = along
        world.width[w, i] = across
        world.height[w, i] = up
        world.reach[w, i] = real(0.5) * wp.sqrt(along * along + across * across)

    @wp.func
    def clear(world: wp.ref[World], w: int, i: int):
        world.kind[w, i] = absent
        world.x[w, i] = real(0.0)
        world.y[w, i] = real(0.0)
        world.heading[w, i] = real(0.0)
        world.cos_heading[w, i] = real(1.0)
        world.sin_heading[w, i] = real(0.0)
        world.speed[w, i] = real(0.0)
        world.sin_slip[w, i] = real(0.0)
        world.acceleration[w, i] = real(0.0)
        world.target_speed[w, i] = real(0.0)
        world.exponent[w, i] = real(4.0)
        world.timer[w, i] = real(0.0)
        world.impact_x[w, i] = real(0.0)
        world.impact_y[w, i] = real(0.0)
        size(world, w, i, length, width, height)
        world.lane_s[w, i] = real(0.0)
        world.lane_r[w, i] = real(0.0)
        world.steering[w, i] = real(0.0)
        world.lateral_speed[w, i] = real(0.0)
        world.yaw_rate[w, i] = real(0.0)
        world.reward_share[w, i] = real(0.0)
        world.lane[w, i] = 0
        world.target_lane[w, i] = 0
        world.proposed_lane[w, i] = 0
        world.speed_index[w, i] = 0
        world.form[w, i] = 0
        world.changes_lanes[w, i] = 1
        world.yields[w, i] = 0
        world.finished[w, i] = 0
        world.goal_x[w, i] = real(0.0)
        world.goal_y[w, i] = real(0.0)
        world.patience[w, i] = real(0.0)
        world.sequence[w, i] = i
        world.route_at[w, i] = 0
        world.route_end[w, i] = 0
        world.crashed[w, i] = 0
        world.has_impact[w, i] = 0
        world.checks_collisions[w, i] = 1
        world.order[w, i] = i
        world.rank[w, i] = i

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
        world.kind[w, i] = kind
        world.x[w, i] = x
        world.y[w, i] = y
        world.heading[w, i] = heading
        world.cos_heading[w, i] = wp.cos(heading)
        world.sin_heading[w, i] = wp.sin(heading)
        world.speed[w, i] = speed
        if kind == idm or kind == meta:
            world.target_speed[w, i] = speed
        # highway-env staggers the first decisions by a fractional part of the position.
        decimal = (x + y) * real(math.pi)
        world.timer[w, i] = decimal - wp.floor(decimal)
        road_functions.locate(world, road, w, i)
        world.target_lane[w, i] = world.lane[w, i]
        world.proposed_lane[w, i] = world.lane[w, i]

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
        lane = world.lane[w, i]
        world.route[w, i, 0] = road.lane_road[lane] * places + road.lane_place[lane] + 1
        steps = int(1)
        node = int(road.road_to[road.lane_road[lane]])
        while node >= 0 and steps < world.route.shape[2]:
            ahead = road.hop[node, destination]
            node = -1
            if ahead >= 0:
                world.route[w, i, steps] = ahead * places
                steps = steps + 1
                node = road.road_to[ahead]
        world.route_at[w, i] = 0
        world.route_end[w, i] = steps

    @wp.func
    def plan_lanes(
        world: wp.ref[World], road: wp.ref[Road], onward: wp.array2d(dtype=wp.int32), w: int, i: int, destination: int
    ):
        lane = int(world.lane[w, i])
        world.route[w, i, 0] = road.lane_road[lane] * places + road.lane_place[lane] + 1
        steps = int(1)
        lane = onward[lane, destination]
        while lane >= 0 and steps < world.route.shape[2]:
            world.route[w, i, steps] = road.lane_road[lane] * places
            steps = steps + 1
            lane = onward[lane, destination]
        world.route_at[w, i] = 0
        world.route_end[w, i] = steps

    @wp.func
    def engage(world: wp.ref[World], road: wp.ref[Road], controls: Controls, w: int, i: int, kind: int):
        world.kind[w, i] = kind
        if kind == meta:
            index = action_functions.index_of(controls, world.speed[w, i])
            world.speed_index[w, i] = index
            world.target_speed[w, i] = action_functions.speed_of(controls, index)
        elif kind == idm:
            world.target_speed[w, i] = road_functions.speed_limit(road, world.lane[w, i])
        else:
            world.target_speed[w, i] = real(0.0)

    return Functions(
        clear=clear, size=size, put=put, put_on=put_on, stand=stand, plan=plan, plan_lanes=plan_lanes, engage=engage
    )
