"""Passing a roundabout among other traffic: highway-env's `roundabout-v0` and `roundabout-generic-v0`.

Reward a step: on_road * lmap(-crash + 0.2 speed index / 2 - 0.05 lane change), mapped from [-1, 0.2] to [0, 1].
"""

import functools
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import roundabout as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import Scenario
from envs.sensors.vehicle_list import VehicleList
from envs.state import IDM, META, world_struct

# The ego's exit, then where the others may go.
GOALS = ("nxs", "exr", "sxr", "nxr", "wxr")
# Roads on which the generic scenario's traffic starts.
STARTS = (("we", "sx"), ("sx", "se"), ("ee", "nx"), ("nx", "ne"), ("eer", "ees"), ("ner", "nes"), ("wer", "wes"))


@dataclass(frozen=True)
class Roundabout(Scenario):
    """Parameters of the family.

    Attributes:
        lanes: of the ring.
        radius: of the ring's inner lane [m].
        generic: whether traffic is spread at random over ring and arms, or four vehicles start near the ego.
        collision_reward, high_speed_reward, lane_change_reward: weights.
        normalize_reward: whether the sum is mapped to [0, 1].
    """

    lanes: int = 2
    radius: float = 20.0
    generic: bool = False
    collision_reward: float = -1.0
    high_speed_reward: float = 0.2
    lane_change_reward: float = -0.05
    normalize_reward: bool = True

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.generic(self.lanes, self.radius) if self.generic else roads.network()]

    def destinations(self, maps: list[RoadNetwork]) -> list[list[str]]:
        """See `Scenario.destinations`."""
        return [list(GOALS)]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        (network,) = maps
        ring = ("we", "sx", min(1, len(network.graph["we"]["sx"]) - 1))
        return {
            "ego_kind": ego_kind,
            "generic": int(self.generic),
            "start_lane": network.number(("ser", "ses", 0)),
            "start_s": network.lane(("ser", "ses", 0)).length - 2.5 if self.generic else 125.0,
            "ring_lane": network.number(("we", "sx", 0)),
            "outer_ring_lane": network.number(ring),
            "east_lane": network.number(("eer", "ees", 0)),
            "starts": np.array([network.number((*road, 0)) for road in STARTS], dtype=np.int32),
            "penalised": scoring.lane_changes(self.actions),
            "collision_reward": self.collision_reward,
            "high_speed_reward": self.high_speed_reward,
            "lane_change_reward": self.lane_change_reward,
            "normalize": int(self.normalize_reward),
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        ranges = {"x": (-100.0, 100.0), "y": (-100.0, 100.0), "vx": (-15.0, 15.0), "vy": (-15.0, 15.0)}
        return [VehicleList(simulation, ranges=ranges, absolute=True)]


ROUNDABOUT = Roundabout(
    name="roundabout",
    family="roundabout",
    upstream_id="roundabout-v0",
    vehicles=4,
    duration=11.0,
    target_speeds=(0.0, 16.0, 3),
    route_steps=12,
)
ROUNDABOUT_GENERIC = Roundabout(
    name="roundabout-generic",
    family="roundabout",
    upstream_id="roundabout-generic-v0",
    generic=True,
    vehicles=5,
    duration=17.0,
    target_speeds=(0.0, 16.0, 3),
    route_steps=12,
)

ROOM = 7.0  # m, between vehicles that start in the generic scenario
TRIES = 10
DRAWS = 4 * TRIES + 4


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    draw = random.build(real)
    normal, uniform, below = draw.normal, draw.uniform, draw.below
    purpose, idm, meta, starts = random.SPAWN, IDM, META, len(STARTS)
    zero, two, room, draws, tries = real(0.0), real(2.0), real(ROOM), DRAWS, TRIES

    @wp.struct
    class Task:
        ego_kind: wp.int32
        generic: wp.int32
        start_lane: wp.int32
        start_s: real
        ring_lane: wp.int32
        outer_ring_lane: wp.int32
        east_lane: wp.int32
        starts: wp.array(dtype=wp.int32)
        penalised: wp.array(dtype=wp.int32)
        collision_reward: real
        high_speed_reward: real
        lane_change_reward: real
        normalize: wp.int32
        step_duration: real
        duration: real

    @wp.func
    def near_the_ego(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        id = world.world_id[w]
        episode = world.episode[w]
        for i in range(1, 5):
            lane = int(task.ring_lane)
            s = real(20.0)
            if i == 1:
                lane = task.outer_ring_lane
                s = real(5.0)
            elif i == 3:
                s = real(-20.0)
            elif i == 4:
                lane = task.east_lane
                s = real(50.0)
            s = s + two * normal(seed, id, episode, purpose, i * draws)
            speed = real(16.0) + two * normal(seed, id, episode, purpose, i * draws + 1)
            setting.put_on(world, road, w, i, idm, lane, s, speed)
            setting.plan(world, road, w, i, 1 + below(seed, id, episode, purpose, i * draws + 2, 3))
            world.vehicle[w, i].exponent = real(3.5) + uniform(seed, id, episode, purpose, i * draws + 3)

    @wp.func
    def anywhere(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        id = world.world_id[w]
        episode = world.episode[w]
        filled = int(1)
        for i in range(1, world.slots):
            for attempt in range(tries):
                k = i * draws + 4 + 4 * attempt
                lane = task.starts[below(seed, id, episode, purpose, k, starts)]
                lane = lane + below(seed, id, episode, purpose, k + 1, road.road_lanes[road.of_lane[lane].road])
                room_along = wp.max(real(5.0), road.lanes.lane[lane].length - real(5.0)) - real(5.0)
                s = real(5.0) + room_along * uniform(seed, id, episode, purpose, k + 2)
                place = road_functions.position(road.lanes, lane, s, zero)
                clear = bool(True)
                for j in range(filled):
                    dx = world.vehicle[w, j].x - place[0]
                    dy = world.vehicle[w, j].y - place[1]
                    if dx * dx + dy * dy < room * room:
                        clear = False
                if clear:
                    speed = real(14.0) + two * normal(seed, id, episode, purpose, k + 3)
                    setting.put_on(world, road, w, filled, idm, lane, s, speed)
                    setting.plan(world, road, w, filled, 1 + below(seed, id, episode, purpose, i * draws + 2, 4))
                    world.vehicle[w, filled].exponent = real(3.5) + uniform(seed, id, episode, purpose, i * draws + 3)
                    filled = filled + 1
                    break
        for i in range(filled, world.slots):
            setting.clear(world, w, i)

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        setting.put_on(world, road, w, 0, idm, task.start_lane, task.start_s, real(8.0))
        setting.plan(world, road, w, 0, 0)
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        if task.generic != 0:
            anywhere(world, road, task, seed, w)
        else:
            near_the_ego(world, road, task, seed, w)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        # highway-env divides by the number of its default speeds, whatever the speeds are.
        fast = real(world.vehicle[w, 0].speed_index) / two
        if world.vehicle[w, 0].kind != meta:
            fast = wp.clamp(wp.rint((world.vehicle[w, 0].speed - real(20.0)) / real(5.0)), zero, two) / two
        total = task.collision_reward * real(world.vehicle[w, 0].crashed) + task.high_speed_reward * fast
        if world.vehicle[w, 0].kind == meta:
            total += task.lane_change_reward * real(task.penalised[int(commands[w, 0])])
        reward = total
        if task.normalize != 0:
            reward = scores.share(total, task.collision_reward, task.high_speed_reward)
        if not scores.on_road(world, road, w, 0):
            reward = zero
        scores.conclude(world, w, reward, world.vehicle[w, 0].crashed != 0, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
