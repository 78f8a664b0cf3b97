"""A straight carriageway of parallel lanes along +x: highway-env's `straight_road_network`.

Lane k's centre line is y = k * lane_width, from x = 0 to x = length; lanes are numbered from left to right (y grows to
the right of travel). The longitudinal coordinate of every lane is x itself, so vehicles sorted by x are sorted along
every lane and a neighbour is found by walking from a vehicle's own rank.

A road module offers the same Warp functions whatever its geometry, see `build`; the laws are written against them.
"""

import functools
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs.errors import UserError
from envs.precision import Functions
from envs.state import world_struct

LANE_WIDTH = 4.0
# Before a lane's start and past its end a vehicle of this length still counts as on it (highway-env's VEHICLE_LENGTH).
END_MARGIN = 5.0
# Neighbours are sought this far beyond the edges of a lane (highway-env's margin).
SIDE_MARGIN = 1.0


@dataclass(frozen=True)
class ParallelRoad:
    """Geometry of the carriageway.

    Attributes:
        lanes: number of lanes.
        length: length of every lane [m].
        speed_limit: speed limit of every lane [m/s].
        lane_width: width of a lane [m].
    """

    lanes: int
    length: float = 10_000.0
    speed_limit: float = 30.0
    lane_width: float = LANE_WIDTH

    def __post_init__(self):
        if self.lanes < 1:
            raise UserError(f"a road needs at least one lane, not {self.lanes}")
        if self.length <= 0 or self.lane_width <= 0:
            raise UserError(f"a lane of {self.length} m by {self.lane_width} m cannot be driven: both must be positive")

    def lane_center(self, lane: int) -> float:
        """The y coordinate of a lane's centre line [m]."""
        return lane * self.lane_width

    def polylines(self) -> list[tuple[np.ndarray, str, str]]:
        """Each lane's centre line with the styles of its left and right markings.

        Returns:
            A list of (points [P, 2] in m, left style, right style); a style is "solid", "dashed" or "none".
        """
        return [
            (
                np.array([[0.0, self.lane_center(lane)], [self.length, self.lane_center(lane)]]),
                "solid" if lane == 0 else "dashed",
                "solid" if lane == self.lanes - 1 else "none",
            )
            for lane in range(self.lanes)
        ]


