"""A ring road of one lane (Sugiyama et al. 2008). Reward: speed over the limit. A crash ends an episode."""

import functools
import math
from dataclasses import dataclass

import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.lanes import circular
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import LONGITUDINAL, Scenario
from envs.state import IDM, world_struct


@dataclass(frozen=True)
class Ring(Scenario):
    """A ring of `length` m with a `speed_limit` in m/s; vehicles start from rest, evenly spaced."""

    length: float = 600.0
    speed_limit: float = 20.0

    def make_maps(self) -> list[RoadNetwork]:
        network, turn = RoadNetwork(), math.pi / 2
        for k, (start, end) in enumerate(("es", "sw", "wn", "ne")):
            arc = ((0.0, 0.0), self.length / math.tau, k * turn, (k + 1) * turn)
            network.add_lane(start, end, circular(*arc, speed_limit=self.speed_limit))
        return [network]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        return self.times(ego_kind) | {"length": self.length, "limit": self.speed_limit}


RING = Ring("ring", "ring", vehicles=24, actions=LONGITUDINAL, target_speeds=(0.0, 20.0, 5), connected_lanes=True)


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    Task = scoring.task_struct(real, reals=("length", "limit"))
    World, Road, Actions = wp.ref[world_struct(real)], wp.ref[road_functions.Road], action_functions.Controls
    setting, scores = placing.build(real, road_functions, action_functions), scoring.build(real, road_functions)
    uniform, idm, purpose, Commands = random.build(real).uniform, IDM, random.SPAWN, wp.array2d(dtype=wp.float32)

    @wp.func
    def spawn(world: World, road: Road, actions: Actions, task: Task, seed: wp.uint64, w: int):
        for i in range(world.slots):
            place = real(i) + real(0.2) * uniform(seed, world.world_id[w], world.episode[w], purpose, i)
            setting.put_on(world, road, w, i, idm, 0, place / real(world.slots) * task.length, real(0.0))
            world.vehicle[w, i].target_speed = task.limit
        setting.engage(world, road, actions, w, 0, task.ego_kind)

    @wp.func
    def score(world: World, road: Road, actions: Actions, task: Task, commands: Commands, w: int):
        reward = wp.max(world.vehicle[w, 0].speed, real(0.0)) / task.limit
        scores.conclude(world, w, reward, world.vehicle[w, 0].crashed != 0, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
