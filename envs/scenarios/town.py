"""Driving through a town: along streets and arterials, over crossings of every kind, to a destination.

Each episode is in one of many towns of `envs.roads.town`, drawn anew: "town" has those for training and
"town-held-out" those kept for evaluation. The ego has a route to a place at the border, 250 to 600 m beyond the street
on which it begins, which it knows from the observation's key "route" (`envs.sensors.route`). It is steered along the
lanes of the route; it chooses its speed, among 0, 4, 8, 12 and 16 m/s, and its lane, by all five meta-actions, three
times a second. Nobody's route asks for a change of lane: all are the shortest that keep to the lane on which they begin
(`envs.scenarios.town_trips`). An ego that has changed lanes takes the same roads: straight on it keeps its lane, and
where only another lane turns it is steered across to that one's turn, in front of whoever is there.

Others drive by IDM and the law of junctions (`envs.physics.junctions`) on routes of their own and never change lanes;
they leave at the border, where others come in. Wrecks that the ego is no part of are removed at once. People use the
crossings around the ego (`envs.scenarios.town_people`).

Reward of a step, of 5 frames of 1/15 s:

    0.05 min(v / limit, 1) + 2 arrived - 5 (crashed or left the route) - 2 (a red light run)
    - 1 (not giving way) - 0.1 (standing in a junction, or at a green light with a free road ahead)

v is the speed along the lane: the first term sums to about 5 over 500 m, however long they take. Not giving way is to
go on into a junction, no longer able to stop, where one had to wait for others, once each time; and to pass a zebra in
front of someone who goes first, in every step of it. An episode ends with a crash, off the lanes of the route, 10 m
before the end of the route's last road, which is success, or after 120 s. The state's `red_lights`, `box_time` and
`green_wait` count what it did wrong; the ego's `patience`, of which agents have no other, is the stage in the law of
junctions that it had reached a step ago.
"""

import functools
from dataclasses import dataclass, replace

import warp as wp

from envs import random
from envs.errors import UserError
from envs.physics import idm as driving_law
from envs.physics import junctions, walkers
from envs.physics.idm import DriverModel
from envs.precision import Functions
from envs.roads import town as towns
from envs.roads.general import PLACES
from envs.roads.network import RoadNetwork
from envs.roads.signals import AMBER, RED
from envs.scenarios import placing, scoring, town_people, town_trips
from envs.scenarios.base import Scenario
from envs.state import IDM, OBSTACLE, world_struct


@functools.lru_cache(maxsize=4)
def generated(first_seed: int, count: int, held_out: bool) -> tuple[towns.Town, ...]:
    """The towns of the first `count` seeds from `first_seed` on that belong to a split."""
    made, seed = [], first_seed
    while len(made) < count:
        if towns.is_held_out(seed) == held_out:
            made.append(towns.generate(seed))
        seed += 1
    return tuple(made)


