"""The phases of a policy step as Warp kernels, over the laws of `envs.physics`.

On a GPU each phase is a kernel over (world, slot) or (world), and a step is a list of launches that a CUDA graph
replays. On a CPU the frames of a step are one kernel over worlds, `simulate`, which calls the same functions in the
same order: launches would cost more than the laws. A kernel's last argument but on `simulate` is the first world of
its slice.
"""

import functools

import torch
import warp as wp

from envs.physics import (
    actions,
    bicycle,
    collision,
    control,
    dynamic_bicycle,
    idm,
    mobil,
    power,
    right_of_way,
    ruled,
    unruled,
)
from envs.precision import Functions
from envs.roads.parallel import Surroundings
from envs.state import DYNAMIC, IDM, META, OBSTACLE, PLAIN, WALKER, world_struct

# Which worlds a kernel works on.
ALL, ENDED = 0, 1


@functools.cache
def build(real: type, road_module, task_module) -> Functions:
    """Every kernel of the simulation for one scalar type, and the structs that they take.

    Args:
        real: scalar type.
        road_module: `envs.roads.parallel` or `envs.roads.general`.
        task_module: whose `build` gives a scenario's `Task`, `spawn` and `score`.
    """
    drive = driving(real, road_module)
    task_functions = task_module.build(real, drive.road, drive.act)
    World, Road, Controls, Task = world_struct(real), drive.road.Road, drive.act.Controls, task_functions.Task
    ended = ENDED

    @wp.func
    def count_slots(world: wp.ref[World], w: int):
        used = int(world.slots)
        while used > world.agents and world.vehicle[w, used - 1].kind == 0:
            used = used - 1
        world.used[w] = used

    @wp.kernel(module="unique")
    def score(
        world: World,
        road: Road,
        controls: Controls,
        task: Task,
        commands: wp.array2d(dtype=wp.float32),
        first_world: int,
    ):
        task_functions.score(world, road, controls, task, commands, wp.tid() + first_world)

    @wp.kernel(module="unique")
    def spawn(
        world: World,
        road: Road,
        controls: Controls,
        task: Task,
        seed: wp.array(dtype=wp.uint64),
        which: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        if which != ended:
            world.terminated[w] = 0
            world.truncated[w] = 0
        world.episode[w] = world.episode[w] + 1
        world.time[w] = real(0.0)
        world.episode_return[w] = real(0.0)
        world.episode_length[w] = 0
        world.frame[w] = 0
        world.arrivals[w] = 0
        task_functions.spawn(world, road, controls, task, seed[0], w)
        count_slots(world, w)

    # What only some scenarios do: agents that enter a scene which has run for a while, traffic that comes and goes.
    more = {}
    if hasattr(task_functions, "enter"):

        @wp.kernel(module="unique")
        def enter(
            world: World,
            road: Road,
            controls: Controls,
            task: Task,
            seed: wp.array(dtype=wp.uint64),
            which: int,
            first_world: int,
        ):
            w = wp.tid() + first_world
            if which != ended or world.terminated[w] + world.truncated[w] != 0:
                task_functions.enter(world, road, controls, task, seed[0], w)
                count_slots(world, w)

        more["enter"] = enter
    if hasattr(task_functions, "traffic"):

        @wp.kernel(module="unique")
        def traffic(
            world: World, road: Road, controls: Controls, task: Task, seed: wp.array(dtype=wp.uint64), first_world: int
        ):
            w = wp.tid() + first_world
            if world.terminated[w] + world.truncated[w] == 0:
                task_functions.traffic(world, road, controls, task, seed[0], w)
                count_slots(world, w)

        more["traffic"] = traffic
    return Functions(**vars(drive), Task=Task, score=score, spawn=spawn, **more)


@functools.cache
def driving(real: type, road_module) -> Functions:
    """The kernels of a frame, which are the same for every scenario on that kind of road."""
    World = world_struct(real)
    road_functions = road_module.build(real)
    driver_law = idm.build(real)
    powers = power.build(real)
    tracking = control.build(real)
    lane_change = mobil.build(real, road_functions)
    act = actions.build(real, road_functions)
    motion = bicycle.build(real)
    dynamic_motion = dynamic_bicycle.build(real)
    contact = collision.build(real, road_functions.inline)
    Road, Driver, Controls = road_functions.Road, driver_law.Driver, act.Controls
    idm_kind, meta_kind, plain_kind, dynamic_kind, obstacle = IDM, META, PLAIN, DYNAMIC, OBSTACLE
    look_ahead, ended = real(control.LOOK_AHEAD), ENDED
    rules = (unruled if road_module.SORTED else ruled).build(real, road_functions, driver_law)
    walker, most = WALKER, collision.BITS

    @wp.func
    def skipped(world: wp.ref[World], which: int, w: int) -> bool:
        return which == ended and world.terminated[w] + world.truncated[w] == 0

    @wp.func
    def begin(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, commands: wp.array2d(dtype=wp.float32), w: int
    ):
        """The agents take their actions."""
        for i in range(world.agents):
            kind = world.vehicle[w, i].kind
            if kind == meta_kind:
                world.vehicle[w, i].target_lane = road_functions.onward(world, road, w, i)
                act.meta(world, road, controls, w, i, int(commands[w, 2 * i]))
            elif kind == plain_kind or kind == dynamic_kind:
                act.continuous(world, controls, w, i, commands[w, 2 * i], commands[w, 2 * i + 1])

    @wp.func
    def has_leader(world: wp.ref[World], w: int, i: int) -> bool:
        return world.vehicle[w, i].kind == idm_kind and world.vehicle[w, i].crashed == 0

    @wp.func
    def share_of_desired(world: wp.ref[World], road: wp.ref[Road], w: int, i: int) -> real:
        limit = road_functions.speed_limit(road, world.vehicle[w, i].lane)
        return driver_law.speed_share(world.vehicle[w, i].speed, world.vehicle[w, i].target_speed, limit)

    @wp.func
    def command(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int, leader: int, raised: real):
        """A vehicle's steering and acceleration, from where everyone stands, who is ahead on its lane, and its speed's
        share of the desired one to the power of its exponent."""
        kind = world.vehicle[w, i].kind
        if (kind != idm_kind and kind != meta_kind) or world.vehicle[w, i].crashed != 0:
            return
        target = world.vehicle[w, i].target_lane
        speed = world.vehicle[w, i].speed
        place = road_functions.local_of(world, road, w, i, target)
        ahead = road_functions.heading_at(road, target, place[0] + speed * look_ahead)
        world.vehicle[w, i].sin_slip = tracking.lane_keeping(place[1], ahead, world.vehicle[w, i].heading, speed)
        if kind == meta_kind:
            world.vehicle[w, i].acceleration = tracking.cruise(world.vehicle[w, i].target_speed, speed)
            return
        lane = world.vehicle[w, i].lane
        braking = lane_change.braking_for(world, road, driver, w, i, leader)
        if lane != target:
            other = road_functions.front(world, road, w, i, target)
            braking = wp.max(braking, lane_change.braking_for(world, road, driver, w, i, other))
        if road.rules != 0:
            braking = wp.max(braking, rules.hold(world, road, driver, w, i))
        world.vehicle[w, i].acceleration = wp.clamp(
            driver_law.free_road(driver, raised) - braking, -driver.max_acceleration, driver.max_acceleration
        )

    @wp.func
    def move(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, dt: real):
        """One frame of motion, then the lane that is now closest."""
        kind = world.vehicle[w, i].kind
        if kind == walker:
            rules.walk(world, road, w, i, dt)
            road_functions.closest_lane(world, road, w, i)
        if kind == 0 or kind >= obstacle:
            return
        world.vehicle[w, i].timer = world.vehicle[w, i].timer + dt
        y = world.vehicle[w, i].y
        if kind == dynamic_kind:
            dynamic_motion.integrate(world, w, i, dt)
        else:
            motion.integrate(world, w, i, dt)
        road_functions.follow_lane(world, road, w, i, y)

    @wp.func
    def command_one(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int):
        leader = int(-1)
        raised = real(0.0)
        if has_leader(world, w, i):
            leader = road_functions.front(world, road, w, i, world.vehicle[w, i].lane)
            raised = powers.power(share_of_desired(world, road, w, i), world.vehicle[w, i].exponent)
        command(world, road, driver, w, i, leader, raised)

    @wp.func
    def decide_each(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int):
        """The lanes, steering and acceleration of all."""
        for i in range(world.used[w]):
            lane_change.propose(world, road, driver, w, i)
            lane_change.settle(world, road, driver, w, i)
        for i in range(world.used[w]):
            command_one(world, road, driver, w, i)

    if road_module.SORTED:

        @wp.func
        def decide_all(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int):
            """From the first on the road to the last: who is ahead of each is known when its turn comes."""
            if world.slots > most:
                decide_each(world, road, driver, w)
                return
            leaders = wp.zeros(shape=(most,), dtype=wp.int32)
            raised = wp.zeros(shape=(most,), dtype=real)
            exponents = wp.zeros(shape=(most,), dtype=real)
            frontmost = road_functions.nobody()
            for behind in range(1, world.slots + 1):
                r = world.slots - behind
                i = world.vehicle[w, r].order
                target = lane_change.steers_to(world, road, w, i)
                if has_leader(world, w, i):
                    lane = world.vehicle[w, i].lane
                    leader = road_functions.front_at(world, road, w, r, lane, frontmost)
                    leaders[r] = leader
                    raised[r] = share_of_desired(world, road, w, i)
                    exponents[r] = world.vehicle[w, i].exponent
                    if lane_change.considers(world, driver, w, i, target):
                        near = Surroundings()
                        near.own = wp.vec2i(leader, -1)
                        left = lane_change.may_take(world, road, w, i, road_functions.left_of(road, lane))
                        right = lane_change.may_take(world, road, w, i, road_functions.right_of(road, lane))
                        if left >= 0:
                            near.left = wp.vec2i(road_functions.front_at(world, road, w, r, left, frontmost), -1)
                        if right >= 0:
                            near.right = wp.vec2i(road_functions.front_at(world, road, w, r, right, frontmost), -1)
                        target = lane_change.choose(world, road, driver, w, i, left, right, near)
                world.vehicle[w, i].proposed_lane = target
                road_functions.pass_by(world, road, w, i, frontmost)
            for i in range(world.used[w]):
                lane_change.settle(world, road, driver, w, i)
            powers.raise_all(raised, exponents, world.slots)
            for r in range(world.slots):
                command(world, road, driver, w, world.vehicle[w, r].order, leaders[r], raised[r])

        @wp.func
        def collide(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, dt: real):
            contact.collide(world, w, i, dt)

        @wp.func
        def collide_all(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
            contact.collide_sorted(world, w, dt)

        @wp.func
        def foresee(world: wp.ref[World], road: wp.ref[Road], w: int, i: int):
            return

        @wp.func
        def give_way(world: wp.ref[World], road: wp.ref[Road], w: int):
            return

        @wp.func
        def is_due(world: wp.ref[World], road: wp.ref[Road], w: int) -> bool:
            return False

    else:
        regulation = right_of_way.build(real, road_functions, dynamic_motion)
        foresee, give_way = regulation.predict, regulation.enforce

        decide_all = decide_each

        @wp.func
        def collide(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, dt: real):
            contact.collide_any(world, w, i, dt, road.longest)

        @wp.func
        def collide_all(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
            contact.collide_all(world, w, dt, road.longest)

        @wp.func
        def is_due(world: wp.ref[World], road: wp.ref[Road], w: int) -> bool:
            return road.yield_period > 0 and world.frame[w] % road.yield_period == 0

    @wp.kernel(module="unique")
    def simulate(
        world: World,
        road: Road,
        driver: Driver,
        controls: Controls,
        commands: wp.array2d(dtype=wp.float32),
        dt: real,
        frames: int,
        takes_action: int,
        which: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        if takes_action != 0:
            begin(world, road, controls, commands, w)
        for _ in range(frames):
            decide_all(world, road, driver, w)
            world.frame[w] = world.frame[w] + 1
            if road.rules != 0:
                rules.advance(world, road, w, dt)
            if is_due(world, road, w):
                for i in range(world.used[w]):
                    foresee(world, road, w, i)
                give_way(world, road, w)
            for i in range(world.used[w]):
                move(world, road, w, i, dt)
            road_functions.sort(world, w)
            collide_all(world, road, w, dt)

    @wp.kernel(module="unique")
    def begin_step(
        world: World, road: Road, controls: Controls, commands: wp.array2d(dtype=wp.float32), first_world: int
    ):
        begin(world, road, controls, commands, wp.tid() + first_world)

    @wp.kernel(module="unique")
    def propose_lanes(world: World, road: Road, driver: Driver, which: int, first_world: int):
        w, i = wp.tid()
        if not skipped(world, which, w + first_world):
            lane_change.propose(world, road, driver, w + first_world, i)

    @wp.kernel(module="unique")
    def settle_lanes(world: World, road: Road, driver: Driver, which: int, first_world: int):
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        for i in range(world.slots):
            lane_change.settle(world, road, driver, w, i)

    @wp.kernel(module="unique")
    def command_vehicles(world: World, road: Road, driver: Driver, which: int, first_world: int):
        w, i = wp.tid()
        if not skipped(world, which, w + first_world):
            command_one(world, road, driver, w + first_world, i)

    @wp.kernel(module="unique")
    def count_frame(world: World, road: Road, dt: real, which: int, first_world: int):
        w = wp.tid() + first_world
        if skipped(world, which, w):
            return
        world.frame[w] = world.frame[w] + 1
        if road.rules != 0:
            rules.advance(world, road, w, dt)

    @wp.kernel(module="unique")
    def predict_paths(world: World, road: Road, which: int, first_world: int):
        w, i = wp.tid()
        if not skipped(world, which, w + first_world) and is_due(world, road, w + first_world):
            foresee(world, road, w + first_world, i)

    @wp.kernel(module="unique")
    def regulate(world: World, road: Road, which: int, first_world: int):
        w = wp.tid() + first_world
        if not skipped(world, which, w) and is_due(world, road, w):
            give_way(world, road, w)

    @wp.kernel(module="unique")
    def move_vehicles(world: World, road: Road, dt: real, which: int, first_world: int):
        w, i = wp.tid()
        if not skipped(world, which, w + first_world):
            move(world, road, w + first_world, i, dt)

    @wp.kernel(module="unique")
    def sort_vehicles(world: World, first_world: int):
        road_functions.sort(world, wp.tid() + first_world)

    @wp.kernel(module="unique")
    def collide_vehicles(world: World, road: Road, dt: real, which: int, first_world: int):
        w, i = wp.tid()
        if not skipped(world, which, w + first_world):
            collide(world, road, w + first_world, i, dt)

    return Functions(
        Road=Road,
        road=road_functions,
        act=act,
        Driver=Driver,
        Controls=Controls,
        simulate=simulate,
        begin_step=begin_step,
        propose_lanes=propose_lanes,
        settle_lanes=settle_lanes,
        command_vehicles=command_vehicles,
        count_frame=count_frame,
        predict_paths=predict_paths,
        regulate=regulate,
        move_vehicles=move_vehicles,
        sort_vehicles=sort_vehicles,
        collide_vehicles=collide_vehicles,
    )


@wp.kernel(module="unique")
def keep_rows(
    terminated: wp.array(dtype=wp.int32),
    truncated: wp.array(dtype=wp.int32),
    source: wp.array2d(dtype=wp.int32),
    kept: wp.array2d(dtype=wp.int32),
    stride: int,
    first_world: int,
):
    """Copy the rows of worlds whose episode ended. `stride` threads share a row."""
    w, part = wp.tid()
    w = w + first_world
    if terminated[w] + truncated[w] == 0:
        return
    for k in range(part, source.shape[1], stride):
        kept[w, k] = source[w, k]


def words(rows: torch.Tensor) -> wp.array:
    """A batch of observations as rows of 32-bit words. Shape: (N, words)."""
    return wp.from_torch(rows.reshape(len(rows), -1).view(torch.int32))
