"""How staged cases run: `spawn` sets a case up, `score` rewards and ends it. See `envs.scenarios.stage`.

Reward of a step: the ego's speed as a share of its set speed, at most 1, and -1 more for a crash. An episode ends with
a crash, at the case's goal, or when the ego's centre is more than `OFF_ROAD` beside the closest lane, or past the end
of the last one; it is cut off at the case's time limit.
"""

import functools

import warp as wp

from envs.physics import idm as driving_law
from envs.physics import junctions, signals
from envs.precision import Functions
from envs.scenarios import placing, scoring
from envs.scenarios.staging import ACTOR_INTS, ACTOR_REALS, CASE_INTS, CASE_REALS
from envs.state import IDM, world_struct

OFF_ROAD = 2.0  # m


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    crossing = junctions.build(real, road_functions, driving_law.build(real))
    lights = signals.build(real, road_functions)
    idm, zero, one, off_road = IDM, real(0.0), real(1.0), real(OFF_ROAD)
    case_map, case_destination, case_actors, case_phase, case_has_goal = range(len(CASE_INTS))
    (
        case_x, case_y, case_heading, case_speed, case_target, case_duration,
        case_goal_x, case_goal_y, case_radius, case_phase_time,
    ) = range(len(CASE_REALS))  # fmt: skip
    actor_kind, actor_form, actor_destination, actor_changes, actor_look = range(len(ACTOR_INTS))
    actor_x, actor_y, actor_heading, actor_speed, actor_target, actor_length, actor_width, actor_height = range(
        len(ACTOR_REALS)
    )

    @wp.struct
    class Task:
        ego_kind: wp.int32
        step_duration: real
        case_ints: wp.array2d(dtype=wp.int32)  # [case, CASE_INTS]
        case_reals: wp.array2d(dtype=real)  # [case, CASE_REALS]
        actor_ints: wp.array3d(dtype=wp.int32)  # [case, slot, ACTOR_INTS]
        actor_reals: wp.array3d(dtype=real)  # [case, slot, ACTOR_REALS]

    @wp.func
    def case_of(world: wp.ref[World], task: wp.ref[Task], w: int) -> int:
        return world.world_id[w] % task.case_ints.shape[0]

    @wp.func
    def put_ego(world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], w: int, case: int):
        setting.put(
            world,
            road,
            w,
            0,
            idm,
            task.case_reals[case, case_x],
            task.case_reals[case, case_y],
            task.case_reals[case, case_heading],
            task.case_reals[case, case_speed],
        )
        if task.case_ints[case, case_destination] >= 0:
            setting.plan(world, road, w, 0, task.case_ints[case, case_destination])
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        if task.ego_kind == idm:
            world.vehicle[w, 0].target_speed = task.case_reals[case, case_target]

    @wp.func
    def put_actor(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], w: int, case: int, i: int):
        setting.put(
            world,
            road,
            w,
            i,
            task.actor_ints[case, i, actor_kind],
            task.actor_reals[case, i, actor_x],
            task.actor_reals[case, i, actor_y],
            task.actor_reals[case, i, actor_heading],
            task.actor_reals[case, i, actor_speed],
        )
        setting.size(
            world,
            w,
            i,
            task.actor_reals[case, i, actor_length],
            task.actor_reals[case, i, actor_width],
            task.actor_reals[case, i, actor_height],
        )
        world.vehicle[w, i].form = task.actor_ints[case, i, actor_form]
        world.vehicle[w, i].look = task.actor_ints[case, i, actor_look]
        if world.vehicle[w, i].kind == idm:
            world.vehicle[w, i].target_speed = task.actor_reals[case, i, actor_target]
            world.vehicle[w, i].changes_lanes = task.actor_ints[case, i, actor_changes]
            if task.actor_ints[case, i, actor_destination] >= 0:
                setting.plan(world, road, w, i, task.actor_ints[case, i, actor_destination])

    @wp.func
    def switch_on(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], w: int, case: int):
        """Every plan of the map from its beginning, but the first from where the case has it."""
        crossing.start(world, road, w, zero)
        first = road.plans.first[world.map[w]]
        if road.plans.first[world.map[w] + 1] > first:
            world.phase[w, 0] = task.case_ints[case, case_phase]
            world.phase_time[w, 0] = task.case_reals[case, case_phase_time]
            lights.switch(world, road, w, first, False, zero)

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        case = case_of(world, task, w)
        for i in range(world.slots):
            setting.clear(world, w, i)
        world.map[w] = task.case_ints[case, case_map]
        world.red_lights[w] = 0
        world.box_time[w] = zero
        world.green_wait[w] = zero
        switch_on(world, road, task, w, case)
        put_ego(world, road, controls, task, w, case)
        for i in range(1, 1 + task.case_ints[case, case_actors]):
            put_actor(world, road, task, w, case, i)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        case = case_of(world, task, w)
        crashed = world.vehicle[w, 0].crashed != 0
        off = not road_functions.on_lane(
            road, world.vehicle[w, 0].lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y, off_road
        )
        arrived = bool(False)
        world.success[w] = -1
        if task.case_ints[case, case_has_goal] != 0:
            dx = world.vehicle[w, 0].x - task.case_reals[case, case_goal_x]
            dy = world.vehicle[w, 0].y - task.case_reals[case, case_goal_y]
            arrived = wp.sqrt(dx * dx + dy * dy) <= task.case_reals[case, case_radius] and not crashed
            world.success[w] = wp.where(arrived, 1, 0)
        reward = wp.clamp(world.vehicle[w, 0].speed / task.case_reals[case, case_target], zero, one)
        if crashed:
            reward = reward - one
        world.vehicle[w, 0].finished = wp.where(arrived or crashed, 1, 0)
        duration = task.case_reals[case, case_duration]
        scores.conclude(world, w, reward, crashed or off or arrived, task.step_duration, duration)

    return Functions(Task=Task, spawn=spawn, score=score)