@dataclass(frozen=True)
class DrivingInTown(Scenario):
    """Parameters of the family. Slots: the ego, traffic, people.

    Attributes:
        map_count: how many towns there are.
        first_seed: the seed from which on they are taken.
        held_out: whether they are those kept for evaluation.
        traffic: vehicles that drive at most.
        people: how many are on foot.
        rate: vehicles that come in a second, while there is room for them.
        trip: least and greatest length of the ego's trip, beyond the street on which it begins [m].
        progress_reward, arrived_reward, collision_reward, red_light_reward, yield_reward, blocking_reward: weights.
    """

    map_count: int = 16
    first_seed: int = 0
    held_out: bool = False
    traffic: int = 24
    people: int = 6
    rate: float = 0.5
    trip: tuple[float, float] = (250.0, 600.0)
    progress_reward: float = 0.05
    arrived_reward: float = 2.0
    collision_reward: float = -5.0
    red_light_reward: float = -2.0
    yield_reward: float = -1.0
    blocking_reward: float = -0.1

    def __post_init__(self):
        super().__post_init__()
        if self.map_count < 1 or self.first_seed < 0:
            raise UserError(
                f"driving in town needs a map and a first seed of 0 or more, not {self.map_count}, {self.first_seed}"
            )
        if min(self.traffic, self.people) < 0 or self.traffic + self.people > self.vehicles:
            raise UserError(f"{self.traffic} vehicles and {self.people} people need as many slots, not {self.vehicles}")
        if self.network is not None:
            raise UserError("driving in town is done on generated maps, not on a network of one's own")

    def towns(self) -> tuple[towns.Town, ...]:
        """Its towns, in the order of its maps."""
        return generated(self.first_seed, self.map_count, self.held_out)

    longest = 16.0
    tells_route = True

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [town.network for town in self.towns()]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        weights = ("progress", "arrived", "collision", "red_light", "yield", "blocking")
        return {
            **town_trips.table(list(self.towns()), *self.trip),
            **town_people.table(maps),
            **{f"{name}_reward": getattr(self, f"{name}_reward") for name in weights},
            **self.times(ego_kind),
            "maps": len(maps),
            "traffic": self.traffic,
            "people": self.people,
            "chance": self.rate / self.policy_frequency,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`: the vehicles around, in the plane. Signals are not in it."""
        from envs.sensors.vehicle_list import VehicleList

        features = ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h")
        ranges = {"x": (-100.0, 100.0), "y": (-100.0, 100.0), "vx": (-20.0, 20.0), "vy": (-20.0, 20.0)}
        return [VehicleList(simulation, features, rows=15, ranges=ranges, see_behind=True)]

    def manoeuvres(self, maps: list[RoadNetwork]) -> list[dict[tuple[str, str], str]]:
        """See `Scenario.manoeuvres`: as the towns were built."""
        return [town.manoeuvres for town in self.towns()]


TOWN = DrivingInTown(
    name="town",
    family="town",
    vehicles=30,
    policy_frequency=3,
    duration=120.0,
    target_speeds=(0.0, 16.0, 5),
    driver=DriverModel(comfort_acceleration=2.5, comfort_deceleration=3.0, jam_distance=7.0, headway=1.2),
    route_steps=48,
)
TOWN_HELD_OUT = replace(TOWN, name="town-held-out", held_out=True)

ENTRY = towns.ENTRY
LEAVE = 10.0  # m before the end of the road out of town
ENDS = (6.0, 20.0)  # m: nobody is placed so close to the start and the end of a street
SPACING = 12.0  # m between vehicles on a street at the start
TRIES = 4  # to find a free place for a vehicle
BRAKING = 2.5  # m/s2, with which whoever is placed can come to rest
DRAWS = 16  # random numbers for one vehicle
# How far beyond its edges the ego still is on a lane of its route [m]: on streets, and where it may cut across to a
# turn from another lane.
OFF_STREET, OFF_JUNCTION = 1.0, 4.0


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, and `spawn`, `traffic` and `score` of a world."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    on_foot = town_people.build(real, road_functions, action_functions)
    law = driving_law.build(real)
    crossing, people = junctions.build(real, road_functions, law), walkers.build(real, road_functions, law)
    draw = random.build(real)
    normal, uniform, below = draw.normal, draw.uniform, draw.below
    initial, coming, draws, tries, places = random.SPAWN, random.TRAFFIC, DRAWS, TRIES, PLACES
    idm, obstacle, red, amber = IDM, OBSTACLE, RED, AMBER
    waits, granted, committed, inside = junctions.WAITS, junctions.GRANTED, junctions.COMMITTED, junctions.INSIDE
    stages = junctions.STAGES
    zero, one, two = real(0.0), real(1.0), real(2.0)
    leave, entry, spacing, braking = real(LEAVE), real(ENTRY), real(SPACING), real(BRAKING)
    from_start, from_end = real(ENDS[0]), real(ENDS[1])
    off_street, off_junction, stands = real(OFF_STREET), real(OFF_JUNCTION), real(junctions.STANDS)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        maps: wp.int32
        traffic: wp.int32
        people: wp.int32
        chance: real
        onward: wp.array2d(dtype=wp.int32)  # [lane, goal] the lane after it, see `town_trips.table`
        goals: wp.array(dtype=wp.int32)  # [map]
        leaving: wp.array(dtype=wp.int32)  # [lane]
        street: wp.array(dtype=wp.int32)  # lanes
        first_street: wp.array(dtype=wp.int32)  # [map + 1]
        entry: wp.array(dtype=wp.int32)  # lanes
        first_entry: wp.array(dtype=wp.int32)  # [map + 1]
        trip: wp.array(dtype=wp.int32)  # lanes
        trip_goal: wp.array(dtype=wp.int32)
        first_trip: wp.array(dtype=wp.int32)  # [map + 1]
        walk: wp.array2d(dtype=real)  # [crossing, 4] m, see `town_people.table`
        zebra: wp.array(dtype=wp.int32)  # [crossing]
        head: wp.array(dtype=wp.int32)  # [crossing]
        first_walk: wp.array(dtype=wp.int32)  # [map + 1]
        progress_reward: real
        arrived_reward: real
        collision_reward: real
        red_light_reward: real
        yield_reward: real
        blocking_reward: real
        step_duration: real
        duration: real

    # --- vehicles come and go -------------------------------------------------------------------------------------

    @wp.func
    def put_driver(
        world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, i: int, purpose: int,
        k: int, lane: int, s: real, speed: real, goal: int,
    ):  # fmt: skip
        """A driver with a way of driving of its own, on its way to a destination."""
        id = world.world_id[w]
        episode = world.episode[w]
        setting.put_on(world, road, w, i, idm, lane, s, speed)
        setting.plan_lanes(world, road, task.onward, w, i, goal)
        limit = road_functions.speed_limit(road, lane)
        share = wp.clamp(real(0.95) + real(0.1) * normal(seed, id, episode, purpose, k), real(0.7), real(1.2))
        world.vehicle[w, i].target_speed = limit * share
        world.vehicle[w, i].exponent = real(3.5) + uniform(seed, id, episode, purpose, k + 1)
        world.vehicle[w, i].changes_lanes = 0
        world.vehicle[w, i].sequence = world.arrivals[w]
        world.arrivals[w] = world.arrivals[w] + 1

    @wp.func
    def goal_from(
        world: wp.ref[World], task: wp.ref[Task], seed: wp.uint64, w: int, purpose: int, k: int, lane: int
    ) -> int:
        """A destination to which a way leads from a lane."""
        count = task.goals[world.map[w]]
        goal = below(seed, world.world_id[w], world.episode[w], purpose, k, count)
        for _ in range(count):
            if task.onward[lane, goal] >= 0:
                return goal
            goal = (goal + 1) % count
        return goal

    @wp.func
    def is_free(world: wp.ref[World], w: int, lane: int, s: real) -> bool:
        for j in range(world.slots):
            if (
                world.vehicle[w, j].kind != 0
                and world.vehicle[w, j].kind < obstacle
                and world.vehicle[w, j].lane == lane
            ):
                if wp.abs(world.vehicle[w, j].lane_s - s) < spacing:
                    return False
        return True

    @wp.func
    def place(
        world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, i: int, first: int
    ):
        """Put a vehicle on some street, where that is free."""
        id = world.world_id[w]
        episode = world.episode[w]
        m = world.map[w]
        count = task.first_street[m + 1] - task.first_street[m]
        k = first + draws * i
        for attempt in range(tries):
            lane = task.street[task.first_street[m] + below(seed, id, episode, initial, k + attempt, count)]
            room = road.lanes.lane[lane].length - from_start - from_end
            s = from_start + room * uniform(seed, id, episode, initial, k + tries + attempt)
            if is_free(world, w, lane, s):
                goal = goal_from(world, task, seed, w, initial, k + 2 * tries, lane)
                put_driver(world, road, task, seed, w, i, initial, k + 2 * tries + 1, lane, s, real(0.0), goal)
                return

    @wp.func
    def set_speeds(world: wp.ref[World], road: wp.ref[Road], w: int, last: int):
        """Everybody as fast as lets it come to rest behind the vehicle ahead, if that stood, and at the line."""
        for i in range(last + 1):
            if world.vehicle[w, i].kind != 0:
                lane = world.vehicle[w, i].lane
                s = world.vehicle[w, i].lane_s
                room = road.lanes.lane[lane].length - s
                for j in range(last + 1):
                    if (
                        world.vehicle[w, j].kind != 0
                        and world.vehicle[w, j].lane == lane
                        and world.vehicle[w, j].lane_s > s
                    ):
                        room = wp.min(room, world.vehicle[w, j].lane_s - s)
                fastest = wp.sqrt(two * braking * wp.max(room - spacing, zero))
                world.vehicle[w, i].speed = wp.min(fastest, world.vehicle[w, i].target_speed)

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
        trips = task.first_trip[m + 1] - task.first_trip[m]
        trip = task.first_trip[m] + below(seed, id, episode, initial, 2, trips)
        lane = task.trip[trip]
        room = road.lanes.lane[lane].length - from_start - from_end
        s = from_start + room * uniform(seed, id, episode, initial, 3)
        put_driver(world, road, task, seed, w, 0, initial, 4, lane, s, real(0.0), task.trip_goal[trip])
        for i in range(1, task.traffic + 1):
            place(world, road, task, seed, w, i, 0)
        set_speeds(world, road, w, task.traffic)
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        on_foot.assemble(world, road, task.walk, task.zebra, task.first_walk, seed, w, task.people)

    @wp.func
    def come_in(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        """Perhaps a vehicle at some entry, as fast as lets it stay behind the last one on its lane."""
        id = world.world_id[w]
        episode = world.episode[w]
        k = draws * world.episode_length[w]
        slot = int(-1)
        for j in range(1, task.traffic + 1):
            if slot < 0 and world.vehicle[w, j].kind == 0:
                slot = j
        if slot < 0 or uniform(seed, id, episode, coming, k) >= task.chance:
            return
        first = task.first_entry[world.map[w]]
        count = task.first_entry[world.map[w] + 1] - first
        lane = task.entry[first + below(seed, id, episode, coming, k + 1, count)]
        speed = real(road_functions.speed_limit(road, lane))
        for j in range(world.slots):
            if (
                world.vehicle[w, j].kind != 0
                and world.vehicle[w, j].kind < obstacle
                and world.vehicle[w, j].lane == lane
            ):
                gap = world.vehicle[w, j].lane_s - entry - spacing
                if gap < zero:
                    return
                speed = wp.min(
                    speed, wp.sqrt(two * braking * gap + world.vehicle[w, j].speed * world.vehicle[w, j].speed)
                )
        goal = goal_from(world, task, seed, w, coming, k + 2, lane)
        put_driver(world, road, task, seed, w, slot, coming, k + 3, lane, entry, speed, goal)

    @wp.func
    def traffic(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """Vehicles leave at the border, another may come in, and people decide."""
        for i in range(1, task.traffic + 1):
            lane = world.vehicle[w, i].lane
            out = task.leaving[lane] != 0 and world.vehicle[w, i].lane_s >= road.lanes.lane[lane].length - leave
            if world.vehicle[w, i].kind != 0 and (out or world.vehicle[w, i].crashed != 0):
                setting.clear(world, w, i)
        come_in(world, road, task, seed, w)
        on_foot.stroll(world, road, task.walk, task.zebra, task.head, task.first_walk, seed, w, task.people)

    # --- what the ego does ----------------------------------------------------------------------------------------

    @wp.func
    def follow_route(world: wp.ref[World], road: wp.ref[Road], w: int):
        """Move on in the route to the road that the ego is on; drivers and meta-actions are further already."""
        here = road.of_lane[world.vehicle[w, 0].lane].road
        at = world.vehicle[w, 0].route_at
        for step in range(at, wp.min(at + 3, world.vehicle[w, 0].route_end)):
            if world.route[w, 0, step] / places == here:
                world.vehicle[w, 0].route_at = step

    @wp.func
    def is_on_route(world: wp.ref[World], road: wp.ref[Road], w: int) -> bool:
        """Whether the ego is on a lane of the present road of its route, of the last one or of the next two."""
        at = world.vehicle[w, 0].route_at
        for step in range(wp.max(at - 1, 0), wp.min(at + 3, world.vehicle[w, 0].route_end)):
            here = world.route[w, 0, step] / places
            first = road.road_lane[here]
            for lane in range(first, first + road.road_lanes[here]):
                margin = wp.where(road.ways.of_lane[lane] >= 0, off_junction, off_street)
                if road_functions.on_lane(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y, margin):
                    return True
        return False

    @wp.func
    def barges_in(world: wp.ref[World], road: wp.ref[Road], w: int, stage: int) -> bool:
        """Whether the ego goes on into a junction where it had to wait for others a step ago."""
        before = int(world.vehicle[w, 0].patience)
        world.vehicle[w, 0].patience = real(stage)
        if before != waits or stage < committed or stage > inside:
            return False
        head = road.ways.head[world.vehicle[w, 0].yields / stages]
        if head < 0:
            return True
        return world.signal[w, head] != red and world.signal[w, head] != amber

    @wp.func
    def progress(world: wp.ref[World], road: wp.ref[Road], w: int) -> real:
        """Speed along the lane, as a share of its limit."""
        lane = scores.chosen_lane(world, w, 0)
        along = road_functions.heading_at(road, lane, road_functions.local_of(world, road, w, 0, lane)[0])
        speed = world.vehicle[w, 0].speed * wp.cos(world.vehicle[w, 0].heading - along)
        return wp.clamp(speed / road_functions.speed_limit(road, lane), zero, one)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        follow_route(world, road, w)
        lane = world.vehicle[w, 0].lane
        crashed = world.vehicle[w, 0].crashed != 0
        lost = not is_on_route(world, road, w)
        last = world.route[w, 0, world.vehicle[w, 0].route_end - 1] / places
        at_end = road.of_lane[lane].road == last and world.vehicle[w, 0].lane_s >= road.lanes.lane[lane].length - leave
        arrived = at_end and not crashed and not lost
        reward = task.progress_reward * progress(world, road, w)
        if crashed or lost:
            reward = reward + task.collision_reward
        if arrived:
            reward = reward + task.arrived_reward
        stage = crossing.stage(world, w, 0)
        barges = barges_in(world, road, w, stage)
        if crossing.ran_red(world, w, 0):
            reward = reward + task.red_light_reward
        if barges or people.cuts_in(world, w):
            reward = reward + task.yield_reward
        if wp.abs(world.vehicle[w, 0].speed) < stands and (stage == granted or stage >= inside):
            reward = reward + task.blocking_reward
        world.vehicle[w, 0].finished = wp.where(arrived or crashed, 1, 0)
        world.success[w] = wp.where(arrived, 1, 0)
        scores.conclude(world, w, reward, crashed or lost or arrived, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, traffic=traffic, score=score)
