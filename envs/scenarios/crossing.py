"""A street with people on it: those who use a zebra, jaywalkers, a child behind a parked van, groups, cyclists.

The ego drives straight through and decides on its speed alone. Who is there is drawn anew for every episode, see
docs/pedestrians.md. Reward a step: 0.1 v / 13.9 while driving, which comes to 7 on the whole way however long it
takes, -1 while passing a zebra at more than 1 m/s in front of someone who has right of way, and at the end 2 for having
arrived, -5 for a crash or for leaving the road, -20 for a crash with a person. An episode ends with any of these.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import warp as wp

from envs import random
from envs.errors import UserError
from envs.physics import idm, walkers
from envs.precision import Functions
from envs.roads.maps import crossings as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import LONGITUDINAL, Scenario
from envs.sensors.vehicle_list import VehicleList
from envs.state import FORMS, IDM, WALKER, world_struct


@dataclass(frozen=True)
class StreetCrossing(Scenario):
    """Parameters of the family. Slots: the ego, traffic, parked cars on the right, on the left, people.

    Attributes:
        length: of the street [m].
        zebras: for each map where its zebras are [m].
        traffic: vehicles that drive, half of them each way.
        parked: parked vehicles on each side.
        high_speed_reward, yield_reward, arrived_reward, collision_reward, person_reward: weights.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
        end: where along the street an episode ends [m].
    """

    length: float = 250.0
    zebras: tuple[tuple[float, ...], ...] = ((125.0,), (165.0,), (80.0, 170.0), (110.0, 195.0))
    traffic: int = 6
    parked: int = 8
    high_speed_reward: float = 0.1
    yield_reward: float = -1.0
    arrived_reward: float = 2.0
    collision_reward: float = -5.0
    person_reward: float = -20.0
    reward_speeds: tuple[float, float] = (0.0, roads.SPEED_LIMIT)
    end: float = 230.0

    def __post_init__(self):
        super().__post_init__()
        if self.vehicles < self.traffic + 2 * self.parked:
            raise UserError(
                f"{self.traffic} vehicles that drive and 2 x {self.parked} that are parked need as many slots, "
                f"not {self.vehicles}"
            )

    longest = 16.0

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network(self.length, zebras) for zebras in self.zebras]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        positions = np.zeros((len(maps), max(len(network.crossings) for network in maps) + 1))
        for row, network in zip(positions, maps, strict=True):
            row[: len(network.crossings)] = [crossing.start[0] for crossing in network.crossings]
        return {
            "ego_kind": ego_kind,
            "right_lane": maps[0].number(("a", "b", 0)),
            "left_lane": maps[0].number(("c", "d", 0)),
            "length": self.length,
            "zebras": np.array([len(network.crossings) for network in maps], dtype=np.int32),
            "zebra": positions.ravel(),
            "stride": positions.shape[1],
            "traffic": self.traffic,
            "parked": self.parked,
            "high_speed_reward": self.high_speed_reward,
            "yield_reward": self.yield_reward,
            "arrived_reward": self.arrived_reward,
            "collision_reward": self.collision_reward,
            "person_reward": self.person_reward,
            "speed_low": self.reward_speeds[0],
            "speed_high": self.reward_speeds[1],
            "end": self.end,
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        ranges = {"x": (-100.0, 100.0), "y": (-10.0, 10.0), "vx": (-30.0, 30.0), "vy": (-5.0, 5.0)}
        return [VehicleList(simulation, rows=16, ranges=ranges, see_behind=True)]


CROSSING = StreetCrossing(
    name="crossing",
    family="crossing",
    vehicles=30,
    policy_frequency=5,
    duration=30.0,
    actions=LONGITUDINAL,
    target_speeds=(0.0, roads.SPEED_LIMIT, 3),
    connected_lanes=True,
)

START = 30.0  # m, where the ego begins
# Parking: bays along both kerbs, every fourth of which is an entrance that stays free. People who use no zebra cross
# there, and the bay before it is the van's behind which a child may stand.
BAY, ENTRANCE = 7.0, 2
PARKED = roads.WIDTH + 1.1  # m from the middle of the street to a parked car's
CAR, VAN = (4.6, 1.8, 1.5), (5.4, 2.0, 2.3)  # m: length, width, height
NO_PARKING = 10.0  # m, on either side of a zebra
# Chances of an episode, and of a party of people.
RIDER, CHILD_HIDDEN, VAN_PARKED, OLDER = 0.15, 0.5, 0.3, 0.2
ALONE, GROUP, JAYWALKER = 0.45, 0.6, 0.9  # cumulative: on a zebra alone, together, elsewhere; the rest are cyclists
RUNNING, MOST_PARTIES = 0.2, 3
JAYWALKER_MARGIN, CYCLIST_MARGIN = (0.5, 1.5), 1.0  # s
TRIGGER = (1.0, 3.0)  # s, how long before the ego's arrival a child runs
EARLY, LATE = 5.0, 3.0  # s: people want to cross between so long before the unhindered ego comes and after
# Traffic: speeds [m/s], how far its start must be free [m], chance of entering in a step.
SPEEDS, FREE, ENTERS = (10.0, roads.SPEED_LIMIT), 45.0, 0.1
TOUCH = 1.0  # m; a crashed ego and a person that close have hit each other


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)`, `traffic(...)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    people = walkers.build(real, road_functions, idm.build(real))
    uniform, below, normal = random.build(real).uniform, random.build(real).below, random.build(real).normal
    purpose, later = random.SPAWN, random.TRAFFIC
    driver, walker, van_form = IDM, WALKER, FORMS.index("van")
    adult, child, cyclist = walkers.FIGURES
    walks, waits, lurks = walkers.WALKS, walkers.WAITS, walkers.LURKS
    half, one, zero, half_pi, pi = real(0.5), real(1.0), real(0.0), real(math.pi / 2), real(math.pi)
    start, bay, parked_at, no_parking, kerb = real(START), real(BAY), real(PARKED), real(NO_PARKING), real(roads.KERB)
    entrance = ENTRANCE
    car_length, car_width, car_height = (real(size) for size in CAR)
    van_length, van_width, van_height = (real(size) for size in VAN)
    rider_chance, child_chance, van_chance, older_chance = (
        real(RIDER), real(CHILD_HIDDEN), real(VAN_PARKED), real(OLDER)
    )  # fmt: skip
    alone, group, jaywalker, running = real(ALONE), real(GROUP), real(JAYWALKER), real(RUNNING)
    adult_mean, adult_spread = (real(value) for value in walkers.ADULT_SPEED)
    older_mean, older_spread = (real(value) for value in walkers.OLDER_SPEED)
    child_speed, running_speed, cyclist_speed = (
        real(walkers.CHILD_SPEED), real(walkers.RUNNING_SPEED), real(walkers.CYCLIST_SPEED)
    )  # fmt: skip
    most_deviations, start_up, cyclist_margin = (
        real(walkers.MAX_DEVIATIONS), real(walkers.START_UP), real(CYCLIST_MARGIN)
    )  # fmt: skip
    margin_low, margin_high = (real(value) for value in JAYWALKER_MARGIN)
    trigger_low, trigger_high = (real(value) for value in TRIGGER)
    speed_low, speed_high = (real(value) for value in SPEEDS)
    early, late, most_parties = real(EARLY), real(LATE), MOST_PARTIES
    free, enters, touch = real(FREE), real(ENTERS), real(TOUCH)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        right_lane: wp.int32
        left_lane: wp.int32
        length: real
        zebras: wp.array(dtype=wp.int32)  # [map]
        zebra: wp.array(dtype=real)  # [map * stride + zebra] m
        stride: wp.int32
        traffic: wp.int32
        parked: wp.int32
        high_speed_reward: real
        yield_reward: real
        arrived_reward: real
        collision_reward: real
        person_reward: real
        speed_low: real
        speed_high: real
        end: real
        step_duration: real
        duration: real

    @wp.func
    def draw(world: wp.ref[World], seed: wp.uint64, w: int, index: int) -> real:
        return uniform(seed, world.world_id[w], world.episode[w], purpose, index)

    @wp.func
    def between(low: real, high: real, share: real) -> real:
        return low + (high - low) * share

    # --- vehicles -------------------------------------------------------------------------------------------------

    @wp.func
    def lane_of(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], w: int, i: int) -> int:
        own = wp.where(2 * i <= task.traffic, task.right_lane, task.left_lane)
        return road.map_lane[world.map[w]] + own

    @wp.func
    def drive(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        each = task.traffic / 2
        for i in range(1, task.traffic + 1):
            s = real(80.0) * real(i - each - 1) + real(10.0)
            if i <= each:
                s = real(70.0) * real(i - 1) + start + real(45.0)
            s = s + real(30.0) * draw(world, seed, w, 4 * i)
            speed = between(speed_low, speed_high, draw(world, seed, w, 4 * i + 1))
            setting.put_on(world, road, w, i, driver, lane_of(world, road, task, w, i), s, speed)
            world.vehicle[w, i].changes_lanes = 0

    @wp.func
    def from_zebra(world: wp.ref[World], task: wp.ref[Task], w: int, x: real) -> real:
        """Distance to the closest zebra [m]."""
        least = real(1.0e6)
        m = world.map[w]
        for k in range(task.zebras[m]):
            least = wp.min(least, wp.abs(x - task.zebra[m * task.stride + k]))
        return least

    @wp.func
    def bay_at(k: int) -> real:
        return (real(k) + half) * bay

    @wp.func
    def leave(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, k: int, side: real, is_van: bool):
        """Park a vehicle in bay k on a side: 1 the right, -1 the left."""
        length = wp.where(is_van, van_length, car_length)
        width = wp.where(is_van, van_width, car_width)
        heading = wp.where(side > zero, zero, pi)
        setting.stand(world, road, w, i, bay_at(k), side * parked_at, heading, length, width)
        world.vehicle[w, i].height = wp.where(is_van, van_height, car_height)
        world.vehicle[w, i].form = wp.where(is_van, van_form, 0)

    @wp.func
    def can_park(world: wp.ref[World], task: wp.ref[Task], w: int, k: int, taken: int) -> bool:
        return k % 4 != entrance and k != taken and from_zebra(world, task, w, bay_at(k)) > no_parking

    @wp.func
    def park(
        world: wp.ref[World],
        road: wp.ref[Road],
        task: wp.ref[Task],
        seed: wp.uint64,
        w: int,
        first: int,
        side: real,
        taken: int,
    ):
        """Fill a side's slots from `first` on; a van stands in the bay `taken`, where that is one."""
        bays = int(task.length / bay)
        open = int(0)
        for k in range(bays):
            if can_park(world, task, w, k, taken):
                open = open + 1
        i = int(first)
        if taken >= 0:
            leave(world, road, w, i, taken, side, True)
            i = i + 1
        base = wp.where(side > zero, 1000, 1200)
        for k in range(bays):
            if can_park(world, task, w, k, taken):
                # Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2): every choice is as likely.
                wanted = first + task.parked - i
                if draw(world, seed, w, base + 2 * k) * real(open) < real(wanted):
                    leave(world, road, w, i, k, side, draw(world, seed, w, base + 2 * k + 1) < van_chance)
                    i = i + 1
                open = open - 1
        for j in range(i, first + task.parked):
            setting.clear(world, w, j)

    # --- people ---------------------------------------------------------------------------------------------------

    @wp.func
    def walking_speed(world: wp.ref[World], seed: wp.uint64, w: int, index: int) -> real:
        id = world.world_id[w]
        away = wp.clamp(normal(seed, id, world.episode[w], purpose, index), -most_deviations, most_deviations)
        if draw(world, seed, w, index + 1) < older_chance:
            return older_mean + older_spread * away
        return adult_mean + adult_spread * away

    @wp.func
    def cross(
        world: wp.ref[World],
        road: wp.ref[Road],
        w: int,
        i: int,
        figure: int,
        x: real,
        side: real,
        speed: real,
        margin: real,
        wait: real,
    ):
        """Someone who stands at the kerb of a side and walks to the other."""
        back = wp.where(figure == cyclist, real(1.4), real(0.6))
        setting.put(world, road, w, i, walker, x, side * (kerb + back), -side * half_pi, zero)
        people.send(world, w, i, figure, x, -side * (kerb + back), speed, waits, margin)
        world.vehicle[w, i].patience = wait

    @wp.func
    def hide(world: wp.ref[World], road: wp.ref[Road], seed: wp.uint64, w: int, i: int, k: int):
        """A child in front of the van in bay k on the right."""
        x = bay_at(k) + half * van_length + real(0.7)
        setting.put(world, road, w, i, walker, x, parked_at, -half_pi, zero)
        speed = between(child_speed, running_speed, draw(world, seed, w, 20 * i + 2001))
        trigger = between(trigger_low, trigger_high, draw(world, seed, w, 20 * i + 2002))
        people.send(world, w, i, child, x, -kerb - one, speed, lurks, trigger)

    @wp.func
    def ride(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, i: int):
        """A cyclist who rides along the right kerb."""
        x = between(start + real(20.0), task.length * half, draw(world, seed, w, 20 * i + 2001))
        setting.put(world, road, w, i, walker, x, parked_at, zero, cyclist_speed)
        people.send(world, w, i, cyclist, task.length, parked_at, cyclist_speed, walks, zero)

    @wp.func
    def arrive(
        world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, last: int, least: int
    ) -> int:
        """A party, in the slots from `last` downwards; returns the next free one."""
        index = 2000 + 20 * last
        id = world.world_id[w]
        episode = world.episode[w]
        who = draw(world, seed, w, index)
        side = wp.where(draw(world, seed, w, index + 1) < half, one, -one)
        speed = walking_speed(world, seed, w, index + 2)
        offset = draw(world, seed, w, index + 4) - half
        timing = between(-early, late, draw(world, seed, w, index + 5))
        if who < group:
            m = world.map[w]
            zebra = below(seed, id, episode, purpose, index + 6, task.zebras[m])
            x = task.zebra[m * task.stride + zebra] + real(2.0) * offset
            size = int(1)
            if who >= alone:
                size = wp.min(2 + below(seed, id, episode, purpose, index + 7, 2), last - least + 1)
            wait = wp.max((x - start) / speed_high + timing, zero)
            for k in range(size):
                aside = real(0.7) * (real(k) - half * real(size - 1))
                cross(world, road, w, last - k, adult, x + aside, side, speed, start_up, wait)
                world.vehicle[w, last - k].yields = 1
                world.vehicle[w, last - k].speed_index = last
            return last - size
        gaps = int(task.length / bay) / 4
        gap = 1 + below(seed, id, episode, purpose, index + 6, gaps - 1)
        x = bay_at(4 * gap + entrance) + real(5.0) * offset
        wait = wp.max((x - start) / speed_high + timing, zero)
        if who < jaywalker:
            if draw(world, seed, w, index + 8) < running:
                speed = running_speed
            margin = between(margin_low, margin_high, draw(world, seed, w, index + 9))
            cross(world, road, w, last, adult, x, side, speed, margin, wait)
        else:
            cross(world, road, w, last, cyclist, x, side, cyclist_speed, cyclist_margin, wait)
        return last - 1

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        world.map[w] = below(seed, id, episode, purpose, 0, task.zebras.shape[0])
        ego_lane = road.map_lane[world.map[w]] + task.right_lane
        setting.put_on(world, road, w, 0, driver, ego_lane, start, speed_high)
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        drive(world, road, task, seed, w)
        has_rider = draw(world, seed, w, 1) < rider_chance
        # The van's bay, between a quarter and three quarters of the way.
        first = int(task.length / bay) / 16
        van = 4 * (first + below(seed, id, episode, purpose, 2, 2 * first + 1)) + entrance - 1
        clear = from_zebra(world, task, w, bay_at(van)) > no_parking
        has_child = not has_rider and clear and draw(world, seed, w, 3) < child_chance and task.parked > 0
        right = task.traffic + 1
        if has_rider:
            for i in range(right, right + task.parked):
                setting.clear(world, w, i)
        else:
            park(world, road, task, seed, w, right, one, wp.where(has_child, van, -1))
        park(world, road, task, seed, w, right + task.parked, -one, -1)
        least = right + 2 * task.parked
        last = world.slots - 1
        if last >= least and has_child:
            hide(world, road, seed, w, last, van)
            last = last - 1
        elif last >= least and has_rider:
            ride(world, road, task, seed, w, last)
            last = last - 1
        parties = 1 + below(seed, id, episode, purpose, 4, most_parties)
        for _ in range(parties):
            if last >= least:
                last = arrive(world, road, task, seed, w, last, least)
        for i in range(least, last + 1):
            setting.clear(world, w, i)

    # --- the course of an episode -----------------------------------------------------------------------------------

    @wp.func
    def traffic(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """People decide; vehicles at the street's end leave, and after a while others enter in their slots."""
        people.decide(world, w)
        for i in range(1, task.traffic + 1):
            lane = lane_of(world, road, task, w, i)
            if world.vehicle[w, i].kind == 0:
                space = real(1.0e6)
                for j in range(task.traffic + 1):
                    if world.vehicle[w, j].kind != 0 and world.vehicle[w, j].lane == lane:
                        space = wp.min(space, world.vehicle[w, j].lane_s)
                index = world.frame[w] * 64 + i
                enter = uniform(seed, world.world_id[w], world.episode[w], later, 2 * index)
                if space > free and enter < enters:
                    share = uniform(seed, world.world_id[w], world.episode[w], later, 2 * index + 1)
                    setting.put_on(world, road, w, i, driver, lane, real(3.0), between(speed_low, speed_high, share))
                    world.vehicle[w, i].changes_lanes = 0
            elif world.vehicle[w, i].lane_s > task.length - one:
                setting.clear(world, w, i)

    @wp.func
    def struck_someone(world: wp.ref[World], w: int) -> bool:
        j = world.slots - 1
        while j >= 0 and world.vehicle[w, j].kind == walker:
            dx = world.vehicle[w, j].x - world.vehicle[w, 0].x
            dy = world.vehicle[w, j].y - world.vehicle[w, 0].y
            along = wp.abs(dx * world.vehicle[w, 0].cos_heading + dy * world.vehicle[w, 0].sin_heading)
            across = wp.abs(dy * world.vehicle[w, 0].cos_heading - dx * world.vehicle[w, 0].sin_heading)
            size = half * world.vehicle[w, j].length + touch
            if along < half * world.vehicle[w, 0].length + size and across < half * world.vehicle[w, 0].width + size:
                return True
            j = j - 1
        return False

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        share = scores.share(world.vehicle[w, 0].speed, task.speed_low, task.speed_high)
        reward = task.high_speed_reward * wp.clamp(share, zero, one)
        crashed = world.vehicle[w, 0].crashed != 0
        lost = not scores.on_road(world, road, w, 0)
        arrived = world.vehicle[w, 0].x > task.end and not crashed and not lost
        if people.cuts_in(world, w):
            reward = reward + task.yield_reward
        if crashed and struck_someone(world, w):
            reward = reward + task.person_reward
        elif crashed or lost:
            reward = reward + task.collision_reward
        elif arrived:
            reward = reward + task.arrived_reward
        world.success[w] = wp.where(arrived, 1, 0)
        scores.conclude(world, w, reward, crashed or lost or arrived, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, traffic=traffic, score=score)
