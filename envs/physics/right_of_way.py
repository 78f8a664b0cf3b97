"""Right of way where nothing signals it: highway-env's RegulatedRoad.

Twice a second every vehicle's path of the next 3 s is predicted at constant speed, along its route where it has one.
Of two whose paths come into conflict, the one on the lane of lower priority stops; of equal priority, the one that has
the other farther ahead. Drivers obey, vehicles under meta-actions do not. highway-env tests two rectangles by whether
one has a corner, an edge's middle or the centre of the other inside it, and turns points the wrong way round in doing
so; it is its result that is reproduced.
"""

import functools

import numpy as np
import warp as wp

from envs.precision import Functions
from envs.roads.general import PLACES
from envs.state import DYNAMIC, IDM, META, OBSTACLE, PLAIN, world_struct

FREQUENCY = 2  # Hz
HORIZON, STEP = 3.0, 0.25  # s
TIMES = np.arange(STEP, HORIZON, STEP)
LENGTH_SCALE, WIDTH_SCALE = 1.5, 0.9


@functools.cache
def build(real: type, road_functions, dynamic_motion) -> Functions:
    """`predict(world, road, w, i)` fills a vehicle's path, `enforce(world, road, w)` decides who stops.

    Args:
        real: scalar type.
        road_functions: of a road module.
        dynamic_motion: the dynamic bicycle model, for vehicles that keep their steering.
    """
    World, Road = world_struct(real), road_functions.Road
    count, step = len(TIMES), real(STEP)
    long, wide, half, zero = real(LENGTH_SCALE), real(WIDTH_SCALE), real(0.5), real(0.0)
    half_length = real(2.5)
    idm, meta, plain, dynamic, obstacle = IDM, META, PLAIN, DYNAMIC, OBSTACLE
    places = PLACES

    @wp.func
    def road_lane_at(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, k: int) -> int:
        """The lane at step k of a route; where any place will do, the present lane's place."""
        entry = world.route[w, i, k]
        place = entry % places - 1
        if place < 0:
            place = road.of_lane[world.vehicle[w, i].lane].place
        return road.road_lane[entry / places] + place

    @wp.func(inline=False)
    def predict(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        """Fill `road.path` of a vehicle: position and heading at each of TIMES."""
        kind = world.vehicle[w, i].kind
        if kind == idm or kind == meta:
            s = world.vehicle[w, i].lane_s
            for t in range(count):
                lane = int(world.vehicle[w, i].lane)
                at = int(world.vehicle[w, i].route_at)
                end = world.vehicle[w, i].route_end
                ahead = s + world.vehicle[w, i].speed * step * real(t + 1)
                if at < end:
                    lane = road_lane_at(world, road, w, i, at)
                    while at < end - 1 and ahead > road.lanes.lane[lane].length:
                        ahead = ahead - road.lanes.lane[lane].length
                        at = at + 1
                        lane = road_lane_at(world, road, w, i, at)
                place = road_functions.position(road.lanes, lane, ahead, zero)
                road.path[w, i, t, 0] = place[0]
                road.path[w, i, t, 1] = place[1]
                road.path[w, i, t, 2] = road_functions.heading_at(road, lane, ahead)
        elif kind == plain:
            x = real(world.vehicle[w, i].x)
            y = real(world.vehicle[w, i].y)
            heading = real(world.vehicle[w, i].heading)
            speed = real(world.vehicle[w, i].speed)
            slip = real(world.vehicle[w, i].sin_slip)
            crashed = bool(world.vehicle[w, i].crashed != 0)
            for t in range(count):
                # A wreck rolls straight on and slows down; one that an impact awaits becomes a wreck with it.
                if crashed:
                    slip = real(0.0)
                along = wp.sqrt(real(1.0) - slip * slip)
                c = wp.cos(heading)
                s = wp.sin(heading)
                x = x + speed * (c * along - s * slip) * step
                y = y + speed * (s * along + c * slip) * step
                heading = heading + speed * slip / half_length * step
                if crashed:
                    speed = speed - speed * step
                if t == 0 and world.vehicle[w, i].has_impact != 0:
                    x = x + world.vehicle[w, i].impact_x
                    y = y + world.vehicle[w, i].impact_y
                    crashed = bool(True)
                road.path[w, i, t, 0] = x
                road.path[w, i, t, 1] = y
                road.path[w, i, t, 2] = heading
        elif kind == dynamic:
            state = dynamic_motion.state_of(world, w, i)
            steering = real(world.vehicle[w, i].steering)
            wreck = real(0.0)
            if world.vehicle[w, i].crashed != 0:
                steering = real(0.0)
                wreck = real(1.0)
            for t in range(count):
                state = dynamic_motion.advance(state, steering, -wreck * state[3], step)
                road.path[w, i, t, 0] = state[0]
                road.path[w, i, t, 1] = state[1]
                road.path[w, i, t, 2] = state[2]

    @wp.func
    def reaches_into(
        ax: real, ay: real, ah: real, al: real, aw: real, bx: real, by: real, bh: real, bl: real, bw: real
    ) -> bool:
        """Whether a corner, middle of an edge or the centre of a lies in b, b's frame being turned the wrong way."""
        ca = wp.cos(ah)
        sa = wp.sin(ah)
        cb = wp.cos(bh)
        sb = wp.sin(bh)
        u = -half * al
        for _along in range(3):
            v = -half * aw
            for _across in range(3):
                dx = ax + ca * u - sa * v - bx
                dy = ay + sa * u + ca * v - by
                if wp.abs(cb * dx - sb * dy) <= half * bl and wp.abs(sb * dx + cb * dy) <= half * bw:
                    return True
                v = v + half * aw
            u = u + half * al
        return False

    @wp.func
    def conflict(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int) -> bool:
        for t in range(count):
            dx = road.path[w, j, t, 0] - road.path[w, i, t, 0]
            dy = road.path[w, j, t, 1] - road.path[w, i, t, 1]
            reach = world.vehicle[w, i].length
            if dx * dx + dy * dy <= reach * reach:
                xi = road.path[w, i, t, 0]
                yi = road.path[w, i, t, 1]
                hi = road.path[w, i, t, 2]
                xj = road.path[w, j, t, 0]
                yj = road.path[w, j, t, 1]
                hj = road.path[w, j, t, 2]
                li = long * world.vehicle[w, i].length
                wi = wide * world.vehicle[w, i].width
                lj = long * world.vehicle[w, j].length
                wj = wide * world.vehicle[w, j].width
                if reaches_into(xi, yi, hi, li, wi, xj, yj, hj, lj, wj):
                    return True
                if reaches_into(xj, yj, hj, lj, wj, xi, yi, hi, li, wi):
                    return True
        return False

    @wp.func
    def ahead_of(world: wp.ref[World], w: int, i: int, j: int) -> real:
        """How far j is in front of i [m]."""
        return world.vehicle[w, i].cos_heading * (world.vehicle[w, j].x - world.vehicle[w, i].x) + world.vehicle[
            w, i
        ].sin_heading * (world.vehicle[w, j].y - world.vehicle[w, i].y)

    @wp.func
    def yielding(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int) -> int:
        """Which of two in conflict gives way, i being the first in order."""
        mine = road.of_lane[world.vehicle[w, i].lane].priority
        theirs = road.of_lane[world.vehicle[w, j].lane].priority
        if mine > theirs:
            return j
        if mine < theirs:
            return i
        return wp.where(ahead_of(world, w, i, j) > ahead_of(world, w, j, i), i, j)

    @wp.func
    def moving(world: wp.ref[World], w: int, i: int) -> bool:
        return world.vehicle[w, i].kind != 0 and world.vehicle[w, i].kind < obstacle

    @wp.func(inline=False)
    def enforce(world: wp.ref[World], road: wp.ref[Road], w: int):
        for i in range(world.used[w]):
            if world.vehicle[w, i].yields != 0:
                world.vehicle[w, i].target_speed = road_functions.speed_limit(road, world.vehicle[w, i].lane)
                world.vehicle[w, i].yields = 0
        for i in range(world.used[w]):
            if moving(world, w, i):
                for j in range(i + 1, world.used[w]):
                    if moving(world, w, j):
                        # The first of the pair by order, not by slot, has its length in the first test.
                        a = wp.where(world.vehicle[w, i].sequence < world.vehicle[w, j].sequence, i, j)
                        b = i + j - a
                        if conflict(world, road, w, a, b):
                            stops = yielding(world, road, w, a, b)
                            if world.vehicle[w, stops].kind == idm:
                                world.vehicle[w, stops].target_speed = zero
                                world.vehicle[w, stops].yields = 1

    return Functions(predict=predict, enforce=enforce)
