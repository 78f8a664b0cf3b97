"""Junctions: signals that switch, and drivers who wait for them and for each other.

Once a frame every world goes through its vehicles in turn (`advance`): which way through a junction each one heads for
or is on, and, for those before it, whether they may go. A driver may go on when its light is green, no vehicle that has
committed itself to a conflicting way has yet to clear it, none with right of way would be there before it has cleared,
and there is room behind the junction. Right of way: green over permissive, then the lane's priority, then who is
nearer, then the lower slot: a strict order, so that of those who wait for each other one can always go.

Who may go and could no longer stop in comfort has committed itself, and is never stopped before the junction again.
The others are asked again in every frame. As vehicles are asked one after the other, two are never committed to
conflicting ways at once, whatever the signals show; and as those who may not go brake in time (`hold`), nobody enters
without. Agents are not held: they count as committed once they could not stop, and drivers wait for them as for others.

A vehicle's field `yields` is its way and how far it has got: stage + STAGES * way, 0 far from any junction. The lane
changes that highway-env's drivers like to make are forbidden on the ways themselves.
"""

import functools

import warp as wp

from envs.physics import signals
from envs.precision import Functions
from envs.roads.general import PLACES
from envs.roads.signals import AMBER, GREEN, RED
from envs.state import IDM, META, OBSTACLE, world_struct

# Gives way; cannot go for a light, a queue or want of room; may go; goes; is inside; the same, past a red light.
NONE, WAITS, BLOCKED, GRANTED, COMMITTED, INSIDE, RAN_RED = range(7)
STAGES = 8

SIGHT = 100.0  # m before a junction in which vehicles are reckoned with
REACH = 50.0  # m before it in which drivers brake for it
COMFORT = 3.0  # m/s2: who would have to brake harder than this goes on
GENTLE = 2.0  # m/s2: who would not even have to brake like this may count on others to be gone in time
HARD = 4.5  # m/s2: who would have to brake harder than this cannot stop for an amber light that will not last
AGENT = 4.0  # m/s2, an agent that would have to brake harder than this is taken to go on
PICK_UP = 2.0  # m/s2, acceleration that times of arrival and of clearing are reckoned with
MARGIN = 1.0  # s between one vehicle's clearing and the next one's arrival
ROOM = 2.5  # m in front of each vehicle that will stand behind a junction
OUTLOOK = 4.0  # s, by what the last vehicle behind the junction drives in this time the room there grows
STANDS = 0.5  # m/s
DETECTOR = 30.0  # m before the line, where traffic extends an actuated green


