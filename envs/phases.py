"""The phases of a policy step as Warp kernels, over the laws of `envs.physics`.

On a GPU each phase is a kernel over (world, slot) or (world), and a step is a list of launches that a CUDA graph
replays. On a CPU the frames of a step are one kernel over worlds, `simulate`, which calls the same functions in the
same order: launches would cost more than the laws. A kernel's last argument but on `simulate` is the first world of
its slice.
"""

import functools

import torch
import warp as wp

from envs.physics import actions, bicycle, collision, control, idm, mobil
from envs.precision import Functions
from envs.roads import parallel
from envs.scenarios import highway
from envs.state import META, PLAIN, world_struct

# Which worlds a kernel works on.
ALL, ENDED = 0, 1


@functools.cache
def build(real: type) -> Functions:
    """Every kernel of the simulation for one scalar type, and the structs that they take."""
    World = world_struct(real)
    road_functions = parallel.build(real)
    driver_law = idm.build(real)
    tracking = control.build(real)
    lane_change = mobil.build(real, road_functions)
    act = actions.build(real, road_functions)
    motion = bicycle.build(real)
    contact = collision.build(real)
    task_functions = highway.build(real, road_functions, act)
    Road, Driver, TargetSpeeds, Task = road_functions.Road, driver_law.Driver, act.TargetSpeeds, task_functions.Task
    meta_kind, plain_kind, ended = META, PLAIN, ENDED
    look_ahead = real(control.LOOK_AHEAD)

    @wp.func
    def begin(world: World, road: Road, speeds: TargetSpeeds, commands: wp.array2d(dtype=wp.float32), w: int):
        """The ego takes its action."""
        if world.kind[w, 0] == meta_kind:
            act.meta(world, road, speeds, w, 0, int(commands[w, 0]))
        elif world.kind[w, 0] == plain_kind:
            act.continuous(world, w, 0, real(commands[w, 0]), real(commands[w, 1]))

    @wp.func
    def command(world: World, road: Road, driver: Driver, w: int, i: int):
        """A vehicle's steering and acceleration, from where everyone stands."""
        kind = world.kind[w, i]
        if kind == plain_kind or kind == 0 or world.crashed[w, i] != 0:
            return
        target = world.target_lane[w, i]
        x = world.x[w, i]
        y = world.y[w, i]
        speed = world.speed[w, i]
        lateral = road_functions.lateral(road, target, x, y)
        s = road_functions.along(road, target, x, y) + speed * look_ahead
        ahead = road_functions.heading_at(road, target, s)
        world.sin_slip[w, i] = tracking.lane_keeping(lateral, ahead, world.heading[w, i], speed)
        if kind == meta_kind:
            world.acceleration[w, i] = tracking.cruise(world.target_speed[w, i], speed)
            return
        lane = world.lane[w, i]
        leader = road_functions.front(world, road, w, i, lane)
        braking = lane_change.braking_for(world, road, driver, w, i, leader)
        if lane != target:
            leader = road_functions.front(world, road, w, i, target)
            braking = wp.max(braking, lane_change.braking_for(world, road, driver, w, i, leader))
        limit = road_functions.speed_limit(road, lane)
        acceleration = driver_law.free_acceleration(
            driver, speed, world.target_speed[w, i], limit, world.exponent[w, i]
        )
        world.acceleration[w, i] = wp.clamp(acceleration - braking, -driver.max_acceleration, driver.max_acceleration)

    @wp.func
    def move(world: World, road: Road, w: int, i: int, dt: real):
        """One frame of motion, then the lane that is now closest."""
        if world.kind[w, i] != 0:
            world.timer[w, i] = world.timer[w, i] + dt
            motion.integrate(world, w, i, dt)
            world.lane[w, i] = road_functions.closest_lane(
                road, world.x[w, i], world.y[w, i], world.heading[w, i]
            )

    @wp.kernel(module="unique")
    def simulate(
        world: World,
        road: Road,
        driver: Driver,
        speeds: TargetSpeeds,
        commands: wp.array2d(dtype=wp.float32),
        dt: real,
        frames: int,
        takes_action: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if takes_action != 0:
            begin(world, road, speeds, commands, w)
        for _ in range(frames):
            for i in range(world.slots):
                lane_change.propose(world, road, driver, w, i)
                lane_change.settle(world, road, driver, w, i)
            for i in range(world.slots):
                command(world, road, driver, w, i)
            for i in range(world.slots):
                move(world, road, w, i, dt)
            road_functions.sort(world, w)
            for i in range(world.slots):
                contact.collide(world, w, i, dt)

    @wp.kernel(module="unique")
    def begin_step(
        world: World, road: Road, speeds: TargetSpeeds, commands: wp.array2d(dtype=wp.float32), first_world: int
    ):
        begin(world, road, speeds, commands, wp.tid() + first_world)

    @wp.kernel(module="unique")
    def propose_lanes(world: World, road: Road, driver: Driver, first_world: int):
        w, i = wp.tid()
        lane_change.propose(world, road, driver, w + first_world, i)

    @wp.kernel(module="unique")
    def settle_lanes(world: World, road: Road, driver: Driver, first_world: int):
        w = wp.tid() + first_world
        for i in range(world.slots):
            lane_change.settle(world, road, driver, w, i)

    @wp.kernel(module="unique")
    def command_vehicles(world: World, road: Road, driver: Driver, first_world: int):
        w, i = wp.tid()
        command(world, road, driver, w + first_world, i)

    @wp.kernel(module="unique")
    def move_vehicles(world: World, road: Road, dt: real, first_world: int):
        w, i = wp.tid()
        move(world, road, w + first_world, i, dt)

    @wp.kernel(module="unique")
    def sort_vehicles(world: World, first_world: int):
        road_functions.sort(world, wp.tid() + first_world)

    @wp.kernel(module="unique")
    def collide_vehicles(world: World, dt: real, first_world: int):
        w, i = wp.tid()
        contact.collide(world, w + first_world, i, dt)

    @wp.kernel(module="unique")
    def score(world: World, road: Road, task: Task, first_world: int):
        task_functions.score(world, road, task, wp.tid() + first_world)

    @wp.kernel(module="unique")
    def spawn(
        world: World,
        road: Road,
        speeds: TargetSpeeds,
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
        task_functions.spawn(world, road, speeds, task, seed[0], w)

    return Functions(
        Road=Road,
        Driver=Driver,
        TargetSpeeds=TargetSpeeds,
        Task=Task,
        simulate=simulate,
        begin_step=begin_step,
        propose_lanes=propose_lanes,
        settle_lanes=settle_lanes,
        command_vehicles=command_vehicles,
        move_vehicles=move_vehicles,
        sort_vehicles=sort_vehicles,
        collide_vehicles=collide_vehicles,
        score=score,
        spawn=spawn,
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
