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

SORTED = True
LANE_WIDTH = 4.0
# Before a lane's start and past its end a vehicle of this length still counts as on it (highway-env's VEHICLE_LENGTH).
END_MARGIN = 5.0
# Neighbours are sought this far beyond the edges of a lane (highway-env's margin).
SIDE_MARGIN = 1.0
TRACKED = 4  # lanes of a road on which the leaders of all vehicles are found in one sweep


@wp.struct
class Surroundings:
    """The slots ahead and behind on a vehicle's lane and those beside it, -1 where there is none."""

    left: wp.vec2i
    own: wp.vec2i
    right: wp.vec2i


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

    def polylines(self) -> list[tuple[np.ndarray, str, str, float]]:
        """Each lane's centre line with the styles of its left and right markings and its width.

        Returns:
            A list of (points [P, 2] in m, left style, right style, width in m); a style is "solid", "dashed" or "none".
        """
        return [
            (
                np.array([[0.0, self.lane_center(lane)], [self.length, self.lane_center(lane)]]),
                "solid" if lane == 0 else "dashed",
                "solid" if lane == self.lanes - 1 else "none",
                self.lane_width,
            )
            for lane in range(self.lanes)
        ]


@functools.cache
def build(real: type) -> Functions:
    """Struct `Road` and the Warp functions that every road module offers; lanes are numbers, distances in m.

    closest_lane(world, road, w, i)         set the lane that a vehicle is on, from that of the last frame
    local(road, lane, x, y)                 (s, r) of a point: along the lane, and to the right of its centre line
    local_of(world, road, w, i, lane)       the same of a vehicle
    heading_at(road, lane, s)               direction of the centre line
    on_lane(road, lane, x, y, margin)       whether a point lies on the lane, `margin` beyond its edges included
    reachable(world, road, w, i, lane)      whether a change to the lane may begin
    left_of, right_of(road, lane)           the lane beside, or -1
    same_road(road, a, b)                   whether two lanes are of one road
    speed_limit(road, lane)                 m/s
    gap(world, road, w, i, j)               distance from i to j along i's lane, centre to centre
    onward(world, road, w, i)               the lane to steer to, after the end of the present one where that is passed
    has_planned_place(world, w, i)          whether the route asks for a place on the present road
    wrong_way(world, road, w, i, lane)      whether a change to the lane leads away from that place
    sort(world, w)                          slots along the road, where that is what neighbours are found by
    front(world, road, w, i, lane)          the slot ahead of i on a lane, -1 where there is none
    surroundings(world, road, w, i, left, own, right)     the slots ahead and behind on up to three lanes, -1 being no
                                            lane; who is behind may be left out
    behind(world, road, w, i, lane, near)   who that is, where `near` are the surroundings on that lane
    follow_lane(world, road, w, i, y)       `closest_lane` after a frame of motion, before which i was at y across

    This road alone also offers `Frontmost`, `nobody`, `front_at` and `pass_by`: the slots ahead of all vehicles, found
    in one sweep from the first on the road to the last.
    """
    World = world_struct(real)
    vec_tracked, vec_tracked_int = wp.types.vector(TRACKED, real), wp.types.vector(TRACKED, wp.int32)
    vec2 = wp.vec2f if real is wp.float32 else wp.vec2d

    @wp.struct
    class Road:
        lanes: wp.int32
        lane_width: real
        length: real
        speed_limit: real
        rules: wp.int32  # 0: nothing but driving

    @wp.struct
    class Frontmost:
        """Who comes first on each lane, of all that are ahead of a place on the road; -1 is nobody."""

        slot: vec_tracked_int
        x: vec_tracked

    end_margin, side_margin, tracked = real(END_MARGIN), real(SIDE_MARGIN), TRACKED
    half, two, zero = real(0.5), real(2.0), real(0.0)

    @wp.func
    def closest_lane(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        # All lanes have one heading, so the nearest centre line decides. The first of two equally close lanes, as an
        # argmin takes it: a vehicle on the line belongs to the left lane.
        place = wp.ceil(world.vehicle[w, i].y / road.lane_width - half)
        world.vehicle[w, i].lane = wp.clamp(int(place), 0, road.lanes - 1)

    @wp.func
    def follow_lane(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, y: real):
        # Most drive along the middle of a lane, and are on the same one still.
        if world.vehicle[w, i].y != y:
            closest_lane(world, road, w, i)

    @wp.func
    def lateral(road: wp.ref[Road], lane: int, y: real) -> real:
        return y - real(lane) * road.lane_width

    @wp.func
    def local(road: wp.ref[Road], lane: int, x: real, y: real) -> vec2:
        return vec2(x, lateral(road, lane, y))

    @wp.func
    def local_of(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> vec2:
        return local(road, lane, world.vehicle[w, i].x, world.vehicle[w, i].y)

    @wp.func
    def heading_at(road: wp.ref[Road], lane: int, s: real) -> real:
        return zero

    @wp.func
    def left_of(road: wp.ref[Road], lane: int) -> int:
        return lane - 1

    @wp.func
    def right_of(road: wp.ref[Road], lane: int) -> int:
        return wp.where(lane < road.lanes - 1, lane + 1, -1)

    @wp.func
    def same_road(road: wp.ref[Road], a: int, b: int) -> bool:
        return True

    @wp.func
    def speed_limit(road: wp.ref[Road], lane: int) -> real:
        return road.speed_limit

    @wp.func
    def gap(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int) -> real:
        return world.vehicle[w, j].x - world.vehicle[w, i].x

    @wp.func
    def onward(world: wp.ref[World], road: wp.ref[Road], w: int, i: int) -> int:
        return world.vehicle[w, i].target_lane

    @wp.func
    def within_ends(road: wp.ref[Road], x: real, before: real) -> bool:
        return x >= -before and x < road.length + end_margin

    @wp.func
    def on_lane(road: wp.ref[Road], lane: int, x: real, y: real, margin: real) -> bool:
        return wp.abs(lateral(road, lane, y)) <= road.lane_width * half + margin and within_ends(road, x, end_margin)

    @wp.func
    def reachable(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> bool:
        across = lateral(road, lane, world.vehicle[w, i].y)
        return wp.abs(across) <= two * road.lane_width and within_ends(road, world.vehicle[w, i].x, zero)

    @wp.func
    def has_planned_place(world: wp.ref[World], w: int, i: int) -> bool:
        return False

    @wp.func
    def wrong_way(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> bool:
        return False

    @wp.func
    def sort(world: wp.ref[World], w: int):
        # Insertion sort: between two frames hardly any two vehicles change places.
        highest = int(world.vehicle[w, 0].order)
        top = world.vehicle[w, highest].x
        for a in range(1, world.slots):
            slot = world.vehicle[w, a].order
            x = world.vehicle[w, slot].x
            if top < x or (top == x and highest < slot):
                highest = slot
                top = x
                continue
            b = int(a - 1)
            while b >= 0:
                other = world.vehicle[w, b].order
                x_other = world.vehicle[w, other].x
                if x_other > x or (x_other == x and other > slot):
                    world.vehicle[w, b + 1].order = other
                    world.vehicle[w, other].rank = b + 1
                    b = b - 1
                else:
                    break
            world.vehicle[w, b + 1].order = slot
            world.vehicle[w, slot].rank = b + 1

    @wp.func
    def neighbour_here(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int, lane: int) -> bool:
        return (
            j != i
            and world.vehicle[w, j].kind != 0
            and on_lane(road, lane, world.vehicle[w, j].x, world.vehicle[w, j].y, side_margin)
        )

    @wp.func
    def front(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> int:
        """The vehicle ahead of i on a lane; level counts as ahead, and of several level the last slot (highway-env)."""
        x = world.vehicle[w, i].x
        r = int(world.vehicle[w, i].rank)
        while r > 0 and world.vehicle[w, world.vehicle[w, r - 1].order].x == x:
            r = r - 1
        found = int(-1)
        while r < world.slots:
            j = world.vehicle[w, r].order
            if found >= 0 and world.vehicle[w, j].x > world.vehicle[w, found].x:
                break
            if neighbour_here(world, road, w, i, j, lane):
                found = j
            r = r + 1
        return found

    @wp.func
    def front_at(
        world: wp.ref[World], road: wp.ref[Road], w: int, r: int, lane: int, frontmost: wp.ref[Frontmost]
    ) -> int:
        """`front` of the vehicle of rank r on its lane, from who comes first of all that have a higher rank."""
        i = world.vehicle[w, r].order
        if lane >= tracked:
            return front(world, road, w, i, lane)
        if r > 0:
            if world.vehicle[w, world.vehicle[w, r - 1].order].x == world.vehicle[w, i].x:
                return front(world, road, w, i, lane)
        # By constants alone: what is looked up by a variable is not kept in registers.
        found = int(-1)
        for k in range(tracked):
            found = wp.where(k == lane, frontmost.slot[k], found)
        return found

    @wp.func
    def pass_by(world: wp.ref[World], road: wp.ref[Road], w: int, j: int, frontmost: wp.ref[Frontmost]):
        """Let j come first, on every lane that it is on; of several level with each other the last slot stays."""
        x = world.vehicle[w, j].x
        if world.vehicle[w, j].kind == 0 or not within_ends(road, x, end_margin):
            return
        y = world.vehicle[w, j].y
        reach = road.lane_width * half + side_margin
        for k in range(tracked):
            here = wp.abs(lateral(road, k, y)) <= reach and (frontmost.slot[k] < 0 or frontmost.x[k] != x)
            frontmost.slot[k] = wp.where(here, j, frontmost.slot[k])
            frontmost.x[k] = wp.where(here, x, frontmost.x[k])

    @wp.func
    def nobody() -> Frontmost:
        frontmost = Frontmost()
        for lane in range(tracked):
            frontmost.slot[lane] = -1
        return frontmost

    @wp.func
    def rear(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> int:
        """The vehicle behind i on a lane; of several level with each other the first slot (highway-env)."""
        x = world.vehicle[w, i].x
        r = int(world.vehicle[w, i].rank - 1)
        found = int(-1)
        while r >= 0:
            j = world.vehicle[w, r].order
            if found >= 0 and world.vehicle[w, j].x < world.vehicle[w, found].x:
                break
            if world.vehicle[w, j].x < x and neighbour_here(world, road, w, i, j, lane):
                found = j
            r = r - 1
        return found

    @wp.func
    def surroundings(
        world: wp.ref[World], road: wp.ref[Road], w: int, i: int, left: int, own: int, right: int
    ) -> Surroundings:
        # Who is behind is sought when it is asked for.
        near = Surroundings()
        near.own = wp.vec2i(front(world, road, w, i, own), -1)
        if left >= 0:
            near.left = wp.vec2i(front(world, road, w, i, left), -1)
        if right >= 0:
            near.right = wp.vec2i(front(world, road, w, i, right), -1)
        return near

    @wp.func
    def behind(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int, near: wp.vec2i) -> int:
        return rear(world, road, w, i, lane)

    return Functions(
        inline=None,
        Road=Road,
        vec2=vec2,
        closest_lane=closest_lane,
        follow_lane=follow_lane,
        local=local,
        local_of=local_of,
        heading_at=heading_at,
        left_of=left_of,
        right_of=right_of,
        same_road=same_road,
        speed_limit=speed_limit,
        gap=gap,
        onward=onward,
        on_lane=on_lane,
        reachable=reachable,
        has_planned_place=has_planned_place,
        wrong_way=wrong_way,
        sort=sort,
        front=front,
        Frontmost=Frontmost,
        front_at=front_at,
        pass_by=pass_by,
        nobody=nobody,
        surroundings=surroundings,
        behind=behind,
    )


def table(roads: list[ParallelRoad], dtype: str, device: str, connected: bool = False, destinations: None = None):
    """The `Road` struct of the one road, which leads nowhere and connects to nothing."""
    (road,) = roads
    result = build(wp.float32 if dtype == "float32" else wp.float64).Road()
    result.lanes, result.lane_width = road.lanes, road.lane_width
    result.length, result.speed_limit = road.length, road.speed_limit
    return result
