"""What a privileged driver of a staged case knows: itself on its lane, and everybody else along its way.

The way is the ego's lane and the two after it on its route. Who is beside one of these lanes is measured along and
across its centre line, by the one whose middle is nearest; who is beside none, in the straight frame of the lane at the
ego. Boxes keep their shape and are turned into the direction of the way where they are.
"""

import functools

import torch
import warp as wp

from envs.launch import Launch
from envs.phases import ENDED
from envs.physics import control, idm, ruled
from envs.precision import Functions
from envs.roads import general
from envs.roads.lanes import STRAIGHT
from envs.scenarios import staging
from envs.sensors import base
from envs.state import FORMS, OBSTACLE, world_struct

OTHER = (
    "present",  # 1, else the whole row is 0
    "along",  # centre to centre, along the way [m]
    "across",  # centre to centre, to the right of it [m]
    "velocity along",  # the other's own [m/s]
    "velocity across",  # [m/s]
    "acceleration along",  # [m/s2]
    "length",  # of the box that holds its box, along the way [m]
    "width",  # the same, across [m]
    "kind",  # 0 vehicle, 1 person or cyclist, 2 what stands
    "in path",  # 1 where it overlaps the strip that the ego would sweep along its way
)
EGO = (
    "speed",  # [m/s]
    "acceleration",  # [m/s2]
    "set speed",  # the case's [m/s]
    "offset",  # from the middle of its lane, to the right [m]
    "lateral velocity",  # relative to the lane [m/s]
    "steering",  # command that keeps the lane of its route, as built-in drivers would [share of the range]
    "hold",  # how hard the rules of the road would make a built-in driver brake [m/s2]
    "speed limit",  # of its lane [m/s]
)
VEHICLE_KIND, PERSON_KIND, STILL_KIND = range(3)
LANES_AHEAD = 2


