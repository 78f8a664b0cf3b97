"""Crossing a four-way junction where the horizontal road has right of way: highway-env's `intersection-v0`, `-v1` (a
slipping car under continuous actions) and `-multi-agent-v0`.

Reward of an agent a step: on_road * (1 if arrived else -5 crash + clip((v - 7) / 2, 0, 1)); a world's is the mean over
its agents. An episode ends with a crash of any agent or when all have arrived. Vehicles leave behind the junction and
enter at random after every step.
"""

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import warp as wp

from envs import random
from envs.physics.idm import DriverModel
from envs.precision import Functions
from envs.roads.maps import intersection as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import LONGITUDINAL, ActionSet, Scenario
from envs.sensors.vehicle_list import VehicleList
from envs.state import IDM, OBSTACLE, world_struct

GOALS = ("o0", "o1", "o2", "o3")


@dataclass(frozen=True)
class Intersection(Scenario):
    """Parameters of the family.

    Attributes:
        destination: where agents go, one of GOALS, or empty for a random one.
        initial_vehicles: how many may be there at the start.
        spawn_probability: that a vehicle enters, after each step.
        collision_reward, high_speed_reward, arrived_reward: weights.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
        normalize_reward: whether an agent's reward is mapped to [0, 1].
        offroad_terminal: whether leaving the road ends the episode.
    """

    destination: str = "o1"
    initial_vehicles: int = 10
    spawn_probability: float = 0.6
    collision_reward: float = -5.0
    high_speed_reward: float = 1.0
    arrived_reward: float = 1.0
    reward_speeds: tuple[float, float] = (7.0, 9.0)
    normalize_reward: bool = False
    offroad_terminal: bool = False
    max_agents = 4

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network()]

    def destinations(self, maps: list[RoadNetwork]) -> list[list[str]]:
        """See `Scenario.destinations`."""
        return [list(GOALS)]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        (network,) = maps
        leaving = ["il" in start and "o" in end for start, end, _ in network.indices]
        return {
            "ego_kind": ego_kind,
            "destination": GOALS.index(self.destination) if self.destination else -1,
            "initial_vehicles": self.initial_vehicles,
            "spawn_probability": self.spawn_probability,
            "entries": np.array([network.number((f"o{arm}", f"ir{arm}", 0)) for arm in range(4)], dtype=np.int32),
            "leaving": np.array(leaving, dtype=np.int32),
            "collision_reward": self.collision_reward,
            "high_speed_reward": self.high_speed_reward,
            "arrived_reward": self.arrived_reward,
            "speed_low": self.reward_speeds[0],
            "speed_high": self.reward_speeds[1],
            "normalize": int(self.normalize_reward),
            "offroad_terminal": int(self.offroad_terminal),
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        ranges = {"x": (-100.0, 100.0), "y": (-100.0, 100.0), "vx": (-20.0, 20.0), "vy": (-20.0, 20.0)}
        features, rows = ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h"), 15
        if self.actions.kind == "dynamic":
            features, rows = ("presence", "x", "y", "vx", "vy", "long_off", "lat_off", "ang_off"), 5
        return [VehicleList(simulation, features, rows=rows, ranges=ranges, absolute=True)]


INTERSECTION = Intersection(
    name="intersection",
    family="intersection",
    upstream_id="intersection-v0",
    vehicles=19,
    duration=13.0,
    actions=LONGITUDINAL,
    target_speeds=(0.0, 9.0, 3),
    driver=DriverModel(comfort_acceleration=6.0, comfort_deceleration=3.0, jam_distance=7.0),
    regulated=True,
    route_steps=3,
    warm_up=3.0,
)
INTERSECTION_CONTINUOUS = replace(
    INTERSECTION,
    name="intersection-continuous",
    family="intersection-continuous",
    upstream_id="intersection-v1",
    actions=ActionSet(kind="dynamic", names=(), steering_range=(-math.pi / 3, math.pi / 3)),
)
INTERSECTION_MULTI = replace(
    INTERSECTION,
    name="intersection-multi-agent",
    family="intersection-multi-agent",
    upstream_id="intersection-multi-agent-v0",
    agents=2,
)

ROOM = 15.0  # m, between a vehicle that enters and any other
EGO_ROOM = 20.0  # m, around an agent at the start
ARRIVED = 25.0  # m behind the junction
LEAVE = 20.0  # m before the end of the road
DRAWS = 8


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    draw = random.build(real)
    normal, uniform, below = draw.normal, draw.uniform, draw.below
    initial, coming, draws = random.SPAWN, random.TRAFFIC, DRAWS
    idm, obstacle = IDM, OBSTACLE
    zero, one, room, ego_room = real(0.0), real(1.0), real(ROOM), real(EGO_ROOM)
    arrived_at, leave = real(ARRIVED), real(LEAVE)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        destination: wp.int32
        initial_vehicles: wp.int32
        spawn_probability: real
        entries: wp.array(dtype=wp.int32)
        leaving: wp.array(dtype=wp.int32)
        collision_reward: real
        high_speed_reward: real
        arrived_reward: real
        speed_low: real
        speed_high: real
        normalize: wp.int32
        offroad_terminal: wp.int32
        step_duration: real
        duration: real

    @wp.func
    def bring_in(
        world: wp.ref[World],
        road: wp.ref[Road],
        task: wp.ref[Task],
        seed: wp.uint64,
        w: int,
        purpose: int,
        k: int,
        s: real,
        spread: real,
        speed_spread: real,
        probability: real,
        straight: bool,
    ):
        """A vehicle on a random arm, unless chance, another vehicle or a lack of slots is against it."""
        id = world.world_id[w]
        episode = world.episode[w]
        if uniform(seed, id, episode, purpose, k) > probability:
            return
        arm = below(seed, id, episode, purpose, k + 1, 4)
        goal = (arm + 1 + below(seed, id, episode, purpose, k + 2, 3)) % 4
        if straight:
            goal = (arm + 2) % 4
        lane = task.entries[arm]
        s = s + real(5.0) + spread * normal(seed, id, episode, purpose, k + 3)
        place = road_functions.position(road.lanes, lane, s, zero)
        slot = int(-1)
        for j in range(world.slots):
            if world.vehicle[w, j].kind == 0:
                if slot < 0 and j >= world.agents:
                    slot = j
            else:
                dx = world.vehicle[w, j].x - place[0]
                dy = world.vehicle[w, j].y - place[1]
                if dx * dx + dy * dy < room * room:
                    return
        if slot < 0:
            return
        speed = real(8.0) + speed_spread * normal(seed, id, episode, purpose, k + 4)
        setting.put_on(world, road, w, slot, idm, lane, s, speed)
        setting.plan(world, road, w, slot, goal)
        world.vehicle[w, slot].exponent = real(3.5) + uniform(seed, id, episode, purpose, k + 5)
        world.vehicle[w, slot].sequence = world.arrivals[w]
        world.arrivals[w] = world.arrivals[w] + 1

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        for i in range(world.slots):
            setting.clear(world, w, i)
        for k in range(task.initial_vehicles - 1):
            s = real(80.0) * real(k) / real(task.initial_vehicles - 1)
            bring_in(world, road, task, seed, w, initial, k * draws, s, one, one, real(0.6), False)

    @wp.func
    def enter(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """A challenger that crosses straight on, then the agents, around whom there is room."""
        id = world.world_id[w]
        episode = world.episode[w]
        first = task.initial_vehicles * draws
        bring_in(world, road, task, seed, w, initial, first, real(60.0), real(0.1), zero, real(2.0), True)
        for i in range(world.agents):
            k = first + (1 + i) * draws
            lane = task.entries[i % 4]
            s = real(60.0) + real(5.0) * (one + normal(seed, id, episode, initial, k))
            setting.put_on(world, road, w, i, idm, lane, s, road_functions.speed_limit(road, lane))
            goal = int(task.destination)
            if goal < 0:
                goal = 1 + below(seed, id, episode, initial, k + 1, 3)
            setting.plan(world, road, w, i, goal)
            setting.engage(world, road, controls, w, i, task.ego_kind)
            world.vehicle[w, i].finished = 0
            world.vehicle[w, i].sequence = world.arrivals[w]
            world.arrivals[w] = world.arrivals[w] + 1
            for j in range(world.agents, world.slots):
                dx = world.vehicle[w, j].x - world.vehicle[w, i].x
                dy = world.vehicle[w, j].y - world.vehicle[w, i].y
                if world.vehicle[w, j].kind != 0 and dx * dx + dy * dy < ego_room * ego_room:
                    setting.clear(world, w, j)

    @wp.func
    def traffic(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """Vehicles leave at the end of the road, and one may enter."""
        for i in range(world.agents, world.slots):
            lane = world.vehicle[w, i].lane
            gone = task.leaving[lane] != 0 and world.vehicle[w, i].lane_s >= road.lanes.lane[lane].length - leave
            if (
                world.vehicle[w, i].kind != 0
                and world.vehicle[w, i].kind < obstacle
                and (gone or world.vehicle[w, i].route_end == 0)
            ):
                setting.clear(world, w, i)
        k = world.episode_length[w] * draws
        bring_in(world, road, task, seed, w, coming, k, zero, one, one, task.spawn_probability, False)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        reward = real(0.0)
        crash = bool(False)
        all_arrived = bool(True)
        for i in range(world.agents):
            lane = world.vehicle[w, i].lane
            arrived = task.leaving[lane] != 0 and world.vehicle[w, i].lane_s >= arrived_at
            fast = wp.clamp(scores.share(world.vehicle[w, i].speed, task.speed_low, task.speed_high), zero, one)
            own = task.collision_reward * real(world.vehicle[w, i].crashed) + task.high_speed_reward * fast
            if arrived:
                own = task.arrived_reward
            if not scores.on_road(world, road, w, i):
                own = zero
            if task.normalize != 0:
                own = scores.share(own, task.collision_reward, task.arrived_reward)
            world.vehicle[w, i].reward_share = own
            world.vehicle[w, i].finished = wp.where(arrived or world.vehicle[w, i].crashed != 0, 1, 0)
            crash = crash or world.vehicle[w, i].crashed != 0
            all_arrived = all_arrived and arrived
            reward = reward + own
        reward = reward / real(world.agents)
        off_road = task.offroad_terminal != 0 and not scores.on_road(world, road, w, 0)
        world.success[w] = wp.where(all_arrived and not crash, 1, 0)
        scores.conclude(world, w, reward, crash or all_arrived or off_road, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, enter=enter, traffic=traffic, score=score)
