"""Parking on a given spot: highway-env's `parking-v0`, `parking-ActionRepeat-v0` and `parking-parked-v0`.

Reward a step: -(sum of weights * |state - goal|)^0.5 - 5 crash over position / 100 m, velocity / 5 m/s and direction.
An episode ends with a crash or when the first term is above -0.12. With several agents the world's reward has the first
one's way to its goal and everybody's crashes, and the first one's success ends it, as in highway-env; each has its own
reward of the same form, and has finished when it crashes or stands on its spot.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import parking as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import CONTINUOUS, Scenario
from envs.sensors.goal import Goal
from envs.state import FORMS, LANDMARK, PLAIN, world_struct

FEATURES = ("x", "y", "vx", "vy", "cos_h", "sin_h")
SCALES = (100.0, 100.0, 5.0, 5.0, 1.0, 1.0)


@dataclass(frozen=True)
class Parking(Scenario):
    """Parameters of the family.

    Attributes:
        parked: vehicles that stand on other spots.
        walls: whether the place is walled in.
        reward_weights: of the differences in FEATURES.
        success_goal_reward: how close to 0 the first term of the reward must be for success.
        collision_reward: weight of a crash.
    """

    parked: int = 0
    walls: bool = True
    reward_weights: tuple[float, ...] = (1.0, 0.3, 0.0, 0.0, 0.02, 0.02)
    success_goal_reward: float = 0.12
    collision_reward: float = -5.0
    longest = 80.0
    uses_lanes = False
    max_agents = 4

    def with_agents(self, agents: int) -> Scenario:
        """See `Scenario.with_agents`: every agent has a goal, which takes a slot."""
        return replace(super().with_agents(agents), vehicles=self.vehicles + agents - self.agents)

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network()]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        walls = roads.obstacles() if self.walls else []
        return {
            "ego_kind": ego_kind,
            "spots": len(maps[0].lanes),
            "parked": self.parked,
            "walls": len(walls),
            "blocks": np.array(walls or [(0.0, 0.0, 0.0, 0.0, 0.0)]),
            "weights": np.array(self.reward_weights),
            "scales": np.array(SCALES),
            "success_goal_reward": self.success_goal_reward,
            "collision_reward": self.collision_reward,
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        return [Goal(simulation, FEATURES, SCALES)]


PARKING = Parking(
    name="parking",
    family="parking",
    upstream_id="parking-v0",
    vehicles=5,
    policy_frequency=5,
    duration=100.0,
    actions=CONTINUOUS,
)
PARKING_REPEAT = replace(
    PARKING, name="parking-action-repeat", upstream_id="parking-ActionRepeat-v0", policy_frequency=1, duration=20.0
)
PARKING_PARKED = replace(PARKING, name="parking-parked", upstream_id="parking-parked-v0", vehicles=15, parked=10)

TRIES = 64  # spots drawn until one is free; with half of 28 taken, all fail once in 2^64
SPOT = 4.0  # m, where a car stands on its spot


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    uniform, below, purpose = random.build(real).uniform, random.build(real).below, random.SPAWN
    wall = FORMS.index("wall")
    plain, landmark, tries, spot, zero = PLAIN, LANDMARK, TRIES, real(SPOT), real(0.0)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        spots: wp.int32
        parked: wp.int32
        walls: wp.int32
        blocks: wp.array2d(dtype=real)
        weights: wp.array(dtype=real)
        scales: wp.array(dtype=real)
        success_goal_reward: real
        collision_reward: real
        step_duration: real
        duration: real

    @wp.func
    def free_spot(world: wp.ref[World], task: wp.ref[Task], seed: wp.uint64, w: int, i: int) -> int:
        """A spot that is nobody's yet; spots are taken by agents and, before slot i, by goals and parked cars."""
        chosen = int(0)
        for attempt in range(tries):
            chosen = below(seed, world.world_id[w], world.episode[w], purpose, 100 + i * tries + attempt, task.spots)
            clear = bool(True)
            for j in range(i):
                if world.vehicle[w, j].target_lane == chosen and world.vehicle[w, j].kind != 0:
                    clear = False
            if clear:
                break
        return chosen

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        agents = world.agents
        for i in range(world.slots):
            setting.clear(world, w, i)
        for i in range(agents):
            heading = real(6.283185307179586) * uniform(seed, world.world_id[w], world.episode[w], purpose, i)
            setting.put(world, road, w, i, plain, real(10 * (i - agents / 2)), zero, heading, zero)
            setting.engage(world, road, controls, w, i, task.ego_kind)
        # Goals choose first, but stand behind the parked cars in order.
        goals = agents + task.parked
        for k in range(agents):
            i = goals + k
            lane = free_spot(world, task, seed, w, i)
            setting.put_on(world, road, w, i, landmark, lane, road.lanes.lane[lane].length / real(2.0), zero)
            world.vehicle[w, i].target_lane = lane
            setting.size(world, w, i, real(2.0), real(2.0), zero)
        for k in range(task.parked):
            i = agents + k
            # Goals are in slots above, so theirs are compared too.
            lane = int(0)
            for attempt in range(tries):
                lane = below(seed, world.world_id[w], world.episode[w], purpose, 100 + i * tries + attempt, task.spots)
                clear = bool(True)
                for j in range(goals + agents):
                    if j != i and world.vehicle[w, j].kind != 0 and world.vehicle[w, j].target_lane == lane:
                        clear = False
                if clear:
                    break
            setting.put_on(world, road, w, i, plain, lane, spot, zero)
            world.vehicle[w, i].target_lane = lane
        for k in range(task.walls):
            setting.stand(
                world,
                road,
                w,
                goals + agents + k,
                task.blocks[k, 0],
                task.blocks[k, 1],
                task.blocks[k, 2],
                task.blocks[k, 3],
                task.blocks[k, 4],
            )
            world.vehicle[w, goals + agents + k].form = wall

    @wp.func
    def away(a: real, b: real, task: wp.ref[Task], k: int) -> real:
        return task.weights[k] * wp.abs(a / task.scales[k] - b / task.scales[k])

    @wp.func
    def closeness(world: wp.ref[World], task: wp.ref[Task], w: int, i: int, goal: int) -> real:
        """How close an agent is to its goal, at most 0."""
        c = world.vehicle[w, i].cos_heading
        s = world.vehicle[w, i].sin_heading
        v = world.vehicle[w, i].speed
        total = away(world.vehicle[w, i].x, world.vehicle[w, goal].x, task, 0)
        total += away(world.vehicle[w, i].y, world.vehicle[w, goal].y, task, 1)
        total += away(v * c, zero, task, 2)
        total += away(v * s, zero, task, 3)
        total += away(c, world.vehicle[w, goal].cos_heading, task, 4)
        total += away(s, world.vehicle[w, goal].sin_heading, task, 5)
        return -wp.sqrt(total)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        # The agents' goals are the landmarks, in order.
        agent = int(0)
        first = real(0.0)
        crashes = real(0.0)
        for j in range(world.slots):
            if world.vehicle[w, j].kind == landmark and agent < world.agents:
                own = closeness(world, task, w, agent, j)
                crashed = real(world.vehicle[w, agent].crashed)
                if agent == 0:
                    first = own
                crashes += crashed
                world.vehicle[w, agent].reward_share = own + task.collision_reward * crashed
                arrived = own > -task.success_goal_reward
                world.vehicle[w, agent].finished = wp.where(arrived or world.vehicle[w, agent].crashed != 0, 1, 0)
                agent = agent + 1
        reward = first + task.collision_reward * crashes
        success = first > -task.success_goal_reward
        world.success[w] = wp.where(success, 1, 0)
        scores.conclude(world, w, reward, success or crashes > zero, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
