"""A street with roadworks, double-parked vans, a breakdown or debris: pass them in the lane of the oncoming traffic.

The street is 400 m long, with one lane each way and cars parked beside it. It has three stretches of 100 m. On one,
chosen at random, the lane is closed: cones lead out of it, a barrier stands across it, behind which a truck and
somebody at work stand, and cones line the works. On each of the others stands one of four: a delivery van, a truck, a
car that has broken down, with a cone behind it, or debris. Where, how large, and how many cars are parked is random
too. Everything that obstructs the way stands to the right of y = 2.5 m, so that the oncoming lane can always be driven,
when it is free: up to four drivers come along it, 8 to 13 m/s fast, who return at its far end once they have passed.
One driver follows the ego.

The taper of cones is that of the Manual on Uniform Traffic Control Devices, see `envs.roads.maps.works.taper_length`,
for 40 km/h: 30 m, the most that the manual has where both directions share a lane (6C.08). Its cones stand 6 m apart
(20 feet, ibid.), those along the works 12 m.

Actions: the five meta-actions, with target speeds of 0, 7 and 14 m/s, five decisions a second.
Reward a step: 0.5 v / 14 + 20 (way made in it / 400 m) - 0.5 where the ego has stood for more than 4 s; a crash costs
10, the end of the street earns 10.
An episode ends with a crash, at the end of the street, which is the success, or after 40 s.
"""

import functools
from dataclasses import dataclass

import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import works as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import Scenario
from envs.state import FORMS, IDM, world_struct

STRETCHES, STRETCH, FIRST = 3, 100.0, 90.0  # stretches, their length and where the first one begins [m]
EDGE, CONE_LINE = 5.8, 3.1  # y of the first cone of a taper, and of those along the works [m]
TAPER_CONES, CONE_SPACING, WORKS_SPACING = 6, 6.0, 12.0  # cones, and m between them in the taper and along the works
WORKS_SPEED = 40.0  # km/h
# Slots in order: the follower, oncoming drivers, parked cars, the closure, and what stands on the other stretches.
ONCOMING, PARKED, CLOSURE, SITE = 4, 6, 13, 3
MARGIN = 40.0  # m, between drivers that come