@functools.cache
def build(real: type, road_functions, law) -> Functions:
    """`advance` and `hold`, see `envs.physics.ruled`, and for scenarios

    start(world, road, w, late)     begin every plan of the map, `late` seconds into it beside its own offset
    stage(world, w, i)              how far a vehicle has got, one of the stages
    ran_red(world, w, i)            whether it has run a red light since that was last asked
    """
    World, Road, Driver = world_struct(real), road_functions.Road, law.Driver
    local_of, position = road_functions.local_of, road_functions.position
    lights = signals.build(real, road_functions)
    idm, meta, obstacle, places = IDM, META, OBSTACLE, PLACES
    red, amber, green = RED, AMBER, GREEN
    waits, blocked, granted, committed, inside, ran, stages = (
        WAITS, BLOCKED, GRANTED, COMMITTED, INSIDE, RAN_RED, STAGES,
    )  # fmt: skip
    sight, reach, margin, room, outlook, stands = (real(k) for k in (SIGHT, REACH, MARGIN, ROOM, OUTLOOK, STANDS))
    comfort, gentle, hard, agent_braking, pick_up = (real(k) for k in (COMFORT, GENTLE, HARD, AGENT, PICK_UP))
    detector, entered = real(DETECTOR), real(1.25)
    zero, half, one, two, far = real(0.0), real(0.5), real(1.0), real(2.0), real(1.0e9)

    # --- where vehicles are and where they go --------------------------------------------------------------------

    @wp.func
    def steered_lane(world: wp.ref[World], w: int, i: int) -> int:
        if world.vehicle[w, i].kind == idm or world.vehicle[w, i].kind == meta:
            return world.vehicle[w, i].target_lane
        return world.vehicle[w, i].lane

    @wp.func
    def following(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int, step: int) -> wp.vec2i:
        """The lane after `lane` from that step of i's route on, -1 where the road ends, and the step after that."""
        here = road.of_lane[lane].road
        node = road.road_to[here]
        at = int(step)
        ahead = int(-1)
        place = int(-1)
        if at < world.vehicle[w, i].route_end and world.route[w, i, at] / places == here:
            at = at + 1
        if at < world.vehicle[w, i].route_end and road.road_from[world.route[w, i, at] / places] == node:
            ahead = world.route[w, i, at] / places
            place = world.route[w, i, at] % places - 1
        end = position(road.lanes, lane, road.lanes.lane[lane].length, zero)
        found = int(-1)
        least = real(far)
        for k in range(road.node_first[node], road.node_first[node + 1]):
            candidate = road.node_road[k]
            if ahead < 0 or candidate == ahead:
                first = road.road_lane[candidate]
                count = road.road_lanes[candidate]
                if count == road.road_lanes[here]:
                    # Places go on, unless the route asks for another.
                    first = first + wp.where(place >= 0, place, road.of_lane[lane].place)
                    count = 1
                for n in range(first, first + count):
                    start = position(road.lanes, n, zero, zero)
                    away = wp.length_sq(start - end)
                    if away < least:
                        least = away
                        found = n
        return wp.vec2i(found, at)

    @wp.func
    def travelled(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, way: int) -> real:
        """Place of a vehicle's centre along the way that it takes, negative before it [m]."""
        lane = steered_lane(world, w, i)
        s = local_of(world, road, w, i, lane)[0]
        if road.ways.of_lane[lane] == way:
            return s + road.ways.shift[lane]
        if road.road_to[road.of_lane[lane].road] == road.road_from[road.of_lane[way].road]:
            return s - road.lanes.lane[lane].length
        return s + road.ways.length[way]

    @wp.func
    def note(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        """Set a vehicle's way, and whether it is inside."""
        if world.vehicle[w, i].kind == 0 or world.vehicle[w, i].kind >= obstacle:
            return
        record = world.vehicle[w, i].yields
        stage = record % stages
        way = record / stages
        lane = steered_lane(world, w, i)
        on = road.ways.of_lane[lane]
        reach_ahead = half * world.vehicle[w, i].length
        if stage >= inside and (on < 0 or on == way):
            if travelled(world, road, w, i, way) - reach_ahead <= road.ways.clear[way]:
                return
        s = local_of(world, road, w, i, lane)[0]
        found = int(-1)
        front = real(0.0)
        if on >= 0:
            front = s + road.ways.shift[lane] + reach_ahead
            if front - world.vehicle[w, i].length <= road.ways.clear[on]:
                found = on
        elif road.ways.ahead[lane] != 0 and s > road.lanes.lane[lane].length - sight:
            ahead = following(world, road, w, i, lane, world.vehicle[w, i].route_at)[0]
            if ahead >= 0 and road.ways.of_lane[ahead] >= 0:
                found = ahead
                front = s - road.lanes.lane[lane].length + reach_ahead
        if found < 0:
            world.vehicle[w, i].yields = 0
        elif front > road.ways.wait[found] + entered:
            head = road.ways.head[found]
            stopped = way == found and stage >= waits and stage <= committed and head >= 0
            if stopped and world.signal[w, wp.max(head, 0)] == red:
                world.vehicle[w, i].yields = ran + stages * found
                if i == 0:
                    world.red_lights[w] = world.red_lights[w] + 1
            else:
                world.vehicle[w, i].yields = inside + stages * found
        elif way != found or stage == 0 or stage >= inside:
            world.vehicle[w, i].yields = waits + stages * found

    # --- who may go ----------------------------------------------------------------------------------------------

    @wp.func
    def duration(distance: real, speed: real, top: real) -> real:
        """Time over a distance for who accelerates to `top`, or keeps its speed if that is higher [s]."""
        if distance <= zero:
            return zero
        if speed >= top:
            return distance / speed
        rise = (top * top - speed * speed) / (two * pick_up)
        if distance < rise:
            return (wp.sqrt(speed * speed + two * pick_up * distance) - speed) / pick_up
        return (top - speed) / pick_up + (distance - rise) / top

    @wp.func
    def arrival(world: wp.ref[World], road: wp.ref[Road], w: int, j: int, way: int, distance: real) -> real:
        """When a front bumper so far from a point may be there: a driver may speed up, an agent keeps its speed [s]."""
        speed = wp.max(world.vehicle[w, j].speed, zero)
        if world.vehicle[w, j].kind != idm:
            return wp.max(distance, zero) / wp.max(speed, real(0.1))
        limit = wp.max(road.lanes.lane[way].speed_limit, road.lanes.lane[steered_lane(world, w, j)].speed_limit)
        return duration(distance, speed, limit)

    @wp.func
    def clearing(world: wp.ref[World], road: wp.ref[Road], w: int, j: int, way: int, distance: real) -> real:
        """When its rear will be past a point so far ahead of it [s]."""
        limit = road.lanes.lane[way].speed_limit
        return duration(distance, wp.clamp(world.vehicle[w, j].speed, zero, limit), limit)

    @wp.func
    def rank(world: wp.ref[World], road: wp.ref[Road], w: int, way: int) -> int:
        head = road.ways.head[way]
        protected = bool(False)
        if head >= 0:
            protected = world.signal[w, head] == green
        return road.of_lane[way].priority + wp.where(protected, 1000, 0)

    @wp.func
    def conflict_of(road: wp.ref[Road], way: int, other: int) -> int:
        for k in range(road.ways.first[way], road.ways.first[way + 1]):
            if road.ways.other[k] == other:
                return k
        return -1

    @wp.func
    def is_let_by(
        world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int, way: int, k: int, s: real, t: real, firm: bool
    ) -> bool:
        """Whether i, at s on its way, need not wait for j, at t on the way of conflict k."""
        record = world.vehicle[w, j].yields
        stage = record % stages
        other = record / stages
        half_i = half * world.vehicle[w, i].length
        half_j = half * world.vehicle[w, j].length
        left = road.ways.other_ends[k] + half_j - t
        if left < zero or stage == blocked:
            return True
        behind = clearing(world, road, w, j, other, left) + margin < arrival(
            world, road, w, i, way, road.ways.begins[k] - half_i - s
        )
        if stage >= committed:
            return behind and not firm
        mine = rank(world, road, w, way)
        theirs = rank(world, road, w, other)
        nearer = road.ways.wait[way] - half_i - s - (road.ways.wait[other] - half_j - t)
        if mine > theirs or (mine == theirs and (nearer < zero or (nearer == zero and i < j))):
            return True
        before = clearing(world, road, w, i, way, road.ways.ends[k] + half_i - s) + margin < arrival(
            world, road, w, j, other, road.ways.other_begins[k] - half_j - t
        )
        return before or (behind and not firm)

    @wp.func
    def verdict(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, way: int, s: real) -> int:
        """Whether a vehicle whose centre is at s on its way may go, gives way or cannot go."""
        head = road.ways.head[way]
        if head >= 0:
            if world.signal[w, head] == red or world.signal[w, head] == amber:
                return blocked
        speed = world.vehicle[w, i].speed
        rest = road.ways.wait[way] - half * world.vehicle[w, i].length - s
        firm = speed * speed >= two * gentle * wp.max(rest, zero)
        lane = steered_lane(world, w, i)
        onto = road.ways.onto[way]
        # Room behind the junction: what is free there, and what those need who will be there before.
        free = real(far)
        needed = world.vehicle[w, i].length + room
        result = int(granted)
        for j in range(world.slots):
            if j != i and world.vehicle[w, j].kind != 0 and world.vehicle[w, j].kind < obstacle:
                record = world.vehicle[w, j].yields
                stage = record % stages
                other = record / stages
                tail = -half * world.vehicle[w, j].length + outlook * wp.max(world.vehicle[w, j].speed, zero)
                lane_j = steered_lane(world, w, j)
                if stage == 0:
                    if lane_j == onto:
                        free = wp.min(free, local_of(world, road, w, j, lane_j)[0] + tail)
                else:
                    t = travelled(world, road, w, j, other)
                    if stage < inside and lane_j == lane and t > s:
                        agent = world.vehicle[w, j].kind != idm
                        if stage <= blocked or (agent and world.vehicle[w, j].speed < stands):
                            return blocked
                    if onto >= 0 and road.ways.onto[other] == onto:
                        if t > road.ways.length[other]:
                            free = wp.min(free, t - road.ways.length[other] + tail)
                        elif stage >= inside or (stage >= granted and (lane_j != lane or t > s)):
                            needed = needed + world.vehicle[w, j].length + room
                    elif lane_j == onto:
                        free = wp.min(free, local_of(world, road, w, j, lane_j)[0] + tail)
                    k = conflict_of(road, way, other)
                    if k >= 0 and result == granted:
                        if not is_let_by(world, road, w, i, j, way, k, s, t, firm):
                            result = waits
        if road.ways.crosses[way] != 0 and free < needed:
            return blocked
        return result

    @wp.func
    def stops_after_all(
        world: wp.ref[World], road: wp.ref[Road], w: int, i: int, way: int, speed: real, rest: real
    ) -> bool:
        """Whether who is committed stops for a light, which it will not reach in time or can stop for in comfort."""
        head = road.ways.head[way]
        if head < 0:
            return False
        shown = world.signal[w, head]
        if shown != red and shown != amber:
            return False
        k = road.ways.junction[way]
        left = road.plans.amber[road.plans.first[world.map[w]] + k] - world.phase_time[w, k]
        # Who turns slows down to the speed of the bend.
        at_line = wp.min(speed, road.lanes.lane[way].speed_limit)
        late = shown == red or two * (rest + entered) > left * (speed + at_line)
        return speed * speed <= two * wp.where(late, hard, comfort) * rest

    @wp.func
    def decide(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
        """Set the stage of a vehicle before a junction."""
        if world.vehicle[w, i].kind == 0 or world.vehicle[w, i].kind >= obstacle:
            return
        stage = world.vehicle[w, i].yields % stages
        way = world.vehicle[w, i].yields / stages
        if stage == 0 or stage >= inside:
            return
        speed = wp.max(world.vehicle[w, i].speed, zero)
        s = travelled(world, road, w, i, way)
        rest = wp.max(road.ways.wait[way] - half * world.vehicle[w, i].length - s, zero)
        driver = world.vehicle[w, i].kind == idm
        if driver and stage == committed and speed > stands and speed * speed > two * rest:
            if not stops_after_all(world, road, w, i, way, speed, rest):
                return
        now = verdict(world, road, w, i, way, s)
        if driver:
            if now == granted and speed * speed > two * comfort * rest:
                now = committed
        elif speed > stands and speed * speed > two * agent_braking * rest:
            now = committed
        world.vehicle[w, i].yields = now + stages * way

    @wp.func
    def is_asked_for(world: wp.ref[World], road: wp.ref[Road], w: int, g: int) -> bool:
        """Whether somebody comes near the line of a way that an actuated junction has given its green."""
        phase = world.phase[w, g - road.plans.first[world.map[w]]]
        if road.plans.actuated[g] == 0 or phase % 2 == 1:
            return False
        row = road.plans.phase[g] + phase / 2
        for j in range(world.slots):
            stage = world.vehicle[w, j].yields % stages
            if (
                world.vehicle[w, j].kind != 0
                and world.vehicle[w, j].kind < obstacle
                and stage >= waits
                and stage <= committed
            ):
                way = world.vehicle[w, j].yields / stages
                head = road.ways.head[way]
                if head >= 0 and travelled(world, road, w, j, way) > -detector:
                    if road.plans.shows[row, head] != red:
                        return True
        return False

    # --- what the rules call -------------------------------------------------------------------------------------

    @wp.func
    def record(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
        """Time that the ego stands where it should not."""
        stage = world.vehicle[w, 0].yields % stages
        if stage == 0 or wp.abs(world.vehicle[w, 0].speed) > stands:
            return
        if stage >= inside:
            world.box_time[w] = world.box_time[w] + dt
        elif stage == granted and road.ways.head[world.vehicle[w, 0].yields / stages] >= 0:
            lane = world.vehicle[w, 0].lane
            leader = road_functions.front(world, road, w, 0, lane)
            if leader < 0 or road_functions.gap(world, road, w, 0, leader) > real(15.0):
                world.green_wait[w] = world.green_wait[w] + dt

    @wp.func
    def stand_still(world: wp.ref[World], w: int, i: int, dt: real):
        """Who brakes comes to rest, and does not roll back in a queue, as IDM lets those who stand too close."""
        if world.vehicle[w, i].kind == idm and world.vehicle[w, i].crashed == 0:
            world.vehicle[w, i].acceleration = wp.max(world.vehicle[w, i].acceleration, -world.vehicle[w, i].speed / dt)

    @wp.func(inline=False)
    def advance(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
        m = world.map[w]
        if road.ways.present[m] == 0:
            return
        # Who has passed a line in the last frame did so under the signals of that frame.
        for i in range(world.slots):
            note(world, road, w, i)
            stand_still(world, w, i, dt)
        for g in range(road.plans.first[m], road.plans.first[m + 1]):
            lights.switch(world, road, w, g, is_asked_for(world, road, w, g), dt)
        for i in range(world.slots):
            decide(world, road, w, i)
        record(world, road, w, dt)

    @wp.func
    def stop_at(driver: Driver, speed: real, distance: real) -> real:
        """Braking to come to rest so far ahead: a driver stops a jam distance behind what stands there [m/s2]."""
        braking = law.interaction(driver, speed, speed, distance + driver.jam_distance)
        needed = speed * speed / (two * wp.max(distance, half))
        if speed > stands and needed > comfort:
            braking = wp.max(braking, needed + driver.comfort_acceleration)
        return braking

    @wp.func
    def hold_inside(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int, way: int) -> real:
        """Braking for who stands across the way of a vehicle inside a junction."""
        front = travelled(world, road, w, i, way) + half * world.vehicle[w, i].length
        braking = real(0.0)
        for k in range(road.ways.first[way], road.ways.first[way + 1]):
            if road.ways.begins[k] > front:
                for j in range(world.slots):
                    if j != i and world.vehicle[w, j].yields % stages >= inside:
                        if (
                            world.vehicle[w, j].yields / stages == road.ways.other[k]
                            and world.vehicle[w, j].kind < obstacle
                        ):
                            t = travelled(world, road, w, j, road.ways.other[k])
                            half_j = half * world.vehicle[w, j].length
                            if t + half_j > road.ways.other_begins[k] and t - half_j < road.ways.other_ends[k]:
                                left = road.ways.begins[k] - front - one
                                braking = wp.max(braking, stop_at(driver, world.vehicle[w, i].speed, left))
        return braking

    @wp.func
    def place_ahead(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int, lane: int) -> real:
        """Where the rear of j's box would be behind its centre if it drove along a lane that it is in the way on; else
        negative [m]."""
        place = road_functions.local(road, lane, world.vehicle[w, j].x, world.vehicle[w, j].y)
        heading = road_functions.heading_at(road, lane, place[0])
        c = wp.cos(heading) * world.vehicle[w, j].cos_heading + wp.sin(heading) * world.vehicle[w, j].sin_heading
        s = wp.sqrt(wp.max(one - c * c, zero))
        across = half * (
            world.vehicle[w, i].width + world.vehicle[w, j].length * s + world.vehicle[w, j].width * wp.abs(c)
        ) + real(0.3)
        if place[0] > road.lanes.lane[lane].length or wp.abs(place[1]) > across:
            return -one
        return wp.where(c > real(0.3), place[0], -one)

    @wp.func
    def follow(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int, lane: int, left: real) -> real:
        """Braking for the lower speed of the next lane, and for the next vehicle on that and on the one after it."""
        first = following(world, road, w, i, lane, world.vehicle[w, i].route_at)
        if first[0] < 0:
            return zero
        speed = world.vehicle[w, i].speed
        limit = road.lanes.lane[first[0]].speed_limit
        braking = real(0.0)
        if speed > limit:
            share = wp.min((speed * speed - limit * limit) / (two * wp.max(left - one, half)) / gentle, one)
            braking = share * share * share * share * (driver.comfort_acceleration + gentle)
        second = following(world, road, w, i, first[0], first[1])[0]
        nearest = real(sight)
        leader = int(-1)
        for j in range(world.slots):
            dx = world.vehicle[w, j].x - world.vehicle[w, i].x
            dy = world.vehicle[w, j].y - world.vehicle[w, i].y
            if (
                j != i
                and world.vehicle[w, j].kind != 0
                and world.vehicle[w, j].kind <= obstacle
                and dx * dx + dy * dy < sight * sight
            ):
                if road.ways.of_lane[lane] >= 0:
                    own = place_ahead(world, road, w, i, j, lane)
                    ahead = own + left - road.lanes.lane[lane].length
                    if own >= zero and ahead > zero and ahead < nearest:
                        nearest = ahead
                        leader = j
                s = place_ahead(world, road, w, i, j, first[0])
                if s < zero and second >= 0:
                    s = place_ahead(world, road, w, i, j, second)
                    s = wp.where(s < zero, s, s + road.lanes.lane[first[0]].length)
                if s >= zero and left + s < nearest:
                    nearest = left + s
                    leader = j
        return wp.max(braking, law.braking(world, driver, w, i, leader, nearest))

    @wp.func(inline=False)
    def hold(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int) -> real:
        if road.ways.present[world.map[w]] == 0:
            return zero
        stage = world.vehicle[w, i].yields % stages
        way = world.vehicle[w, i].yields / stages
        braking = real(0.0)
        if stage >= inside:
            braking = hold_inside(world, road, driver, w, i, way)
        elif stage == waits or stage == blocked:
            rest = road.ways.wait[way] - half * world.vehicle[w, i].length - travelled(world, road, w, i, way)
            if rest < reach:
                braking = stop_at(driver, world.vehicle[w, i].speed, rest)
        lane = world.vehicle[w, i].target_lane
        left = road.lanes.lane[lane].length - local_of(world, road, w, i, lane)[0]
        if left < reach:
            braking = wp.max(braking, follow(world, road, driver, w, i, lane, left))
        return braking

    @wp.func
    def stage_of(world: wp.ref[World], w: int, i: int) -> int:
        return world.vehicle[w, i].yields % stages

    @wp.func
    def ran_red(world: wp.ref[World], w: int, i: int) -> bool:
        if world.vehicle[w, i].yields % stages != ran:
            return False
        world.vehicle[w, i].yields = world.vehicle[w, i].yields - ran + inside
        return True

    return Functions(advance=advance, hold=hold, start=lights.start, stage=stage_of, ran_red=ran_red)
