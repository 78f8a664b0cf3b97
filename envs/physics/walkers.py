"""People on foot and on bicycles: when they step out, how they walk, and how drivers brake for them.

Laws, distributions and sources: docs/pedestrians.md. People fill the last slots of a world, without a slot of another
kind between them, so that a world without any costs one look at its last slot. They mean by the fields of theirs:

    target_speed      the speed at which they walk or ride [m/s]
    goal_x, goal_y    where they go to, in a straight line, and stay
    patience          time until they want to step out; below 0, how long they have wanted to since [s]
    exponent          WAITS: what a gap must last longer than the way across takes; LURKS: how long before the arrival
                      of an agent they run [s]
    yields            1 where they cross on a zebra: drivers give way to them
    route_at          what they do, see `MODES`
    speed_index       the slot of the person that they step out with, a higher one than theirs; their own if alone

`walk` and `hold` touch nobody's slot but their own, so that a GPU may run them for all slots at once. `decide` reads
and writes people in turn: it runs once a world, between frames.
"""

import functools

import warp as wp

from envs.precision import Functions
from envs.roads.general import PLACES
from envs.state import DYNAMIC, FORMS, IDM, WALKER, world_struct

# Walk; stand on the road until a vehicle is past; stand at the kerb until there is a gap; stand out of sight until an
# agent comes near; run without looking.
MODES = WALKS, PAUSES, WAITS, LURKS, RUNS = range(5)
# What they look like, and their boxes [m]: length (along the walk), width, height.
FIGURES = ADULT, CHILD, CYCLIST = range(3)
BOXES = ((0.5, 0.6, 1.7), (0.4, 0.45, 1.15), (1.8, 0.6, 1.75))

# Mean and standard deviation of the speed across a street [m/s] (Fitzpatrick et al. 2006: means of 4.74 and 4.25 ft/s,
# 15th percentiles of 3.77 and 3.03 ft/s, the deviation from a normal law through both). Draws end at two deviations.
ADULT_SPEED = (1.445, 0.286)
OLDER_SPEED = (1.295, 0.358)
MAX_DEVIATIONS = 2.0
# Euro NCAP's test speeds: children and adults at 5 km/h, running adults at 8, cyclists at 15 km/h.
CHILD_SPEED, RUNNING_SPEED, CYCLIST_SPEED = 5.0 / 3.6, 8.0 / 3.6, 15.0 / 3.6
START_UP = 3.0  # s, what the Highway Capacity Manual adds to the time across for a gap that is accepted

# Modelling choices.
RESPONSE = 0.4  # s, time constant of a walker's speed
CYCLIST_RESPONSE = 1.5  # s, of a cyclist's
CLEARANCE = 0.5  # m, that people and drivers leave between each other
SLOW = 0.3  # m/s, a vehicle slower than this stands
LOOK = 0.2  # s, between two looks of a person on the road
CROSSES = 0.3  # sine of the least angle between a path and a vehicle's way that cross
# Drivers.
COMFORT = 3.4  # m/s2, deceleration that most drivers find comfortable (AASHTO, stopping sight distance)
HEAD_START = 1.0  # s, a driver lets a person go first who is there up to this long after it
ZEBRA_START = 3.0  # s, the same for people on a zebra, where that takes no hard braking
SIGHT = 100.0  # m, as far ahead as drivers look for people
STOP = 0.1  # s, nobody brakes harder than to stand after this long
# Right of way on a zebra: who is so close to the ego's way [m], or has waited at the kerb for so long [s] that the ego
# could have stopped from 50 km/h in comfort.
CLOSE, WAITED = 3.0, 13.9 / COMFORT
STRIP = 2.0  # m, half of a zebra's width


