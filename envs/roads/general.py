"""Any road network, as the Warp functions that the laws are written against; see `envs.roads.parallel` for the list.

Every map of a batch lies in one table; lanes, roads and nodes are numbered through all maps. The closest lane is found
exactly, and yet without looking at most lanes: each cell of a grid over a map lists lanes by a lower bound of their
distance, and the search ends at the first bound above the best lane so far, which is mostly that of the last frame.
Neighbours are found by projecting every vehicle on the lane asked about.
"""

import functools
import math

import warp as wp

from envs.precision import Functions
from envs.roads import conflicts, signals
from envs.roads import lanes as lane_geometry
from envs.roads.lanes import CIRCULAR, SINE, STRAIGHT
from envs.roads.parallel import END_MARGIN, SIDE_MARGIN, Surroundings
from envs.state import LANDMARK, world_struct

SORTED = False
CELL_REACH = 12.0  # m, lanes whose bound is above this are not listed; points that far from a lane search all
ALONE = 1.0  # m: a vehicle of lower cost than this on a stretch of lane with no other near it can be on no other
# At this distance before a lane's end a driver steers to the next one (highway-env: half a car's length).
HAND_OVER = 2.5
# A road on a route and the place to take on it, in one number; place 0 stands for "any".
PLACES = 64


