"""Keeping to a lane of a race track at speed: highway-env's `racetrack-v0`, `racetrack-large-v0`, `racetrack-oval-v0`.

Only steering is commanded. Reward a step: on_road * lmap(1 / (1 + 4 r^2) - 0.3 |action| - crash), mapped from [-1, 1]
to [0, 1], with r the distance from the lane's centre. An episode ends with a crash or off the road. With several agents
the world's reward and end are the first one's; each has its own reward of the same form, and has finished when it
crashes or leaves the road.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import warp as wp

from envs import random
from envs.errors import unknown
from envs.precision import Functions
from envs.roads.maps import racetrack as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import ActionSet, Scenario
from envs.sensors.occupancy import OccupancyGrid
from envs.state import FORMS, IDM, world_struct

TRACKS = ("classic", "large", "oval")


@dataclass(frozen=True)
class Racetrack(Scenario):
    """Parameters of the family.

    Attributes:
        track: one of TRACKS.
        lanes, length: of the oval: lanes and length of its straights [m].
        block_lane, force_decision: obstacles on the oval.
        collision_reward, lane_centering_reward, action_reward: weights.
        lane_centering_cost: how fast the centring term falls with distance [1/m2].
        terminate_off_road: whether leaving the road ends the episode.
    """

    track: str = "classic"
    lanes: int = 3
    length: float = 100.0
    block_lane: bool = False
    force_decision: bool = False
    collision_reward: float = -1.0
    lane_centering_reward: float = 1.0
    lane_centering_cost: float = 4.0
    action_reward: float = -0.3
    terminate_off_road: bool = True
    max_agents = 4

    def __post_init__(self):
        super().__post_init__()
        if self.track not in TRACKS:
            raise unknown("track", self.track, TRACKS)

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        if self.track == "oval":
            return [roads.oval(self.lanes, self.length)]
        return [roads.large() if self.track == "large" else roads.network()]

    def obstacles(self) -> list[tuple[float, float, float, float, float]]:
        """What stands on the track: x, y, heading, length, width."""
        if self.track != "oval":
            return []
        return roads.obstacles(self.length, self.block_lane, self.force_decision)

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        (network,) = maps
        blocks = np.array(self.obstacles() or [(0.0, 0.0, 0.0, 0.0, 0.0)])
        starts = list(network.graph)
        return {
            "ego_kind": ego_kind,
            "others": self.vehicles - len(self.obstacles()),
            "obstacles": len(self.obstacles()),
            "blocks": blocks,
            "start_lane": network.number(("a", "b", 0)),
            "start_lanes": len(network.graph["a"]["b"]),
            "next_lane": network.number(("b", "c", 0)),
            "nodes": network.nodes.index(starts[0]),
            "node_count": len(starts),
            "collision_reward": self.collision_reward,
            "lane_centering_reward": self.lane_centering_reward,
            "lane_centering_cost": self.lane_centering_cost,
            "action_reward": self.action_reward,
            "terminate_off_road": int(self.terminate_off_road),
            "steers_only": int(not self.actions.throttle),
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        return [OccupancyGrid(simulation)]


STEERING = ActionSet(kind="plain", names=(), throttle=False)
RACETRACK = Racetrack(
    name="racetrack",
    family="racetrack",
    upstream_id="racetrack-v0",
    vehicles=1,
    policy_frequency=5,
    duration=300.0,
    actions=STEERING,
    target_speeds=(0.0, 10.0, 3),
)
RACETRACK_LARGE = replace(RACETRACK, name="racetrack-large", upstream_id="racetrack-large-v0", track="large")
RACETRACK_OVAL = replace(RACETRACK, name="racetrack-oval", upstream_id="racetrack-oval-v0", track="oval")

ROOM = 20.0  # m, between vehicles that start


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    uniform, below, purpose, idm = random.build(real).uniform, random.build(real).below, random.SPAWN, IDM
    zero, one, room, barrier = real(0.0), real(1.0), real(ROOM), FORMS.index("barrier")

    @wp.struct
    class Task:
        ego_kind: wp.int32
        others: wp.int32
        obstacles: wp.int32
        blocks: wp.array2d(dtype=real)
        start_lane: wp.int32
        start_lanes: wp.int32
        next_lane: wp.int32
        nodes: wp.int32
        node_count: wp.int32
        collision_reward: real
        lane_centering_reward: real
        lane_centering_cost: real
        action_reward: wp.float32
        terminate_off_road: wp.int32
        steers_only: wp.int32
        step_duration: real
        duration: real

    @wp.func
    def any_lane(world: wp.ref[World], road: wp.ref[Road], task: wp.ref[Task], seed: wp.uint64, w: int, k: int) -> int:
        """A lane of a road from a random node, which is not any lane alike."""
        id = world.world_id[w]
        episode = world.episode[w]
        node = task.nodes + below(seed, id, episode, purpose, k, task.node_count)
        first = road.node_first[node]
        count = road.node_first[node + 1] - first
        chosen = road.node_road[first + below(seed, id, episode, purpose, k + 1, count)]
        return road.road_lane[chosen] + below(seed, id, episode, purpose, k + 2, road.road_lanes[chosen])

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        id = world.world_id[w]
        episode = world.episode[w]
        place = below(seed, id, episode, purpose, 0, task.start_lanes)
        for i in range(world.agents):
            lane = task.start_lane + place
            if i > 0:
                lane = any_lane(world, road, task, seed, w, 8 * i + 2)
            s = real(20.0) + real(30.0) * uniform(seed, id, episode, purpose, 8 * i + 1)
            setting.put_on(world, road, w, i, idm, lane, s, road_functions.speed_limit(road, lane))
            setting.engage(world, road, controls, w, i, task.ego_kind)
        filled = int(world.agents)
        extra = below(seed, id, episode, purpose, 7, wp.max(task.others, 1))
        for k in range(wp.min(task.others, 1 + extra)):
            draw = 8 * (world.agents + k)
            lane = task.next_lane + place
            length = road.lanes.lane[task.next_lane].length
            if k > 0:
                lane = any_lane(world, road, task, seed, w, draw + 2)
                length = road.lanes.lane[lane].length
            s = length * uniform(seed, id, episode, purpose, draw)
            speed = real(6.0) + real(3.0) * uniform(seed, id, episode, purpose, draw + 1)
            setting.put_on(world, road, w, filled, idm, lane, s, speed)
            clear = bool(True)
            if k > 0:
                for j in range(filled):
                    dx = world.vehicle[w, j].x - world.vehicle[w, filled].x
                    dy = world.vehicle[w, j].y - world.vehicle[w, filled].y
                    if dx * dx + dy * dy < room * room:
                        clear = False
            if clear:
                filled = filled + 1
        for i in range(filled, world.slots):
            setting.clear(world, w, i)
        first = world.slots - task.obstacles
        for k in range(task.obstacles):
            setting.stand(
                world,
                road,
                w,
                first + k,
                task.blocks[k, 0],
                task.blocks[k, 1],
                task.blocks[k, 2],
                task.blocks[k, 3],
                task.blocks[k, 4],
            )
            world.vehicle[w, first + k].form = barrier

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        for i in range(world.agents):
            r = world.vehicle[w, i].lane_r
            # In float32, as highway-env weighs float32 actions.
            steering = commands[w, 2 * i + 1]
            throttle = commands[w, 2 * i]
            square = steering * steering
            if task.steers_only == 0:
                square = throttle * throttle + square
            total = (
                task.lane_centering_reward / (one + task.lane_centering_cost * r * r)
                + real(task.action_reward * wp.sqrt(square))
                + task.collision_reward * real(world.vehicle[w, i].crashed)
            )
            reward = scores.share(total, task.collision_reward, one)
            finished = world.vehicle[w, i].crashed != 0
            if not scores.on_road(world, road, w, i):
                reward = zero
                finished = finished or task.terminate_off_road != 0
            world.vehicle[w, i].reward_share = reward
            world.vehicle[w, i].finished = wp.where(finished, 1, 0)
        over = world.vehicle[w, 0].finished != 0
        scores.conclude(world, w, world.vehicle[w, 0].reward_share, over, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
