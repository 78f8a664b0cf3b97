"""Overtaking into oncoming traffic: highway-env's `two-way-v0`.

Reward a step: 0.8 speed index / 2 + 0.2 on the left lane. A crash ends the episode and costs nothing else.
"""

import functools
from dataclasses import dataclass

import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import two_way as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import Scenario
from envs.sensors.collision_times import CollisionTimes
from envs.state import IDM, world_struct


@dataclass(frozen=True)
class TwoWay(Scenario):
    """Parameters of the family.

    Attributes:
        length: of the road [m].
        horizon: how far ahead the state observation foresees collisions [s].
        left_lane_reward, high_speed_reward: weights.
    """

    length: float = 800.0
    horizon: int = 5
    left_lane_reward: float = 0.2
    high_speed_reward: float = 0.8

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network(self.length)]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        return {
            "ego_kind": ego_kind,
            "right_lane": maps[0].number(("a", "b", 1)),
            "oncoming_lane": maps[0].number(("b", "a", 0)),
            "left_lane_reward": self.left_lane_reward,
            "high_speed_reward": self.high_speed_reward,
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        return [CollisionTimes(simulation, self.horizon)]


TWO_WAY = TwoWay(name="two-way", family="two-way", upstream_id="two-way-v0", vehicles=5, duration=15.0)


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    normal, purpose, idm = random.build(real).normal, random.SPAWN, IDM

    @wp.struct
    class Task:
        ego_kind: wp.int32
        right_lane: wp.int32
        oncoming_lane: wp.int32
        left_lane_reward: real
        high_speed_reward: real
        step_duration: real
        duration: real

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        setting.put_on(world, road, w, 0, idm, task.right_lane, real(30.0), real(30.0))
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        for i in range(1, world.slots):
            along = normal(seed, id, episode, purpose, 2 * i)
            faster = normal(seed, id, episode, purpose, 2 * i + 1)
            if i < 4:
                s = real(30.0) + real(40.0) * real(i) + real(10.0) * along
                setting.put_on(world, road, w, i, idm, task.right_lane, s, real(24.0) + real(2.0) * faster)
            else:
                s = real(-200.0) + real(100.0) * real(i) + real(10.0) * along
                setting.put_on(world, road, w, i, idm, task.oncoming_lane, s, real(20.0) + real(5.0) * faster)
                world.vehicle[w, i].target_lane = task.oncoming_lane
            world.vehicle[w, i].changes_lanes = 0

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        beside = real(wp.max(road.road_lanes[road.of_lane[world.vehicle[w, 0].lane].road] - 1, 1))
        left = (beside - real(road.of_lane[scores.chosen_lane(world, w, 0)].place)) / beside
        fast = real(world.vehicle[w, 0].speed_index) / real(controls.count - 1)
        reward = task.high_speed_reward * fast + task.left_lane_reward * left
        scores.conclude(world, w, reward, world.vehicle[w, 0].crashed != 0, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
