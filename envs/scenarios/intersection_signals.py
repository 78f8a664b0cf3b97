"""Crossing a junction with traffic signals, in traffic that obeys them.

The ego comes towards a crossing and chooses its speed: SLOWER, IDLE, FASTER among 0, 6.5 and 13 m/s; where it goes is
drawn, and it is told as by a navigation system (the observation's key "route", see `envs.sensors.route`): of two heads
side by side, the one with arrows is for those who turn left. Each world draws one of the plans of
`envs.roads.maps.signalised` and a time of its cycle. What the signals show is in no state observation: it has to be
seen by the camera.

Reward of a step, of 7 frames of 1/15 s:

    0.1 min(v / 13 m/s, 1) + arrived - 2 crashed - 2 (a red light run) - 0.1 (standing in the junction, or at a green
    light with a free road ahead)

The first term sums to about 2.6 over the way, however long it takes. An episode ends with a crash, when the ego is 25 m
behind the junction, or after 40 s. The state's `red_lights`, `box_time` and `green_wait` count what it did wrong.
"""

import functools
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs import random
from envs.physics import idm as driving_law
from envs.physics import junctions
from envs.physics.idm import DriverModel
from envs.precision import Functions
from envs.roads.crossings import LEFT, OUT, RIGHT, STRAIGHT
from envs.roads.maps import signalised
from envs.roads.maps.signalised import Plan
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import LONGITUDINAL, Scenario
from envs.state import IDM, OBSTACLE, world_struct

TURNS = (LEFT, STRAIGHT, RIGHT)
PLACES = 2  # lanes of an approach at most