@functools.cache
def build(real: type) -> Functions:
    """Kernels `look_around` and `look_inside`, and functions by which other sensors see the same:

    own_lane(world, road, w)                                    the lane that the ego is on, of its route
    beyond(world, onward, goal, lane)                           the lane after a lane, -1 for none
    describe(world, road, onward, goal, others, w, j, lane)     vehicle j on the way that begins with a lane
    """
    World = world_struct(real)
    roads, law = general.build(real), idm.build(real)
    Road, Driver, local, heading_at = roads.Road, law.Driver, roads.local, roads.heading_at
    vec3 = wp.vec3f if real is wp.float32 else wp.vec3d
    rules, tracking = ruled.build(real, roads, law), control.build(real)
    ended, obstacle, straight, lanes_ahead = ENDED, OBSTACLE, STRAIGHT, LANES_AHEAD
    person_form, cyclist_form = FORMS.index("person"), FORMS.index("cyclist")
    vehicle_kind, person_kind, still_kind = wp.float32(VEHICLE_KIND), wp.float32(PERSON_KIND), wp.float32(STILL_KIND)
    look_ahead, zero, half, one, two = real(control.LOOK_AHEAD), real(0.0), real(0.5), real(1.0), real(2.0)
    far, f = real(1.0e9), wp.float32

    @wp.func
    def own_lane(world: wp.ref[World], road: wp.ref[Road], w: int) -> int:
        """The lane that the ego is on, of the roads of its route; those that only cross it are not."""
        lane = world.vehicle[w, 0].lane
        target = world.vehicle[w, 0].target_lane
        here = road.of_lane[lane].road
        ahead = road.of_lane[target].road
        if here == ahead or road.road_to[here] == road.road_from[ahead]:
            return lane
        return target

    @wp.func
    def beyond(world: wp.ref[World], onward: wp.array2d(dtype=wp.int32), goal: int, lane: int) -> int:
        following = onward[lane, 1 + goal]
        return wp.where(following >= 0, following, onward[lane, 0])

    @wp.func
    def frame_of(
        world: wp.ref[World],
        road: wp.ref[Road],
        onward: wp.array2d(dtype=wp.int32),
        goal: int,
        w: int,
        lane: int,
        x: real,
        y: real,
    ) -> vec3:
        """A point relative to the ego along the way and across it [m], and the direction of the way there [rad]."""
        own = local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)
        heading = heading_at(road, lane, own[0])
        dx = x - world.vehicle[w, 0].x
        dy = y - world.vehicle[w, 0].y
        c = wp.cos(heading)
        s = wp.sin(heading)
        result = vec3(dx * c + dy * s, dy * c - dx * s, heading)
        nearest = real(far)
        here = int(lane)
        passed = real(0.0)
        for _step in range(lanes_ahead + 1):
            if here >= 0:
                place = local(road, here, x, y)
                length = road.lanes.lane[here].length
                behind = here == lane and road.lanes.lane[here].kind == straight
                if (place[0] >= zero or behind) and place[0] <= length and wp.abs(place[1]) < nearest:
                    nearest = wp.abs(place[1])
                    result = vec3(passed + place[0] - own[0], place[1] - own[1], heading_at(road, here, place[0]))
                passed = passed + length
                here = beyond(world, onward, goal, here)
        return result

    @wp.func
    def describe(
        world: wp.ref[World],
        road: wp.ref[Road],
        onward: wp.array2d(dtype=wp.int32),
        goal: int,
        others: wp.array3d(dtype=wp.float32),
        w: int,
        j: int,
        lane: int,
    ):
        """Set the columns of vehicle j in its row, on the way that begins with that lane."""
        row = j - 1
        place = frame_of(world, road, onward, goal, w, lane, world.vehicle[w, j].x, world.vehicle[w, j].y)
        turn = world.vehicle[w, j].heading - place[2]
        c = wp.cos(turn)
        s = wp.sin(turn)
        width = world.vehicle[w, j].length * wp.abs(s) + world.vehicle[w, j].width * wp.abs(c)
        form = world.vehicle[w, j].form
        others[w, row, 0] = f(1.0)
        others[w, row, 1] = f(place[0])
        others[w, row, 2] = f(place[1])
        others[w, row, 3] = f(world.vehicle[w, j].speed * c)
        others[w, row, 4] = f(world.vehicle[w, j].speed * s)
        others[w, row, 5] = f(world.vehicle[w, j].acceleration * c)
        others[w, row, 6] = f(world.vehicle[w, j].length * wp.abs(c) + world.vehicle[w, j].width * wp.abs(s))
        others[w, row, 7] = f(width)
        others[w, row, 8] = vehicle_kind
        if form == person_form or form == cyclist_form:
            others[w, row, 8] = person_kind
        elif world.vehicle[w, j].kind >= obstacle:
            others[w, row, 8] = still_kind
        # The strip is as wide as the ego's box, in the direction of the lane.
        if wp.abs(place[1]) < half * (width + world.vehicle[w, 0].width):
            others[w, row, 9] = f(1.0)

    @wp.kernel(module="unique")
    def look_around(
        world: World,
        road: Road,
        onward: wp.array2d(dtype=wp.int32),
        goals: wp.array(dtype=wp.int32),
        others: wp.array3d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w, row = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        for column in range(others.shape[2]):
            others[w, row, column] = f(0.0)
        if world.vehicle[w, row + 1].kind == 0:
            return
        goal = goals[world.world_id[w] % goals.shape[0]]
        describe(world, road, onward, goal, others, w, row + 1, own_lane(world, road, w))

    @wp.kernel(module="unique")
    def look_inside(
        world: World,
        road: Road,
        driver: Driver,
        set_speeds: wp.array(dtype=real),
        steering_low: real,
        steering_high: real,
        ego: wp.array2d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        speed = world.vehicle[w, 0].speed
        heading = world.vehicle[w, 0].heading
        lane = own_lane(world, road, w)
        place = local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)
        slip = world.vehicle[w, 0].sin_slip
        turn = heading - heading_at(road, lane, place[0])
        ego[w, 0] = f(speed)
        ego[w, 1] = f(world.vehicle[w, 0].acceleration)
        ego[w, 2] = f(set_speeds[world.world_id[w] % set_speeds.shape[0]])
        ego[w, 3] = f(place[1])
        ego[w, 4] = f(speed * (wp.sin(turn) * wp.sqrt(one - slip * slip) + wp.cos(turn) * slip))
        target = world.vehicle[w, 0].target_lane
        wanted = local(road, target, world.vehicle[w, 0].x, world.vehicle[w, 0].y)
        ahead = heading_at(road, target, wanted[0] + speed * look_ahead)
        command = tracking.lane_keeping(wanted[1], ahead, heading, speed)
        # The slip angle beta has tan(beta) = tan(delta) / 2.
        angle = wp.atan(two * command / wp.sqrt(one - command * command))
        share = two * (angle - steering_low) / (steering_high - steering_low) - one
        ego[w, 5] = f(wp.clamp(share, -one, one))
        ego[w, 6] = f(rules.hold(world, road, driver, w, 0))
        ego[w, 7] = f(roads.speed_limit(road, lane))

    return Functions(
        look_around=look_around, look_inside=look_inside, own_lane=own_lane, beyond=beyond, describe=describe
    )


class Surroundings:
    """{"surroundings": float32 (N, V - 1, 10), "ego": float32 (N, 8)}: columns `OTHER` and `EGO`, row k is slot k + 1.

    Args:
        simulation: of an `envs.scenarios.stage.Stage`.
    """

    def __init__(self, simulation):
        self._simulation = simulation
        stage, device = simulation.scenario, simulation.warp_device
        goals = stage.destinations(simulation.maps)
        numbers = staging.task_tables(stage.cases, stage.map_names, stage.slots)
        column = staging.CASE_INTS.index("destination")
        self._onward = wp.array(staging.onward(simulation.maps, goals), dtype=wp.int32, device=device)
        self._goals = wp.array(numbers["case_ints"][:, column], dtype=wp.int32, device=device)
        self._set_speeds = wp.array([case.target_speed for case in stage.cases], dtype=simulation.real, device=device)
        shapes = {"surroundings": (simulation.state.slots - 1, len(OTHER)), "ego": (len(EGO),)}
        self.outputs, self.finals, self.spaces = base.numbers(simulation, shapes)
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        kernels, state = build(simulation.real), simulation.state.warp
        others, ego = (wp.from_torch(output) for output in self.outputs.values())
        around = (state, simulation.road, self._onward, self._goals, others, which)
        steering = simulation.scenario.actions.steering_range
        inside = (state, simulation.road, simulation.driver, self._set_speeds, *steering, ego, which)
        return [
            Launch(kernels.look_around, (simulation.state.slots - 1,), around),
            Launch(kernels.look_inside, (), inside),
        ]