@functools.cache
def build(real: type) -> Functions:
    """Struct `Road` and the functions of a road module, with `next_road` and `position` for scenarios."""
    World = world_struct(real)
    geometry = lane_geometry.build(real)
    Lanes, local_coordinates, nearby, vec2 = (
        geometry.Lanes,
        geometry.local_coordinates,
        geometry.nearby,
        geometry.vec2,
    )
    end_margin, side_margin, hand_over, reach = real(END_MARGIN), real(SIDE_MARGIN), real(HAND_OVER), real(CELL_REACH)
    half, one, two, zero, pi = real(0.5), real(1.0), real(2.0), real(0.0), real(math.pi)
    two_pi, alone = real(2.0 * math.pi), real(ALONE)
    landmark, places, circular, straight, sine = LANDMARK, PLACES, CIRCULAR, STRAIGHT, SINE

    @wp.struct
    class Pair:
        """The vehicles closest to a place on a lane so far."""

        ahead: wp.int32
        behind: wp.int32
        s_ahead: real
        s_behind: real

    Ways, Plans = conflicts.build(real).Ways, signals.build(real).Plans

    @wp.struct
    class OfLane:
        """What the network knows of a lane beside its shape."""

        alone_from: real  # m; from this s to the next no other lane is closer to who is within ALONE
        alone_to: real  # m
        road: wp.int32
        place: wp.int32  # on the road, from the left
        forbidden: wp.int32
        priority: wp.int32
        link_first: wp.int32  # where its connections begin
        link_end: wp.int32

    @wp.struct
    class Road:
        lanes: Lanes
        ways: Ways  # through junctions
        plans: Plans  # of signals
        connected: wp.int32  # whether neighbours are sought on connected lanes too
        longest: real  # m, half a diagonal that nothing on the road exceeds
        rules: wp.int32  # whether there are signals, junctions with rules or people
        unused: wp.int32  # whether nobody needs to know who is on which lane
        of_lane: wp.array(dtype=OfLane)  # [lane]
        link_lane: wp.array(dtype=wp.int32)  # [connection]
        link_offset: wp.array(dtype=real)  # [connection] m, what turns its s into the lane's
        road_lane: wp.array(dtype=wp.int32)  # [road] its leftmost lane
        road_lanes: wp.array(dtype=wp.int32)  # [road] how many
        road_from: wp.array(dtype=wp.int32)  # [road] node
        road_to: wp.array(dtype=wp.int32)  # [road] node
        node_first: wp.array(dtype=wp.int32)  # [node + 1] where the roads that leave a node begin in `node_road`
        node_road: wp.array(dtype=wp.int32)
        hop: wp.array2d(dtype=wp.int32)  # [node, destination] the road to take, -1 where there is none
        map_lane: wp.array(dtype=wp.int32)  # [map + 1] a map's first lane
        map_cell: wp.array(dtype=wp.int32)  # [map] its first cell
        map_columns: wp.array(dtype=wp.int32)  # [map] cells along x
        map_rows: wp.array(dtype=wp.int32)  # [map] cells along y
        map_x: wp.array(dtype=real)  # [map] m, the grid's corner
        map_y: wp.array(dtype=real)  # [map] m
        cells_per_metre: real  # one over the side of a cell, a power of two
        cell_first: wp.array(dtype=wp.int32)  # [cell + 1]
        cell_lane: wp.array(dtype=wp.int32)  # [entry] lanes by their bound
        cell_bound: wp.array(dtype=real)  # [entry] m
        yield_period: wp.int32  # frames between decisions on the right of way, 0 where there is none
        path: wp.array4d(dtype=real)  # [world, slot, time, (x, y, heading)] predicted for that
        scripts: wp.array3d(dtype=real)  # [case, slot, column] of staged cases, see `envs.physics.scripted`

    @wp.func
    def local(road: wp.ref[Road], lane: int, x: real, y: real) -> vec2:
        return local_coordinates(road.lanes, lane, x, y)

    @wp.func
    def local_of(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> vec2:
        """(s, r) of a vehicle on a lane; those on its own lane are known."""
        if lane == world.vehicle[w, i].lane:
            return vec2(world.vehicle[w, i].lane_s, world.vehicle[w, i].lane_r)
        return local_coordinates(road.lanes, lane, world.vehicle[w, i].x, world.vehicle[w, i].y)

    @wp.func
    def heading_at(road: wp.ref[Road], lane: int, s: real) -> real:
        return geometry.heading_at(road.lanes, lane, s)

    @wp.func
    def speed_limit(road: wp.ref[Road], lane: int) -> real:
        return road.lanes.lane[lane].speed_limit

    @wp.func
    def left_of(road: wp.ref[Road], lane: int) -> int:
        return wp.where(road.of_lane[lane].place > 0, lane - 1, -1)

    @wp.func
    def right_of(road: wp.ref[Road], lane: int) -> int:
        return wp.where(road.of_lane[lane].place < road.road_lanes[road.of_lane[lane].road] - 1, lane + 1, -1)

    @wp.func
    def same_road(road: wp.ref[Road], a: int, b: int) -> bool:
        return road.of_lane[a].road == road.of_lane[b].road

    @wp.func
    def within(road: wp.ref[Road], lane: int, place: vec2, margin: real) -> bool:
        """Whether (s, r) lies on the lane, `margin` beyond its edges included."""
        return (
            place[0] >= -end_margin
            and place[0] < road.lanes.lane[lane].length + end_margin
            and wp.abs(place[1]) <= geometry.width_at(road.lanes, lane, place[0]) * half + margin
        )

    @wp.func
    def on_lane(road: wp.ref[Road], lane: int, x: real, y: real, margin: real) -> bool:
        return within(road, lane, local_coordinates(road.lanes, lane, x, y), margin)

    @wp.func
    def reachable(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> bool:
        if road.of_lane[lane].forbidden != 0:
            return False
        place = local_of(world, road, w, i, lane)
        return (
            wp.abs(place[1]) <= two * geometry.width_at(road.lanes, lane, place[0])
            and place[0] >= zero
            and place[0] < road.lanes.lane[lane].length + end_margin
        )

    # --- the closest lane -----------------------------------------------------------------------------------------

    @wp.func
    def turn(angle: real) -> real:
        """Magnitude of an angle wrapped to [-pi, pi)."""
        a = wp.abs(angle)
        if a <= pi:
            return a
        return wp.abs(angle - two_pi * wp.floor((angle + pi) / two_pi))

    @wp.struct
    class Closeness:
        """How close a lane is: distance across and beyond the ends plus angle to it, and where on it."""

        cost: real
        s: real
        r: real

    @wp.func
    def far_away(cost: real) -> Closeness:
        result = Closeness()
        result.cost = cost
        return result

    @wp.func
    def closeness(road: wp.ref[Road], lane: int, x: real, y: real, heading: real, limit: real) -> Closeness:
        """Exact where the cost is within the limit, else of any cost above it."""
        length = road.lanes.lane[lane].length
        kind = road.lanes.lane[lane].kind
        if kind == circular:
            # Is it too far across for the angle around the centre to matter?
            dx = x - road.lanes.lane[lane].parameters[0]
            dy = y - road.lanes.lane[lane].parameters[1]
            radius = road.lanes.lane[lane].parameters[2]
            square = dx * dx + dy * dy
            outer = radius + limit
            inner = wp.max(radius - limit, zero)
            if square > outer * outer or square < inner * inner:
                return far_away(limit * two + half)
            if limit < one:
                # Is it more than a metre of arc beyond both ends? From the direction of the arc's middle.
                along = dx * road.lanes.lane[lane].parameters[5] + dy * road.lanes.lane[lane].parameters[6]
                edge = road.lanes.lane[lane].parameters[7]
                if along * wp.abs(along) < edge * wp.abs(edge) * square:
                    return far_away(two)
        elif kind == sine:
            dx = x - road.lanes.lane[lane].parameters[0]
            dy = y - road.lanes.lane[lane].parameters[1]
            a = road.lanes.lane[lane].parameters[2]
            b = road.lanes.lane[lane].parameters[3]
            ahead = dx * a + dy * b
            beyond = wp.max(ahead - length, zero) + wp.max(-ahead, zero)
            if beyond + wp.abs(dy * a - dx * b) > limit + wp.abs(road.lanes.lane[lane].parameters[4]):
                return far_away(limit * two + half)
        place = local_coordinates(road.lanes, lane, x, y)
        result = Closeness()
        result.s = place[0]
        result.r = place[1]
        result.cost = wp.abs(place[1]) + wp.max(place[0] - length, zero) + wp.max(-place[0], zero)
        if result.cost <= limit:
            result.cost = result.cost + turn(heading - geometry.heading_at(road.lanes, lane, place[0]))
        return result

    @wp.func(inline=False)
    def search_lane(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        """The closest of all lanes, of equally close ones the first, as an argmin."""
        x = world.vehicle[w, i].x
        y = world.vehicle[w, i].y
        heading = world.vehicle[w, i].heading
        here = world.vehicle[w, i].lane
        found = int(here)
        best = closeness(road, found, x, y, heading, real(1.0e9))
        least = best.cost
        s = best.s
        r = best.r
        if least >= alone or s <= road.of_lane[here].alone_from or s >= road.of_lane[here].alone_to:
            m = world.map[w]
            column = int(wp.floor((x - road.map_x[m]) * road.cells_per_metre))
            row = int(wp.floor((y - road.map_y[m]) * road.cells_per_metre))
            first = int(0)
            last = int(0)
            listed = column >= 0 and row >= 0 and column < road.map_columns[m] and row < road.map_rows[m]
            if listed:
                c = road.map_cell[m] + row * road.map_columns[m] + column
                first = road.cell_first[c]
                last = road.cell_first[c + 1]
            for e in range(first, last):
                if road.cell_bound[e] > least:
                    break
                lane = road.cell_lane[e]
                if lane != here:
                    other = closeness(road, lane, x, y, heading, least)
                    if other.cost < least or (other.cost == least and lane < found):
                        least = other.cost
                        s = other.s
                        r = other.r
                        found = lane
            if not listed or least > reach:
                for lane in range(road.map_lane[m], road.map_lane[m + 1]):
                    if lane != found:
                        other = closeness(road, lane, x, y, heading, least)
                        if other.cost < least or (other.cost == least and lane < found):
                            least = other.cost
                            s = other.s
                            r = other.r
                            found = lane
        world.vehicle[w, i].lane = found
        world.vehicle[w, i].lane_s = s
        world.vehicle[w, i].lane_r = r

    @wp.func
    def closest_lane(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        """Set the lane that the vehicle is on and its place on it."""
        if road.unused != 0 and world.frame[w] > 0:
            return
        here = world.vehicle[w, i].lane
        if road.lanes.lane[here].kind == straight:
            # Most are in the middle of a straight lane with no other near: no call, no search.
            dx = world.vehicle[w, i].x - road.lanes.lane[here].parameters[0]
            dy = world.vehicle[w, i].y - road.lanes.lane[here].parameters[1]
            a = road.lanes.lane[here].parameters[2]
            b = road.lanes.lane[here].parameters[3]
            s = dx * a + dy * b
            r = dy * a - dx * b
            off = wp.abs(r) + turn(world.vehicle[w, i].heading - road.lanes.lane[here].parameters[7])
            # A stretch with no other lane near lies between the ends.
            if off < alone and s > road.of_lane[here].alone_from and s < road.of_lane[here].alone_to:
                world.vehicle[w, i].lane_s = s
                world.vehicle[w, i].lane_r = r
                return
        search_lane(world, road, w, i)

    @wp.func
    def locate(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        """The same for a vehicle that has just been placed, from no lane known."""
        world.vehicle[w, i].lane = road.map_lane[world.map[w]]
        closest_lane(world, road, w, i)

    # --- routes ---------------------------------------------------------------------------------------------------

    @wp.func
    def distance(road: wp.ref[Road], lane: int, x: real, y: real) -> real:
        place = local_coordinates(road.lanes, lane, x, y)
        return wp.abs(place[1]) + wp.max(place[0] - road.lanes.lane[lane].length, zero) + wp.max(-place[0], zero)

    @wp.func
    def lane_on(road: wp.ref[Road], lane: int, ahead: int, place: int, x: real, y: real) -> int:
        """The lane of the road `ahead` that continues `lane`: the place asked for, else the same, else the closest."""
        first = road.road_lane[ahead]
        count = road.road_lanes[ahead]
        if count == road.road_lanes[road.of_lane[lane].road]:
            if place >= 0:
                return first + place
            return first + road.of_lane[lane].place
        found = int(first)
        least = distance(road, first, x, y)
        for k in range(1, count):
            d = distance(road, first + k, x, y)
            if d < least:
                least = d
                found = first + k
        return found

    @wp.func(inline=False)
    def next_lane(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int, s: real) -> int:
        """The lane after the end of `lane`: along the route where there is one, else the closest that follows."""
        here = road.of_lane[lane].road
        node = road.road_to[here]
        ahead = int(-1)
        place = int(-1)
        at = world.vehicle[w, i].route_at
        end = world.vehicle[w, i].route_end
        if at < end and world.route[w, i, at] / places == here:
            at = at + 1
            world.vehicle[w, i].route_at = at
        if at < end and road.road_from[world.route[w, i, at] / places] == node:
            ahead = world.route[w, i, at] / places
            place = world.route[w, i, at] % places - 1
        projected = geometry.position(road.lanes, lane, s, zero)
        if ahead >= 0:
            return lane_on(road, lane, ahead, place, projected[0], projected[1])
        found = int(lane)
        least = real(1.0e9)
        for k in range(road.node_first[node], road.node_first[node + 1]):
            candidate = lane_on(road, lane, road.node_road[k], -1, projected[0], projected[1])
            d = distance(road, candidate, projected[0], projected[1])
            if d < least:
                least = d
                found = candidate
        return found

    @wp.func
    def onward(world: wp.ref[World], road: wp.ref[Road], w: int, i: int) -> int:
        target = world.vehicle[w, i].target_lane
        s = local_of(world, road, w, i, target)[0]
        if s > road.lanes.lane[target].length - hand_over:
            target = next_lane(world, road, w, i, target, s)
        return target

    @wp.func
    def wrong_way(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> bool:
        """Whether a change to `lane` leads away from the place that the route asks for."""
        target = road.of_lane[world.vehicle[w, i].target_lane].place
        wanted = world.route[w, i, world.vehicle[w, i].route_at] % places - 1
        return wp.sign(real(road.of_lane[lane].place - target)) != wp.sign(real(wanted - target)) or wanted == target

    @wp.func
    def has_planned_place(world: wp.ref[World], w: int, i: int) -> bool:
        at = world.vehicle[w, i].route_at
        return at < world.vehicle[w, i].route_end and world.route[w, i, at] % places > 0

    @wp.func
    def follow_lane(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, y: real):
        closest_lane(world, road, w, i)

    # --- neighbours -----------------------------------------------------------------------------------------------

    @wp.func
    def gap(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int) -> real:
        lane = world.vehicle[w, i].lane
        return local_of(world, road, w, j, lane)[0] - world.vehicle[w, i].lane_s

    @wp.func
    def place_on(world: wp.ref[World], road: wp.ref[Road], w: int, j: int, lane: int) -> vec2:
        """(s, r) of a vehicle on a lane, far away where it is not on it for sure."""
        if lane == world.vehicle[w, j].lane:
            return vec2(world.vehicle[w, j].lane_s, world.vehicle[w, j].lane_r)
        beyond = road.lanes.lane[lane].width * half + side_margin
        return nearby(road.lanes, lane, world.vehicle[w, j].x, world.vehicle[w, j].y, beyond)

    @wp.func
    def rank_neighbour(world: wp.ref[World], w: int, j: int, s: real, s_j: real, best: Pair) -> Pair:
        """Keep j where it is closer; of several level with each other the last in order is ahead, the first behind."""
        pair = best
        if s <= s_j:
            if pair.ahead < 0 or s_j < pair.s_ahead:
                pair.ahead = j
                pair.s_ahead = s_j
            elif s_j == pair.s_ahead and world.vehicle[w, j].sequence > world.vehicle[w, pair.ahead].sequence:
                pair.ahead = j
        elif pair.behind < 0 or s_j > pair.s_behind:
            pair.behind = j
            pair.s_behind = s_j
        elif s_j == pair.s_behind and world.vehicle[w, j].sequence < world.vehicle[w, pair.behind].sequence:
            pair.behind = j
        return pair

    @wp.func(inline=False)
    def neighbours(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> wp.vec2i:
        """Slots ahead of and behind i on a lane, -1 for none; level counts as ahead (highway-env)."""
        s = local_of(world, road, w, i, lane)[0]
        pair = Pair()
        pair.ahead = -1
        pair.behind = -1
        begin = road.of_lane[lane].link_first
        end = wp.where(road.connected != 0, road.of_lane[lane].link_end, begin)
        straight_lane = road.lanes.lane[lane].kind == straight
        x0 = road.lanes.lane[lane].parameters[0]
        y0 = road.lanes.lane[lane].parameters[1]
        c = road.lanes.lane[lane].parameters[2]
        d = road.lanes.lane[lane].parameters[3]
        past = road.lanes.lane[lane].length + end_margin
        reach_across = road.lanes.lane[lane].width * half + side_margin
        for j in range(world.used[w]):
            if j == i:
                continue
            if straight_lane:
                dx = world.vehicle[w, j].x - x0
                dy = world.vehicle[w, j].y - y0
                s_j = dx * c + dy * d
                if s_j >= -end_margin and s_j < past and wp.abs(dy * c - dx * d) <= reach_across:
                    kind = world.vehicle[w, j].kind
                    if kind != 0 and kind < landmark:
                        pair = rank_neighbour(world, w, j, s, s_j, pair)
                    continue
                if begin == end:
                    continue
            other = world.vehicle[w, j].kind
            if other != 0 and other < landmark:
                # The lane itself, then those connected to it; the first that holds the vehicle decides.
                if not straight_lane:
                    place = place_on(world, road, w, j, lane)
                    if within(road, lane, place, side_margin):
                        pair = rank_neighbour(world, w, j, s, place[0], pair)
                        continue
                for k in range(begin, end):
                    linked = place_on(world, road, w, j, road.link_lane[k])
                    if within(road, road.link_lane[k], linked, side_margin):
                        pair = rank_neighbour(world, w, j, s, linked[0] + road.link_offset[k], pair)
                        break
        return wp.vec2i(pair.ahead, pair.behind)

    @wp.func
    def behind(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int, near: wp.vec2i) -> int:
        return near[1]

    @wp.func
    def surroundings(
        world: wp.ref[World], road: wp.ref[Road], w: int, i: int, left: int, own: int, right: int
    ) -> Surroundings:
        """`neighbours` on up to three lanes; a lane of -1 has none."""
        near = Surroundings()
        near.own = neighbours(world, road, w, i, own)
        if left >= 0:
            near.left = neighbours(world, road, w, i, left)
        if right >= 0:
            near.right = neighbours(world, road, w, i, right)
        return near

    @wp.func
    def front(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> int:
        """The first of `neighbours`. On a straight lane that is looked at alone, nobody behind has to be ranked."""
        alone_lane = road.connected == 0 or road.of_lane[lane].link_first == road.of_lane[lane].link_end
        if road.lanes.lane[lane].kind != straight or not alone_lane:
            return neighbours(world, road, w, i, lane)[0]
        x0 = road.lanes.lane[lane].parameters[0]
        y0 = road.lanes.lane[lane].parameters[1]
        c = road.lanes.lane[lane].parameters[2]
        d = road.lanes.lane[lane].parameters[3]
        best = road.lanes.lane[lane].length + end_margin
        reach_across = road.lanes.lane[lane].width * half + side_margin
        low = wp.max(local_of(world, road, w, i, lane)[0], -end_margin)
        found = int(-1)
        for j in range(world.used[w]):
            dx = world.vehicle[w, j].x - x0
            dy = world.vehicle[w, j].y - y0
            s_j = dx * c + dy * d
            if s_j >= low and s_j <= best and wp.abs(dy * c - dx * d) <= reach_across and j != i:
                kind = world.vehicle[w, j].kind
                if kind != 0 and kind < landmark:
                    nearer = bool(s_j < best)
                    if found >= 0:
                        nearer = nearer or world.vehicle[w, j].sequence > world.vehicle[w, found].sequence
                    if nearer:
                        found = j
                        best = s_j
        return found

    @wp.func
    def sort(world: wp.ref[World], w: int):
        # Neighbours are not found by order here.
        return

    # Inlined everywhere, functions of this size make kernels that no instruction cache holds.
    return Functions(
        inline=False,
        Road=Road,
        OfLane=OfLane,
        vec2=vec2,
        position=geometry.position,
        local=local,
        local_of=local_of,
        heading_at=heading_at,
        speed_limit=speed_limit,
        left_of=left_of,
        right_of=right_of,
        same_road=same_road,
        within=within,
        on_lane=on_lane,
        reachable=reachable,
        closest_lane=closest_lane,
        follow_lane=follow_lane,
        locate=locate,
        onward=onward,
        wrong_way=wrong_way,
        has_planned_place=has_planned_place,
        gap=gap,
        neighbours=neighbours,
        surroundings=surroundings,
        behind=behind,
        front=front,
        sort=sort,
    )