@dataclass(frozen=True)
class Roadworks(Scenario):
    """Parameters of the family.

    Attributes:
        length: of the street [m].
        speed_reward, progress_reward, standing_reward, collision_reward, arrival_reward: weights, see the module.
        patience: how long the ego may stand before that costs anything [s].
    """

    length: float = 400.0
    speed_reward: float = 0.5
    progress_reward: float = 20.0
    standing_reward: float = -0.5
    collision_reward: float = -10.0
    arrival_reward: float = 10.0
    patience: float = 4.0

    longest = 16.0

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network(self.length)]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        return {
            "ego_kind": ego_kind,
            "lane": maps[0].number(("a", "b", 1)),
            "oncoming_lane": maps[0].number(("c", "d", 0)),
            "length": self.length,
            "far": self.length + roads.BEYOND - 20.0,
            "taper": roads.taper_length(6.0 - CONE_LINE, WORKS_SPEED),
            "top_speed": self.target_speeds[1],
            "speed_reward": self.speed_reward,
            "progress_reward": self.progress_reward,
            "standing_reward": self.standing_reward,
            "collision_reward": self.collision_reward,
            "arrival_reward": self.arrival_reward,
            "patience": self.patience,
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        from envs.sensors.vehicle_list import VehicleList

        ranges = {"x": (-100.0, 100.0), "y": (-12.0, 12.0), "vx": (-28.0, 28.0), "vy": (-28.0, 28.0)}
        return [VehicleList(simulation, rows=24, ranges=ranges, see_behind=True)]


ROADWORKS = Roadworks(
    name="roadworks",
    family="roadworks",
    vehicles=1 + ONCOMING + PARKED + CLOSURE + (STRETCHES - 1) * SITE,
    policy_frequency=5,
    target_speeds=(0.0, 14.0, 3),
    connected_lanes=True,
)


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)`, `traffic(...)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    uniform, below = random.build(real).uniform, random.build(real).below
    purpose, arrivals, idm = random.SPAWN, random.TRAFFIC, IDM
    car, van, truck, person, cone, barrier, debris = (
        FORMS.index(name) for name in ("car", "van", "truck", "person", "cone", "barrier", "debris")
    )
    stretches, stretch, first_stretch = STRETCHES, real(STRETCH), real(FIRST)
    edge, cone_line, parked_y = real(EDGE), real(CONE_LINE), real(roads.PARKED)
    taper_cones, cone_spacing, works_spacing = TAPER_CONES, real(CONE_SPACING), real(WORKS_SPACING)
    first_parked = 2 + ONCOMING
    first_closure, first_site = first_parked + PARKED, first_parked + PARKED + CLOSURE
    closure_slots, site_slots, margin, behind = CLOSURE, SITE, real(MARGIN), real(-40.0)
    zero, start = real(0.0), real(-roads.BEFORE)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        lane: wp.int32
        oncoming_lane: wp.int32
        length: real
        far: real
        taper: real
        top_speed: real
        speed_reward: real
        progress_reward: real
        standing_reward: real
        collision_reward: real
        arrival_reward: real
        patience: real
        step_duration: real
        duration: real

    @wp.func
    def place(
        world: wp.ref[World],
        road: wp.ref[Road],
        w: int,
        i: int,
        form: int,
        x: real,
        y: real,
        heading: real,
        length: real,
        width: real,
        height: real,
    ):
        setting.stand(world, road, w, i, x, y, heading, length, width)
        setting.size(world, w, i, length, width, height)
        world.vehicle[w, i].form = form

    @wp.func
    def put_cone(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, x: real, y: real):
        place(world, road, w, i, cone, x, y, zero, real(0.4), real(0.4), real(0.75))

    @wp.func
    def put_vehicle(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, form: int, x: real, y: real, extra: real):
        """A car, van or truck that stands; `extra` m longer than the shortest of its form."""
        length = real(4.3)
        width = real(1.8)
        height = real(1.5)
        if form == van:
            length = real(5.2)
            width = real(2.0)
            height = real(2.4)
        elif form == truck:
            length = real(7.5)
            width = real(2.5)
            height = real(3.4)
        place(world, road, w, i, form, x, y, zero, length + extra, width, height)

    @wp.func
    def put_oncoming(
        world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], w: int, i: int, x: real, speed: real
    ):
        s = road.lanes.lane[task.oncoming_lane].length - (x - start)
        setting.put_on(world, road, w, i, idm, task.oncoming_lane, s, speed)
        world.vehicle[w, i].lane = task.oncoming_lane
        world.vehicle[w, i].changes_lanes = 0

    @wp.func
    def close_lane(
        world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, begin: real, key: int
    ):
        """Cones out of the lane and along the works, a barrier, a truck and somebody at work, from `begin` on."""
        id = world.world_id[w]
        episode = world.episode[w]
        x = begin + real(15.0) * uniform(seed, id, episode, purpose, key)
        worked_on = real(22.0) + real(18.0) * uniform(seed, id, episode, purpose, key + 1)
        slot = int(first_closure)
        along = real(0.0)
        while along <= task.taper and slot < first_closure + taper_cones:
            put_cone(world, road, w, slot, x + along, edge + (cone_line - edge) * along / task.taper)
            along = along + cone_spacing
            slot = slot + 1
        x = x + task.taper
        along = real(0.0)
        while along <= worked_on and slot < first_closure + closure_slots - 3:
            put_cone(world, road, w, slot, x + along, cone_line)
            along = along + works_spacing
            slot = slot + 1
        place(world, road, w, slot, barrier, x + real(2.0), real(4.6), zero, real(0.4), real(2.4), real(1.0))
        y = real(4.6) + real(0.2) * uniform(seed, id, episode, purpose, key + 2)
        put_vehicle(world, road, w, slot + 1, truck, x + real(0.5) * worked_on, y, zero)
        side = real(3.9) + real(1.4) * uniform(seed, id, episode, purpose, key + 3)
        heading = real(6.283185307179586) * uniform(seed, id, episode, purpose, key + 4)
        at_work = x + worked_on - real(2.0)
        place(world, road, w, slot + 2, person, at_work, side, heading, real(0.4), real(0.55), real(1.75))
        for i in range(slot + 3, first_closure + closure_slots):
            setting.clear(world, w, i)

    @wp.func
    def obstruct(world: wp.ref[World], road: wp.ref[Road], seed: wp.uint64, w: int, slot: int, begin: real, key: int):
        """A van, a truck, a breakdown or debris, somewhere between 10 m and 80 m from `begin`."""
        id = world.world_id[w]
        episode = world.episode[w]
        what = below(seed, id, episode, purpose, key, 4)
        x = begin + real(10.0) + real(70.0) * uniform(seed, id, episode, purpose, key + 1)
        offset = uniform(seed, id, episode, purpose, key + 2)
        extra = real(0.8) * uniform(seed, id, episode, purpose, key + 3)
        for i in range(slot, slot + site_slots):
            setting.clear(world, w, i)
        if what == 0:
            put_vehicle(world, road, w, slot, van, x, real(4.5) + real(0.4) * offset, extra)
        elif what == 1:
            put_vehicle(world, road, w, slot, truck, x, real(4.4) + real(0.3) * offset, extra)
        elif what == 2:
            put_vehicle(world, road, w, slot, car, x, real(3.8) + real(0.6) * offset, extra)
            put_cone(world, road, w, slot + 1, x - real(15.0), real(3.8) + real(0.6) * offset)
        else:
            pieces = 1 + below(seed, id, episode, purpose, key + 4, site_slots)
            for k in range(pieces):
                along = x + real(6.0) * uniform(seed, id, episode, purpose, key + 5 + 3 * k)
                across = real(3.4) + real(1.4) * uniform(seed, id, episode, purpose, key + 6 + 3 * k)
                turned = real(3.0) * uniform(seed, id, episode, purpose, key + 7 + 3 * k)
                large = real(0.5) + extra
                place(world, road, w, slot + k, debris, along, across, turned, large, large, real(0.35))

    @wp.func
    def park(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        id = world.world_id[w]
        episode = world.episode[w]
        room = task.length / real(first_closure - first_parked)
        for i in range(first_parked, first_closure):
            key = 200 + 8 * i
            if uniform(seed, id, episode, purpose, key) < real(0.7):
                x = room * (real(i - first_parked) + real(0.85) * uniform(seed, id, episode, purpose, key + 1))
                y = parked_y + real(0.2) * uniform(seed, id, episode, purpose, key + 2)
                form = wp.where(below(seed, id, episode, purpose, key + 3, 4) == 0, van, car)
                put_vehicle(world, road, w, i, form, x + real(12.0), y, real(0.5))
            else:
                setting.clear(world, w, i)

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        setting.put(world, road, w, 0, idm, real(20.0), real(4.0), zero, real(10.0))
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        setting.put(world, road, w, 1, idm, real(-12.0), real(4.0), zero, real(10.0))
        world.vehicle[w, 1].changes_lanes = 0
        x = real(120.0)
        for i in range(2, first_parked):
            key = 16 * i
            x = x + margin + real(110.0) * uniform(seed, id, episode, purpose, key)
            speed = real(8.0) + real(5.0) * uniform(seed, id, episode, purpose, key + 1)
            if uniform(seed, id, episode, purpose, key + 2) < real(0.7):
                put_oncoming(world, road, task, w, i, x, speed)
            else:
                setting.clear(world, w, i)
        park(world, road, task, seed, w)
        closed = below(seed, id, episode, purpose, 1, stretches)
        slot = int(first_site)
        for k in range(stretches):
            begin = first_stretch + stretch * real(float(k))
            if k == closed:
                close_lane(world, road, task, seed, w, begin, 1000 + 64 * k)
            else:
                obstruct(world, road, seed, w, slot, begin, 1000 + 64 * k)
                slot = slot + site_slots

    @wp.func
    def traffic(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """Drivers who have passed the ego's start come again from the far end, where that is free."""
        for i in range(2, first_parked):
            if world.vehicle[w, i].kind == idm and world.vehicle[w, i].x < behind:
                free = bool(True)
                for j in range(2, first_parked):
                    if j != i and world.vehicle[w, j].kind == idm and world.vehicle[w, j].x > task.far - margin:
                        free = False
                if free:
                    draw = 64 * world.episode_length[w] + i
                    share = uniform(seed, world.world_id[w], world.episode[w], arrivals, draw)
                    put_oncoming(world, road, task, w, i, task.far, real(8.0) + real(5.0) * share)

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        speed = world.vehicle[w, 0].speed
        way = speed * world.vehicle[w, 0].cos_heading * task.step_duration / task.length
        reward = task.speed_reward * speed / task.top_speed + task.progress_reward * way
        # The timer of an agent that no driver model steers is free to say how long it has stood.
        if world.vehicle[w, 0].kind != idm:
            if speed > real(0.5):
                world.vehicle[w, 0].timer = zero
            elif world.vehicle[w, 0].timer > task.patience:
                reward = reward + task.standing_reward
        crashed = world.vehicle[w, 0].crashed != 0
        arrived = world.vehicle[w, 0].x > task.length and not crashed
        if crashed:
            reward = reward + task.collision_reward
        if arrived:
            reward = reward + task.arrival_reward
        world.success[w] = wp.where(arrived, 1, 0)
        scores.conclude(world, w, reward, crashed or arrived, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, traffic=traffic, score=score)