@dataclass(frozen=True)
class IntersectionSignals(Scenario):
    """Parameters of the family.

    Attributes:
        plans: of which each world draws one.
        rate: vehicles that come in a second, on all approaches together.
        density: share of the places on the approaches that are taken at the start.
        arrived_reward, collision_reward, red_light_reward, speed_reward, blocking_reward: weights.
    """

    plans: tuple[Plan, ...] = signalised.PLANS
    rate: float = 0.3
    density: float = 0.15
    arrived_reward: float = 1.0
    collision_reward: float = -2.0
    red_light_reward: float = -2.0
    speed_reward: float = 0.1
    blocking_reward: float = -0.1

    longest = 16.0
    tells_route = True

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [signalised.network(plan) for plan in self.plans]

    def destinations(self, maps: list[RoadNetwork]) -> list[list[str]]:
        """See `Scenario.destinations`: the four arms."""
        return [[signalised.destination(arm) for arm in range(4)] for _ in maps]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        entries, leaving, first = [], [], 0
        # A step has a whole number of frames; signals keep the time of the frames.
        step = self.frames_per_step / self.simulation_frequency
        for plan, network in zip(self.plans, maps, strict=False):
            for arm in range(4):
                for turn in TURNS:
                    numbers = [
                        first + network.number(signalised.approach(arm, place))
                        for place in signalised.places(plan, arm, turn)
                    ]
                    entries += numbers + numbers[-1:] * (PLACES - len(numbers))
            leaving += [end.endswith(".to") for _, end, _ in network.indices]
            first += len(network.lanes)
        return {
            "ego_kind": ego_kind,
            "maps": len(maps),
            "chance": self.rate * step,
            "density": self.density,
            "entries": np.array(entries, dtype=np.int32),
            "exits": np.array([OUT[turn] for turn in TURNS], dtype=np.int32),
            "leaving": np.array(leaving, dtype=np.int32),
            "arrived_reward": self.arrived_reward,
            "collision_reward": self.collision_reward,
            "red_light_reward": self.red_light_reward,
            "speed_reward": self.speed_reward,
            "blocking_reward": self.blocking_reward,
            "top_speed": self.target_speeds[1],
            "step_duration": step,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`: the vehicles around, in the plane of the crossing. Signals are not in it."""
        from envs.sensors.vehicle_list import VehicleList

        ranges = {"x": (-150.0, 150.0), "y": (-150.0, 150.0), "vx": (-20.0, 20.0), "vy": (-20.0, 20.0)}
        features = ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h", "cos_d", "sin_d")
        return [VehicleList(simulation, features, rows=15, ranges=ranges, absolute=True)]


INTERSECTION_SIGNALS = IntersectionSignals(
    name="intersection-signals",
    family="intersection-signals",
    vehicles=36,
    policy_frequency=2,
    duration=40.0,
    actions=LONGITUDINAL,
    target_speeds=(0.0, 13.0, 3),
    driver=DriverModel(comfort_acceleration=2.5, comfort_deceleration=3.0, jam_distance=7.0, headway=1.2),
    route_steps=4,
)

ARRIVED = 25.0  # m behind the junction
LEAVE = 10.0  # m before the end of the road
ENTRY = 6.0  # m behind its start
EGO_START = (60.0, 110.0)  # m before the line
EGO_ROOM = 20.0  # m, on the ego's lane, where nobody else is at the start
SPACING = 12.0  # m between places on an approach
DRAWS = 8
BRAKING = 2.5  # m/s2, with which whoever is placed can come to rest


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, and `spawn`, `traffic` and `score` of a world."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    crossing = junctions.build(real, road_functions, driving_law.build(real))
    draw = random.build(real)
    normal, uniform, below = draw.normal, draw.uniform, draw.below
    initial, coming, draws, places = random.SPAWN, random.TRAFFIC, DRAWS, PLACES
    idm, obstacle, granted, inside = IDM, OBSTACLE, junctions.GRANTED, junctions.INSIDE
    zero, one, half, two = real(0.0), real(1.0), real(0.5), real(2.0)
    arrived_at, leave, entry, ego_room = real(ARRIVED), real(LEAVE), real(ENTRY), real(EGO_ROOM)
    nearest, farthest, spacing = real(EGO_START[0]), real(EGO_START[1]), real(SPACING)
    braking, stands = real(BRAKING), real(junctions.STANDS)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        maps: wp.int32
        chance: real
        density: real
        entries: wp.array(dtype=wp.int32)  # [((map, arm, turn), choice)] lanes
        exits: wp.array(dtype=wp.int32)  # [turn] by how many arms it leads on
        leaving: wp.array(dtype=wp.int32)  # [lane]
        arrived_reward: real
        collision_reward: real
        red_light_reward: real
        speed_reward: real
        blocking_reward: real
        top_speed: real
        step_duration: real
        duration: real

    @wp.func
    def put_driver(
        world: wp.ref[World], road: wp.ref[Road], seed: wp.uint64, w: int, i: int, purpose: int, k: int,
        lane: int, s: real, speed: real, goal: int,
    ):  # fmt: skip
        """A driver with a way of driving of its own, on its way to an arm."""
        id = world.world_id[w]
        episode = world.episode[w]
        setting.put_on(world, road, w, i, idm, lane, s, speed)
        setting.plan(world, road, w, i, goal)
        limit = road_functions.speed_limit(road, lane)
        share = wp.clamp(real(0.95) + real(0.1) * normal(seed, id, episode, purpose, k), real(0.7), real(1.2))
        world.vehicle[w, i].target_speed = limit * share
        world.vehicle[w, i].exponent = real(3.5) + uniform(seed, id, episode, purpose, k + 1)
        world.vehicle[w, i].changes_lanes = 0
        world.vehicle[w, i].sequence = world.arrivals[w]
        world.arrivals[w] = world.arrivals[w] + 1

    @wp.func
    def lane_for(task: wp.ref[Task], m: int, arm: int, turn: int, choice: int) -> int:
        return task.entries[((m * 4 + arm) * 3 + turn) * places + choice]

    @wp.func
    def free_slot(world: wp.ref[World], w: int) -> int:
        for j in range(world.agents, world.slots):
            if world.vehicle[w, j].kind == 0:
                return j
        return -1

    @wp.func
    def fill(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        """Vehicles on the approaches, each able to stop behind the one before it and at the line."""
        id = world.world_id[w]
        episode = world.episode[w]
        k = int(draws)
        for lane in range(road.map_lane[world.map[w]], road.map_lane[world.map[w] + 1]):
            if road.ways.ahead[lane] != 0:
                ahead = real(road.lanes.lane[lane].length + half * spacing)
                speed_ahead = real(0.0)
                place = ahead - spacing
                while place > spacing:
                    k = k + draws
                    s = place - two * uniform(seed, id, episode, initial, k)
                    place = place - spacing
                    if lane == world.vehicle[w, 0].lane and wp.abs(s - world.vehicle[w, 0].lane_s) < ego_room:
                        ahead = world.vehicle[w, 0].lane_s
                        speed_ahead = world.vehicle[w, 0].speed
                    else:
                        goal = goal_of(world, road, task, seed, w, lane, k + 1)
                        slot = free_slot(world, w)
                        if goal >= 0 and slot >= 0 and uniform(seed, id, episode, initial, k + 2) < task.density:
                            distance = wp.max(ahead - s - spacing, zero)
                            speed = wp.min(
                                wp.sqrt(two * braking * distance + speed_ahead * speed_ahead),
                                road_functions.speed_limit(road, lane),
                            )
                            put_driver(world, road, seed, w, slot, initial, k + 3, lane, s, speed, goal)
                            ahead = s
                            speed_ahead = speed

    @wp.func
    def goal_of(
        world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, lane: int, k: int
    ) -> int:
        """A destination for who is on this approach, -1 for none."""
        id = world.world_id[w]
        episode = world.episode[w]
        turn = below(seed, id, episode, initial, k, 3)
        for arm in range(4):
            for choice in range(places):
                if lane_for(task, world.map[w], arm, turn, choice) == lane:
                    return (arm + task.exits[turn]) % 4
        return -1

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        for i in range(world.slots):
            setting.clear(world, w, i)
        m = below(seed, id, episode, initial, 0, task.maps)
        world.map[w] = m
        world.red_lights[w] = 0
        world.box_time[w] = zero
        world.green_wait[w] = zero
        crossing.start(world, road, w, real(200.0) * uniform(seed, id, episode, initial, 1))
        arm = below(seed, id, episode, initial, 2, 4)
        turn = below(seed, id, episode, initial, 3, 3)
        lane = lane_for(task, m, arm, turn, below(seed, id, episode, initial, 4, places))
        away = nearest + (farthest - nearest) * uniform(seed, id, episode, initial, 5)
        s = road.lanes.lane[lane].length - away
        put_driver(world, road, seed, w, 0, initial, 6, lane, s, task.top_speed, (arm + task.exits[turn]) % 4)
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        fill(world, road, task, seed, w)

    @wp.func
    def traffic(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """Vehicles leave at the end of the road, and one may come in."""
        for i in range(world.agents, world.slots):
            lane = world.vehicle[w, i].lane
            gone = task.leaving[lane] != 0 and world.vehicle[w, i].lane_s >= road.lanes.lane[lane].length - leave
            if gone and world.vehicle[w, i].kind != 0 and world.vehicle[w, i].kind < obstacle:
                setting.clear(world, w, i)
        id = world.world_id[w]
        episode = world.episode[w]
        k = world.episode_length[w] * draws
        slot = free_slot(world, w)
        if slot < 0 or uniform(seed, id, episode, coming, k) >= task.chance:
            return
        arm = below(seed, id, episode, coming, k + 1, 4)
        turn = below(seed, id, episode, coming, k + 2, 3)
        lane = lane_for(task, world.map[w], arm, turn, below(seed, id, episode, coming, k + 3, places))
        # As fast as lets it stay behind the last one on its lane.
        speed = real(road_functions.speed_limit(road, lane))
        for j in range(world.slots):
            if world.vehicle[w, j].kind != 0 and world.vehicle[w, j].lane == lane:
                gap = world.vehicle[w, j].lane_s - entry - spacing
                if gap < zero:
                    return
                speed = wp.min(
                    speed, wp.sqrt(two * braking * gap + world.vehicle[w, j].speed * world.vehicle[w, j].speed)
                )
        put_driver(world, road, seed, w, slot, coming, k + 4, lane, entry, speed, (arm + task.exits[turn]) % 4)

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
        crashed = world.vehicle[w, 0].crashed != 0
        arrived = task.leaving[lane] != 0 and world.vehicle[w, 0].lane_s >= arrived_at and not crashed
        speed = world.vehicle[w, 0].speed
        reward = task.speed_reward * wp.clamp(speed / task.top_speed, zero, one)
        if crashed:
            reward = reward + task.collision_reward
        if arrived:
            reward = reward + task.arrived_reward
        if crossing.ran_red(world, w, 0):
            reward = reward + task.red_light_reward
        stage = crossing.stage(world, w, 0)
        if wp.abs(speed) < stands and (stage == granted or stage >= inside):
            reward = reward + task.blocking_reward
        world.vehicle[w, 0].finished = wp.where(arrived or crashed, 1, 0)
        world.success[w] = wp.where(arrived, 1, 0)
        scores.conclude(world, w, reward, crashed or arrived, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, traffic=traffic, score=score)
