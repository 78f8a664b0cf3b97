"""Overtaking slow traffic through a U-turn: highway-env's `u-turn-v0`.

Reward a step: on_road * lmap(-crash + 0.1 lane + 0.4 clip((v - 8) / 16, 0, 1)), mapped from [-1, 0.5] to [0, 1].
"""

import functools
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import u_turn as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import Scenario
from envs.sensors.collision_times import CollisionTimes
from envs.state import IDM, world_struct

# Who is ahead at the start: road and place, s on it [m], speed [m/s].
TRAFFIC = (
    (("a", "b", 0), 25.0, 13.5),
    (("a", "b", 1), 56.0, 14.5),
    (("b", "c", 1), 0.5, 4.5),
    (("b", "c", 0), 17.5, 5.5),
    (("c", "d", 0), 1.0, 3.5),
    (("c", "d", 1), 30.0, 5.5),
)
DEVIATION = 2.0  # standard deviation of both, m and m/s


@dataclass(frozen=True)
class UTurn(Scenario):
    """Parameters of the family.

    Attributes:
        length: of the straights [m].
        horizon: how far ahead the state observation foresees collisions [s].
        collision_reward, left_lane_reward, high_speed_reward: weights.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
    """

    length: float = 128.0
    horizon: int = 16
    collision_reward: float = -1.0
    left_lane_reward: float = 0.1
    high_speed_reward: float = 0.4
    reward_speeds: tuple[float, float] = (8.0, 24.0)

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network(self.length)]

    def destinations(self, maps: list[RoadNetwork]) -> list[list[str]]:
        """See `Scenario.destinations`."""
        return [["d"]]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        return {
            "ego_kind": ego_kind,
            "start_lane": maps[0].number(("a", "b", 0)),
            "lanes": np.array([maps[0].number(index) for index, _, _ in TRAFFIC], dtype=np.int32),
            "places": np.array([s for _, s, _ in TRAFFIC]),
            "speeds": np.array([speed for _, _, speed in TRAFFIC]),
            "collision_reward": self.collision_reward,
            "left_lane_reward": self.left_lane_reward,
            "high_speed_reward": self.high_speed_reward,
            "speed_low": self.reward_speeds[0],
            "speed_high": self.reward_speeds[1],
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        return [CollisionTimes(simulation, self.horizon)]


U_TURN = UTurn(
    name="u-turn",
    family="u-turn",
    upstream_id="u-turn-v0",
    vehicles=len(TRAFFIC),
    duration=10.0,
    target_speeds=(8.0, 24.0, 3),
    route_steps=3,
)


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    normal, uniform = random.build(real).normal, random.build(real).uniform
    purpose, idm, deviation, zero, one = random.SPAWN, IDM, real(DEVIATION), real(0.0), real(1.0)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        start_lane: wp.int32
        lanes: wp.array(dtype=wp.int32)
        places: wp.array(dtype=real)
        speeds: wp.array(dtype=real)
        collision_reward: real
        left_lane_reward: real
        high_speed_reward: real
        speed_low: real
        speed_high: real
        step_duration: real
        duration: real

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        setting.put_on(world, road, w, 0, idm, task.start_lane, zero, real(16.0))
        setting.plan(world, road, w, 0, 0)
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        for i in range(1, world.slots):
            s = task.places[i - 1] + deviation * normal(seed, id, episode, purpose, 2 * i)
            speed = task.speeds[i - 1] + deviation * normal(seed, id, episode, purpose, 2 * i + 1)
            setting.put_on(world, road, w, i, idm, task.lanes[i - 1], s, speed)
            setting.plan(world, road, w, i, 0)
        world.vehicle[w, 1].exponent = real(3.5) + uniform(seed, id, episode, purpose, 0)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        lane = world.vehicle[w, 0].lane
        beside = real(wp.max(road.road_lanes[road.of_lane[lane].road] - 1, 1))
        fast = wp.clamp(scores.share(world.vehicle[w, 0].speed, task.speed_low, task.speed_high), zero, one)
        total = (
            task.collision_reward * real(world.vehicle[w, 0].crashed)
            + task.left_lane_reward * real(road.of_lane[lane].place) / beside
            + task.high_speed_reward * fast
        )
        best = task.high_speed_reward + task.left_lane_reward
        reward = scores.share(total, task.collision_reward, best)
        if not scores.on_road(world, road, w, 0):
            reward = zero
        scores.conclude(world, w, reward, world.vehicle[w, 0].crashed != 0, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