@functools.cache
def build(real: type) -> Functions:
    """Struct `Road` and the Warp functions that every road module offers; lanes are numbers, distances in m.

    closest_lane(road, x, y, heading)       the lane that a vehicle is on
    along(road, lane, x, y)                 longitudinal coordinate of a point
    lateral(road, lane, x, y)               distance to the right of the centre line
    heading_at(road, lane, s)               direction of the centre line
    on_lane(road, lane, x, y, margin)       whether a point lies on the lane, `margin` beyond its edges included
    reachable(road, lane, x, y)             whether a lane change there may begin
    left_of, right_of(road, lane)           the lane beside, or -1
    same_road(road, a, b)                   whether two lanes are of one road
    speed_limit(road, lane)                 m/s
    gap(world, road, w, i, j)               distance from i to j along i's lane, centre to centre
    onward(world, road, w, i)               the lane to steer to, after the end of the present one where that is passed
    sort(world, w)                          slots along the road, where that is what neighbours are found by
    front, rear(world, road, w, i, lane)    the slot ahead of and behind i on a lane, or -1
    """
    World = world_struct(real)

    @wp.struct
    class Road:
        lanes: wp.int32
        lane_width: real
        length: real
        speed_limit: real

    end_margin, side_margin = real(END_MARGIN), real(SIDE_MARGIN)
    half, two, zero = real(0.5), real(2.0), real(0.0)

    @wp.func
    def closest_lane(road: Road, x: real, y: real, heading: real) -> int:
        # All lanes have one heading, so the nearest centre line decides. The first of two equally close lanes, as an
        # argmin takes it: a vehicle on the line belongs to the left lane.
        return wp.clamp(int(wp.ceil(y / road.lane_width - half)), 0, road.lanes - 1)

    @wp.func
    def along(road: Road, lane: int, x: real, y: real) -> real:
        return x

    @wp.func
    def lateral(road: Road, lane: int, x: real, y: real) -> real:
        return y - real(lane) * road.lane_width

    @wp.func
    def heading_at(road: Road, lane: int, s: real) -> real:
        return zero

    @wp.func
    def left_of(road: Road, lane: int) -> int:
        return lane - 1

    @wp.func
    def right_of(road: Road, lane: int) -> int:
        return wp.where(lane < road.lanes - 1, lane + 1, -1)

    @wp.func
    def same_road(road: Road, a: int, b: int) -> bool:
        return True

    @wp.func
    def speed_limit(road: Road, lane: int) -> real:
        return road.speed_limit

    @wp.func
    def gap(world: World, road: Road, w: int, i: int, j: int) -> real:
        return world.x[w, j] - world.x[w, i]

    @wp.func
    def onward(world: World, road: Road, w: int, i: int) -> int:
        return world.target_lane[w, i]

    @wp.func
    def within_ends(road: Road, x: real, before: real) -> bool:
        return x >= -before and x < road.length + end_margin

    @wp.func
    def on_lane(road: Road, lane: int, x: real, y: real, margin: real) -> bool:
        return wp.abs(lateral(road, lane, x, y)) <= road.lane_width * half + margin and within_ends(road, x, end_margin)

    @wp.func
    def reachable(road: Road, lane: int, x: real, y: real) -> bool:
        return wp.abs(lateral(road, lane, x, y)) <= two * road.lane_width and within_ends(road, x, zero)

    @wp.func
    def sort(world: World, w: int):
        # Insertion sort: between two frames hardly any two vehicles change places.
        for a in range(1, world.slots):
            slot = world.order[w, a]
            x = world.x[w, slot]
            b = int(a - 1)
            while b >= 0:
                other = world.order[w, b]
                x_other = world.x[w, other]
                if x_other > x or (x_other == x and other > slot):
                    world.order[w, b + 1] = other
                    b = b - 1
                else:
                    break
            world.order[w, b + 1] = slot
        for a in range(world.slots):
            world.rank[w, world.order[w, a]] = a

    @wp.func
    def neighbour_here(world: World, road: Road, w: int, i: int, j: int, lane: int) -> bool:
        return j != i and world.kind[w, j] != 0 and on_lane(road, lane, world.x[w, j], world.y[w, j], side_margin)

    @wp.func
    def front(world: World, road: Road, w: int, i: int, lane: int) -> int:
        """The vehicle ahead of i on a lane; level counts as ahead, and of several level the last slot (highway-env)."""
        x = world.x[w, i]
        r = int(world.rank[w, i])
        while r > 0 and world.x[w, world.order[w, r - 1]] == x:
            r = r - 1
        found = int(-1)
        while r < world.slots:
            j = world.order[w, r]
            if found >= 0 and world.x[w, j] > world.x[w, found]:
                break
            if neighbour_here(world, road, w, i, j, lane):
                found = j
            r = r + 1
        return found

    @wp.func
    def rear(world: World, road: Road, w: int, i: int, lane: int) -> int:
        """The vehicle behind i on a lane; of several level with each other the first slot (highway-env)."""
        x = world.x[w, i]
        r = int(world.rank[w, i] - 1)
        found = int(-1)
        while r >= 0:
            j = world.order[w, r]
            if found >= 0 and world.x[w, j] < world.x[w, found]:
                break
            if world.x[w, j] < x and neighbour_here(world, road, w, i, j, lane):
                found = j
            r = r - 1
        return found

    return Functions(
        Road=Road,
        closest_lane=closest_lane,
        along=along,
        lateral=lateral,
        heading_at=heading_at,
        left_of=left_of,
        right_of=right_of,
        same_road=same_road,
        speed_limit=speed_limit,
        gap=gap,
        onward=onward,
        on_lane=on_lane,
        reachable=reachable,
        sort=sort,
        front=front,
        rear=rear,
    )
