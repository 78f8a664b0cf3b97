"""Meeting traffic that merges from a ramp: highway-env's `merge-v0` and `merge-generic-v0`.

Reward a step: lmap(-crash + 0.1 lane + 0.2 (v - 20) / 10 - 0.05 lane change - 0.5 sum of (v0 - v) / v0 over those on
the merging lane), mapped from [-1.5, 0.3] to [0, 1]. An episode ends with a crash or behind the ramp.
"""

import functools
from dataclasses import dataclass

import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.maps import merge as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import Scenario
from envs.sensors.vehicle_list import VehicleList
from envs.state import FORMS, IDM, META, world_struct


@dataclass(frozen=True)
class Merge(Scenario):
    """Parameters of the family.

    Attributes:
        lanes: number of lanes of the road.
        before, converge, parallel, after: lengths of the road's sections [m].
        generic: whether traffic is spread at random over the road, or three vehicles start around the ego.
        collision_reward, right_lane_reward, high_speed_reward, merging_speed_reward, lane_change_reward: weights.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
        end: where along the road an episode ends [m].
    """

    lanes: int = 2
    before: float = 150.0
    converge: float = 80.0
    parallel: float = 80.0
    after: float = 150.0
    generic: bool = False
    collision_reward: float = -1.0
    right_lane_reward: float = 0.1
    high_speed_reward: float = 0.2
    merging_speed_reward: float = -0.5
    lane_change_reward: float = -0.05
    reward_speeds: tuple[float, float] = (20.0, 30.0)
    end: float = 370.0

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        if self.generic:
            return [roads.generic(self.lanes, self.before, self.converge, self.parallel, self.after)]
        return [roads.network()]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        (network,) = maps
        merging = ("b", "c", 2)
        lengths = (self.before, self.converge, self.parallel)
        obstacle_x, obstacle_y = roads.obstacles(self.lanes, *lengths)[0][:2]
        return {
            "ego_kind": ego_kind,
            "generic": int(self.generic),
            "lanes": self.lanes,
            "road_lane": network.number(("a", "b", 0)),
            "ramp_lane": network.number(("j", "k", 0)),
            "merging_lane": network.number(merging) if merging in network.indices else -1,
            "merge_end": sum(lengths),
            "obstacle_x": obstacle_x,
            "obstacle_y": obstacle_y,
            "penalised": scoring.lane_changes(self.actions),
            "collision_reward": self.collision_reward,
            "right_lane_reward": self.right_lane_reward,
            "high_speed_reward": self.high_speed_reward,
            "merging_speed_reward": self.merging_speed_reward,
            "lane_change_reward": self.lane_change_reward,
            "speed_low": self.reward_speeds[0],
            "speed_high": self.reward_speeds[1],
            "end": self.end,
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        return [VehicleList(simulation, lanes=self.lanes)]


MERGE = Merge(name="merge", family="merge", upstream_id="merge-v0", vehicles=5, duration=60.0)
MERGE_GENERIC = Merge(
    name="merge-generic", family="merge", upstream_id="merge-generic-v0", generic=True, vehicles=5, duration=60.0
)

ROOM = 15.0  # m, between vehicles that start on one lane of the generic road
TRIES = 10  # places drawn for each of them
DRAWS = 3 * TRIES + 1


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    uniform, below = random.build(real).uniform, random.build(real).below
    purpose, idm, meta, draws, tries, room = random.SPAWN, IDM, META, DRAWS, TRIES, real(ROOM)
    one, ten, barrier = real(1.0), real(10.0), FORMS.index("barrier")

    @wp.struct
    class Task:
        ego_kind: wp.int32
        generic: wp.int32
        lanes: wp.int32
        road_lane: wp.int32
        ramp_lane: wp.int32
        merging_lane: wp.int32
        merge_end: real
        obstacle_x: real
        obstacle_y: real
        penalised: wp.array(dtype=wp.int32)
        collision_reward: real
        right_lane_reward: real
        high_speed_reward: real
        merging_speed_reward: real
        lane_change_reward: real
        speed_low: real
        speed_high: real
        end: real
        step_duration: real
        duration: real

    @wp.func
    def around_the_ego(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int):
        id = world.world_id[w]
        episode = world.episode[w]
        for i in range(1, 4):
            x = real(90.0)
            speed = real(29.0)
            if i == 2:
                x = real(70.0)
                speed = real(31.0)
            elif i == 3:
                x = real(5.0)
                speed = real(31.5)
            lane = task.road_lane + below(seed, id, episode, purpose, i * draws, 2)
            x = x + ten * uniform(seed, id, episode, purpose, i * draws + 1) - real(5.0)
            speed = speed + real(2.0) * uniform(seed, id, episode, purpose, i * draws + 2) - one
            setting.put_on(world, road, w, i, idm, lane, x, speed)

    @wp.func
    def anywhere(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, last: int):
        id = world.world_id[w]
        episode = world.episode[w]
        filled = int(1)
        for i in range(1, last):
            for attempt in range(tries):
                draw = i * draws + 3 * attempt
                place = below(seed, id, episode, purpose, draw, task.lanes)
                x = task.merge_end * uniform(seed, id, episode, purpose, draw + 1)
                clear = bool(True)
                for j in range(filled):
                    # All of these start on the first road, whose lanes are 4 m apart.
                    beside = wp.abs(world.vehicle[w, j].y - real(4 * place)) < one
                    if beside and wp.abs(world.vehicle[w, j].x - x) <= room:
                        clear = False
                if clear:
                    speed = real(28.0) + real(4.0) * uniform(seed, id, episode, purpose, draw + 2)
                    setting.put_on(world, road, w, filled, idm, task.road_lane + place, x, speed)
                    filled = filled + 1
                    break
        for i in range(filled, last):
            setting.clear(world, w, i)

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        last = world.slots - 2
        setting.put_on(world, road, w, 0, idm, task.road_lane + task.lanes - 1, real(30.0), real(30.0))
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        from_ramp = real(110.0)
        if task.generic != 0:
            anywhere(world, road, task, seed, w, last)
            from_ramp = real(60.0)
        else:
            around_the_ego(world, road, task, seed, w)
        setting.put_on(world, road, w, last, idm, task.ramp_lane, from_ramp, real(20.0))
        world.vehicle[w, last].target_speed = real(30.0)
        setting.stand(world, road, w, last + 1, task.obstacle_x, task.obstacle_y, real(0.0), real(2.0), real(2.0))
        world.vehicle[w, last + 1].form = barrier

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        total = task.collision_reward * real(world.vehicle[w, 0].crashed)
        total += task.right_lane_reward * real(road.of_lane[world.vehicle[w, 0].lane].place)
        total += task.high_speed_reward * scores.share(world.vehicle[w, 0].speed, task.speed_low, task.speed_high)
        if world.vehicle[w, 0].kind == meta:
            total += task.lane_change_reward * real(task.penalised[int(commands[w, 0])])
        for i in range(world.slots):
            drives = world.vehicle[w, i].kind == idm or world.vehicle[w, i].kind == meta
            if drives and world.vehicle[w, i].lane == task.merging_lane:
                wanted = world.vehicle[w, i].target_speed
                total += task.merging_speed_reward * (wanted - world.vehicle[w, i].speed) / wanted
        worst = task.collision_reward + task.merging_speed_reward
        best = task.high_speed_reward + task.right_lane_reward
        reward = scores.share(total, worst, best)
        terminated = world.vehicle[w, 0].crashed != 0 or world.vehicle[w, 0].x > task.end
        world.success[w] = wp.where(world.vehicle[w, 0].crashed == 0 and world.vehicle[w, 0].x > task.end, 1, 0)
        scores.conclude(world, w, reward, terminated, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
