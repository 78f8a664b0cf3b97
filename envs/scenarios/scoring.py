"""What the rewards and endings of scenarios have in common."""

import functools

import numpy as np
import warp as wp

from envs.physics.actions import META_ACTIONS
from envs.precision import Functions
from envs.scenarios.base import ActionSet
from envs.state import IDM, META, world_struct


@functools.cache
def build(real: type, road_functions) -> Functions:
    """Warp functions.

    on_road(world, road, w, i)              whether a vehicle is on its lane
    chosen_lane(world, w, i)                the lane that a driver steers to; of other vehicles the one they are on
    share(value, low, high)                 value mapped linearly such that low is 0 and high 1
    conclude(world, w, reward, terminated, step_duration, duration)   keep the result of a policy step
    """
    World, Road = world_struct(real), road_functions.Road
    # A sum of float32 steps may fall short of their number times the step. In float64 it is highway-env's own sum.
    zero, slack = real(0.0), real(0.1 if real is wp.float32 else 0.0)
    idm, meta = IDM, META

    @wp.func
    def on_road(world: wp.ref[World], road: wp.ref[Road], w: int, i: int) -> bool:
        return road_functions.on_lane(
            road, world.vehicle[w, i].lane, world.vehicle[w, i].x, world.vehicle[w, i].y, zero
        )

    @wp.func
    def chosen_lane(world: wp.ref[World], w: int, i: int) -> int:
        if world.vehicle[w, i].kind == meta or world.vehicle[w, i].kind == idm:
            return world.vehicle[w, i].target_lane
        return world.vehicle[w, i].lane

    @wp.func
    def share(value: real, low: real, high: real) -> real:
        return (value - low) / (high - low)

    @wp.func
    def conclude(world: wp.ref[World], w: int, reward: real, terminated: bool, step_duration: real, duration: real):
        world.time[w] = world.time[w] + step_duration
        world.reward[w] = reward
        world.episode_return[w] = world.episode_return[w] + reward
        world.episode_length[w] = world.episode_length[w] + 1
        world.terminated[w] = wp.where(terminated, 1, 0)
        world.truncated[w] = wp.where(world.time[w] >= duration - slack * step_duration, 1, 0)
        world.ego_speed[w] = world.vehicle[w, 0].speed
        world.ego_crashed[w] = world.vehicle[w, 0].crashed
        if world.terminated[w] + world.truncated[w] != 0:
            world.final_return[w] = world.episode_return[w]
            world.final_length[w] = world.episode_length[w]

    return Functions(on_road=on_road, chosen_lane=chosen_lane, share=share, conclude=conclude)


@functools.cache
def task_struct(real: type, ints: tuple[str, ...] = (), reals: tuple[str, ...] = ()):
    """A `Task` of plain numbers: those named, the agents' kind, and the durations of a step and of an episode [s]."""
    kinds = {name: wp.int32 for name in ("ego_kind", *ints)}
    kinds |= {name: real for name in (*reals, "step_duration", "duration")}
    return wp.struct(type("Task", (), {"__annotations__": kinds, "__module__": __name__}))


def lane_changes(actions: ActionSet) -> np.ndarray:
    """Which meta-actions a penalty on lane changes falls on, by their place in META_ACTIONS. Shape: (5,) int.

    highway-env takes an agent's actions 0 and 2 for lane changes, whatever set they are from.
    """
    penalised = [actions.names[k] for k in (0, 2) if k < len(actions.names)]
    return np.array([name in penalised for name in META_ACTIONS], dtype=np.int32)