@functools.cache
def build(real: type, road_functions, law) -> Functions:
    """`walk` and `hold` as `envs.physics.ruled` has them, and

    send(world, w, i, figure, goal_x, goal_y, speed, mode, margin)   make a person of who was put there
    decide(world, w)            who steps out, who lets a vehicle pass
    meeting(world, w, j, k)     where the way of a vehicle k and the path of j meet: metres ahead of k, and of j
    cuts_in(world, w)           whether the ego passes a zebra in front of someone who goes first
    """
    World, Road, Driver = world_struct(real), road_functions.Road, law.Driver
    vec2 = road_functions.vec2
    vec3 = wp.vec3f if real is wp.float32 else wp.vec3d
    walker, first_driver, last_driver = WALKER, IDM, DYNAMIC
    walks, pauses, waits, lurks, runs = MODES
    child, cyclist = CHILD, CYCLIST
    person_form, cyclist_form = FORMS.index("person"), FORMS.index("cyclist")
    sizes = [[real(size) for size in box] for box in BOXES]
    (adult_length, adult_width, adult_height), (child_length, child_width, child_height), rider = sizes
    rider_length, rider_width, rider_height = rider
    response, cyclist_response, look = real(RESPONSE), real(CYCLIST_RESPONSE), real(LOOK)
    clearance, slow, crosses = real(CLEARANCE), real(SLOW), real(CROSSES)
    comfort, head_start, zebra_start = real(COMFORT), real(HEAD_START), real(ZEBRA_START)
    sight, stop = real(SIGHT), real(STOP)
    close, waited, strip = real(CLOSE), real(WAITED), real(STRIP)
    zero, half, one, two, never, tiny = real(0.0), real(0.5), real(1.0), real(2.0), real(1.0e6), real(1.0e-3)
    places = PLACES

    @wp.func
    def send(
        world: wp.ref[World],
        w: int,
        i: int,
        figure: int,
        goal_x: real,
        goal_y: real,
        speed: real,
        mode: int,
        margin: real,
    ):
        world.vehicle[w, i].form = wp.where(figure == cyclist, cyclist_form, person_form)
        world.vehicle[w, i].length = adult_length
        world.vehicle[w, i].width = adult_width
        world.vehicle[w, i].height = adult_height
        if figure == child:
            world.vehicle[w, i].length = child_length
            world.vehicle[w, i].width = child_width
            world.vehicle[w, i].height = child_height
        elif figure == cyclist:
            world.vehicle[w, i].length = rider_length
            world.vehicle[w, i].width = rider_width
            world.vehicle[w, i].height = rider_height
        world.vehicle[w, i].goal_x = goal_x
        world.vehicle[w, i].goal_y = goal_y
        world.vehicle[w, i].target_speed = speed
        world.vehicle[w, i].route_at = mode
        world.vehicle[w, i].exponent = margin
        world.vehicle[w, i].speed_index = i

    @wp.func
    def response_of(world: wp.ref[World], w: int, i: int) -> real:
        return wp.where(world.vehicle[w, i].form == cyclist_form, cyclist_response, response)

    @wp.func
    def path(world: wp.ref[World], w: int, i: int) -> vec3:
        """Direction of the way that is left, and its length [m]."""
        dx = world.vehicle[w, i].goal_x - world.vehicle[w, i].x
        dy = world.vehicle[w, i].goal_y - world.vehicle[w, i].y
        distance = wp.sqrt(dx * dx + dy * dy)
        if distance < tiny:
            return vec3(one, zero, zero)
        return vec3(dx / distance, dy / distance, distance)

    @wp.func(inline=False)
    def walk(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, dt: real):
        mode = world.vehicle[w, i].route_at
        if mode == waits:
            world.vehicle[w, i].patience = world.vehicle[w, i].patience - dt
        left = path(world, w, i)
        wanted = real(0.0)
        if left[2] > zero and (mode == walks or mode == runs):
            wanted = world.vehicle[w, i].target_speed
        speed = world.vehicle[w, i].speed
        if wanted == zero and speed < tiny:
            world.vehicle[w, i].speed = zero
            return
        speed = wanted + (speed - wanted) * wp.exp(-dt / response_of(world, w, i))
        world.vehicle[w, i].heading = wp.atan2(left[1], left[0])
        world.vehicle[w, i].cos_heading = left[0]
        world.vehicle[w, i].sin_heading = left[1]
        if speed * dt >= left[2]:
            world.vehicle[w, i].x = world.vehicle[w, i].goal_x
            world.vehicle[w, i].y = world.vehicle[w, i].goal_y
            speed = zero
        else:
            world.vehicle[w, i].x = world.vehicle[w, i].x + speed * dt * left[0]
            world.vehicle[w, i].y = world.vehicle[w, i].y + speed * dt * left[1]
        world.vehicle[w, i].speed = speed
        road_functions.closest_lane(world, road, w, i)

    # --- stepping out ---------------------------------------------------------------------------------------------

    @wp.func
    def meeting(world: wp.ref[World], w: int, j: int, k: int) -> vec2:
        """How far ahead of k's centre and of j's k's line of travel and j's path meet; `never` where they do not."""
        left = path(world, w, j)
        c = world.vehicle[w, k].cos_heading
        s = world.vehicle[w, k].sin_heading
        sine = c * left[1] - s * left[0]
        reach = half * world.vehicle[w, k].width + clearance
        if left[2] == zero or wp.abs(sine) < crosses:
            return vec2(never, never)
        dx = world.vehicle[w, j].x - world.vehicle[w, k].x
        dy = world.vehicle[w, j].y - world.vehicle[w, k].y
        along = (dx * s - dy * c) / sine
        if along < -reach or along > left[2] + reach:
            return vec2(never, never)
        return vec2((dx * left[1] - dy * left[0]) / sine, along)

    @wp.func
    def gives_way(world: wp.ref[World], w: int, k: int, room: real) -> bool:
        """Whether k stands, or brakes such that it stands within `room`."""
        speed = world.vehicle[w, k].speed
        return speed < slow or -two * world.vehicle[w, k].acceleration * room >= speed * speed

    @wp.func
    def drives(world: wp.ref[World], w: int, k: int) -> bool:
        return world.vehicle[w, k].kind >= first_driver and world.vehicle[w, k].kind <= last_driver

    @wp.func
    def may_cross(world: wp.ref[World], w: int, j: int) -> bool:
        """Whether no vehicle reaches j's path before j is past it and the margin is over, but those that give way."""
        for k in range(world.slots):
            if drives(world, w, k):
                place = meeting(world, w, j, k)
                reach = half * world.vehicle[w, k].length + clearance
                if place[0] < never and place[0] > -reach:
                    room = place[0] - reach
                    if room <= zero:
                        return False
                    across = place[1] + half * (world.vehicle[w, k].width + world.vehicle[w, j].length)
                    needed = (
                        across / world.vehicle[w, j].target_speed
                        + response_of(world, w, j)
                        + world.vehicle[w, j].exponent
                    )
                    if room < needed * world.vehicle[w, k].speed and not gives_way(world, w, k, room):
                        return False
        return True

    @wp.func
    def is_blocked(world: wp.ref[World], w: int, j: int) -> bool:
        """Whether a vehicle that j is about to walk in front of, or into, is to be let past."""
        own = half * world.vehicle[w, j].length
        ahead = world.vehicle[w, j].target_speed * (response_of(world, w, j) + look) + clearance
        for k in range(world.slots):
            if drives(world, w, k):
                place = meeting(world, w, j, k)
                reach = half * world.vehicle[w, k].length + clearance
                to_side = place[1] - half * world.vehicle[w, k].width - own
                if place[0] < never and place[0] > -reach and to_side > zero and to_side < ahead:
                    room = place[0] - reach
                    if room <= zero:
                        return True
                    needed = (to_side + world.vehicle[w, k].width + two * own) / world.vehicle[w, j].target_speed
                    if room < needed * world.vehicle[w, k].speed and not gives_way(world, w, k, room):
                        return True
        return False

    @wp.func
    def is_near(world: wp.ref[World], w: int, j: int) -> bool:
        """Whether an agent reaches j's path within j's margin."""
        for k in range(world.agents):
            room = meeting(world, w, j, k)[0] - half * world.vehicle[w, k].length
            if room > zero and room <= world.vehicle[w, j].exponent * world.vehicle[w, k].speed:
                return True
        return False

    @wp.func
    def decide(world: wp.ref[World], w: int):
        j = world.slots - 1
        while j >= 0 and world.vehicle[w, j].kind == walker:
            mode = world.vehicle[w, j].route_at
            first = world.vehicle[w, j].speed_index
            if mode == lurks:
                if is_near(world, w, j):
                    world.vehicle[w, j].route_at = runs
            elif mode == waits:
                if first > j:
                    if world.vehicle[w, first].route_at != waits:
                        world.vehicle[w, j].route_at = walks
                elif world.vehicle[w, j].patience <= zero and may_cross(world, w, j):
                    world.vehicle[w, j].route_at = walks
            elif mode == walks or mode == pauses:
                world.vehicle[w, j].route_at = wp.where(is_blocked(world, w, j), pauses, walks)
            j = j - 1

    # --- drivers --------------------------------------------------------------------------------------------------

    @wp.func
    def leads_to(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int) -> bool:
        """Whether a connected lane is on i's route; any is for a driver without one."""
        at = world.vehicle[w, i].route_at
        if at >= world.vehicle[w, i].route_end:
            return True
        here = world.route[w, i, at] / places == road.of_lane[lane].road
        return here or (
            at + 1 < world.vehicle[w, i].route_end and world.route[w, i, at + 1] / places == road.of_lane[lane].road
        )

    @wp.func
    def sighting(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, j: int) -> vec3:
        """Where i sees j: metres ahead, metres to the right of i's way, and j's speed to the right on foot [m/s]."""
        lane = world.vehicle[w, i].lane
        begin = road.of_lane[lane].link_first
        for k in range(begin - 1, road.of_lane[lane].link_end):
            search = int(lane)
            shift = real(0.0)
            aside = real(world.vehicle[w, i].lane_r)
            if k >= begin:
                search = road.link_lane[k]
                shift = road.link_offset[k]
                aside = real(0.0)
            if k < begin or (shift > zero and leads_to(world, road, w, i, search)):
                place = road_functions.local(road, search, world.vehicle[w, j].x, world.vehicle[w, j].y)
                if place[0] >= zero and place[0] <= road.lanes.lane[search].length:
                    heading = road_functions.heading_at(road, search, place[0])
                    left = path(world, w, j)
                    across = left[1] * wp.cos(heading) - left[0] * wp.sin(heading)
                    return vec3(
                        place[0] + shift - world.vehicle[w, i].lane_s,
                        place[1] - aside,
                        across * world.vehicle[w, j].target_speed,
                    )
        return vec3(never, zero, zero)

    @wp.func
    def entry(world: wp.ref[World], w: int, j: int, r: real, drift: real, corridor: real) -> real:
        """Time until j is in a corridor about r = 0, 0 inside, `never` where j does not come there [s].

        Of who has stopped at a zebra it is the time until they want to go on, however far their side is.
        """
        to_side = wp.abs(r) - corridor
        if to_side <= zero:
            return zero
        rate = wp.where(r > zero, -drift, drift)
        left = path(world, w, j)
        if rate <= tiny or left[2] * rate < to_side * world.vehicle[w, j].target_speed:
            return never
        mode = world.vehicle[w, j].route_at
        if mode == walks or mode == runs:
            return to_side / rate
        if world.vehicle[w, j].yields == 0 or mode == lurks:
            return never
        return wp.max(world.vehicle[w, j].patience, zero)

    @wp.func(inline=False)
    def hold(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int) -> real:
        hardest = real(0.0)
        speed = world.vehicle[w, i].speed
        j = world.slots - 1
        while j >= 0 and world.vehicle[w, j].kind == walker:
            dx = world.vehicle[w, j].x - world.vehicle[w, i].x
            dy = world.vehicle[w, j].y - world.vehicle[w, i].y
            if dx * dx + dy * dy < sight * sight:
                seen = sighting(world, road, w, i, j)
                room = seen[0] - half * (world.vehicle[w, i].length + world.vehicle[w, j].width)
                if seen[0] < sight and room > zero:
                    corridor = half * (world.vehicle[w, i].width + world.vehicle[w, j].length) + clearance
                    until = entry(world, w, j, seen[1], seen[2], corridor)
                    easy = speed * speed <= two * comfort * (room - clearance)
                    late = until * speed - room
                    goes_first = until < never and late < head_start * speed
                    if world.vehicle[w, j].yields != 0 and until > zero and until < never:
                        # Nobody is obliged to brake hard for who is still at the kerb.
                        goes_first = goes_first and (easy or world.vehicle[w, j].route_at != waits)
                        goes_first = goes_first or (easy and late < zebra_start * speed)
                    if goes_first:
                        approach = law.approach_rate(world, w, i, j)
                        hardest = wp.max(hardest, law.interaction(driver, speed, approach, seen[0]))
            j = j - 1
        if hardest > zero:
            # The law backs off from what is closer than its jam distance; nobody reverses for people.
            limit = road_functions.speed_limit(road, world.vehicle[w, i].lane)
            free = law.free_acceleration(
                driver, speed, world.vehicle[w, i].target_speed, limit, world.vehicle[w, i].exponent
            )
            hardest = wp.min(hardest, free + wp.max(speed, zero) / stop)
        return hardest

    @wp.func
    def cuts_in(world: wp.ref[World], w: int) -> bool:
        """Whether the ego passes a zebra in front of someone who goes first; people are in the last slots."""
        if world.vehicle[w, 0].speed <= one:
            return False
        j = world.slots - 1
        while j >= 0 and world.vehicle[w, j].kind == walker:
            place = meeting(world, w, j, 0)
            if world.vehicle[w, j].yields != 0 and wp.abs(place[0]) < half * world.vehicle[w, 0].length + strip:
                if world.vehicle[w, j].route_at == waits:
                    if -world.vehicle[w, j].patience > waited:
                        return True
                elif place[1] < close:
                    return True
            j = j - 1
        return False

    return Functions(walk=walk, hold=hold, send=send, decide=decide, meeting=meeting, cuts_in=cuts_in)
