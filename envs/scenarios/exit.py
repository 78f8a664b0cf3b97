"""Reaching an exit across five lanes: highway-env's `exit-v0`.

Reward a step: clip(exit reached + 0.1 clip((v - 20) / 10, 0, 1), 0, 1).
"""

import functools
from dataclasses import dataclass

import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import exit as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import Scenario
from envs.sensors.vehicle_list import VehicleList
from envs.state import IDM, world_struct


@dataclass(frozen=True)
class Exit(Scenario):
    """Parameters of the family.

    Attributes:
        lanes: number of lanes of the road.
        density: vehicles a default gap [1].
        ego_spacing: room ahead of the ego at the start, in default gaps [1].
        collision_reward, goal_reward, high_speed_reward, right_lane_reward: weights.
        normalize_reward: whether the sum is mapped to [0, 1] and clipped.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
    """

    lanes: int = 6
    density: float = 1.5
    ego_spacing: float = 2.0
    collision_reward: float = 0.0
    goal_reward: float = 1.0
    high_speed_reward: float = 0.1
    right_lane_reward: float = 0.0
    normalize_reward: bool = True
    reward_speeds: tuple[float, float] = (20.0, 30.0)

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network(self.lanes)]

    def destinations(self, maps: list[RoadNetwork]) -> list[list[str]]:
        """See `Scenario.destinations`."""
        return [["3"]]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        beside = ("1", "2", self.lanes)
        return {
            "ego_kind": ego_kind,
            "lanes": self.lanes,
            "road_lane": maps[0].number(("0", "1", 0)),
            "beside_lane": maps[0].number(beside) if beside in maps[0].indices else -1,
            "exit_lane": maps[0].number(("2", "exit", 0)),
            "density": self.density,
            "ego_spacing": self.ego_spacing,
            "collision_reward": self.collision_reward,
            "goal_reward": self.goal_reward,
            "high_speed_reward": self.high_speed_reward,
            "right_lane_reward": self.right_lane_reward,
            "normalize": int(self.normalize_reward),
            "speed_low": self.reward_speeds[0],
            "speed_high": self.reward_speeds[1],
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        features = ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h")
        (network,) = simulation.maps
        last = len(network.graph["1"]["2"]) - 1
        exit_lane = network.number(("1", "2", last))
        return [VehicleList(simulation, features, rows=15, clip=False, lanes=self.lanes, exit_lane=exit_lane)]


EXIT = Exit(
    name="exit",
    family="exit",
    upstream_id="exit-v0",
    vehicles=20,
    simulation_frequency=5,
    duration=18.0,
    target_speeds=(18.0, 30.0, 3),
    route_steps=3,
)


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    uniform, purpose, idm = random.build(real).uniform, random.SPAWN, IDM
    zero, one = real(0.0), real(1.0)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        lanes: wp.int32
        road_lane: wp.int32
        beside_lane: wp.int32
        exit_lane: wp.int32
        density: real
        ego_spacing: real
        collision_reward: real
        goal_reward: real
        high_speed_reward: real
        right_lane_reward: real
        normalize: wp.int32
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
        gap_scale = wp.exp(real(-5.0) / real(40.0) * real(task.lanes))
        x = real(0.0)
        for i in range(world.slots):
            place = int(0)
            speed = real(25.0)
            spacing = task.ego_spacing
            if i > 0:
                # The farther right, the more traffic: lane k is chosen with a weight of k.
                chosen = uniform(seed, id, episode, purpose, 2 * i) * real(task.lanes * (task.lanes - 1) / 2)
                weight = real(0.0)
                for k in range(task.lanes):
                    weight = weight + real(k)
                    if place == 0 and chosen < weight:
                        place = k
                speed = road_functions.speed_limit(road, task.road_lane + place)
                spacing = one / task.density
            offset = spacing * (real(12.0) + speed) * gap_scale
            if i == 0:
                x = real(3.0) * offset
            x = x + offset * (real(0.9) + real(0.2) * uniform(seed, id, episode, purpose, 2 * i + 1))
            setting.put_on(world, road, w, i, idm, task.road_lane + place, x, speed)
            if i > 0:
                setting.plan(world, road, w, i, 0)
                world.vehicle[w, i].changes_lanes = 0
        setting.engage(world, road, controls, w, 0, task.ego_kind)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        lane = scores.chosen_lane(world, w, 0)
        success = lane == task.beside_lane or lane == task.exit_lane
        fast = wp.clamp(scores.share(world.vehicle[w, 0].speed, task.speed_low, task.speed_high), zero, one)
        reward = (
            task.collision_reward * real(world.vehicle[w, 0].crashed)
            + task.high_speed_reward * fast
            + task.right_lane_reward * real(road.of_lane[lane].place)
        )
        world.success[w] = 0
        if success:
            reward = reward + task.goal_reward
            world.success[w] = 1
        if task.normalize != 0:
            reward = wp.clamp(scores.share(reward, task.collision_reward, task.goal_reward), zero, one)
        scores.conclude(world, w, reward, world.vehicle[w, 0].crashed != 0, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
