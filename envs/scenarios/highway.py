"""Highway driving among slower traffic: highway-env's `highway-v0` and `highway-fast-v0`.

Reward a step: on_road * lmap(-crash + 0.1 target_lane / (lanes - 1) + 0.4 clip((v cos(psi) - 20) / 10, 0, 1)), mapped
from [-1, 0.5] to [0, 1]. An episode ends with a crash of the ego or at its time limit.
"""

import functools
import math
from dataclasses import dataclass

import warp as wp

from envs import random
from envs.precision import Functions
from envs.roads.parallel import ParallelRoad
from envs.scenarios import scoring
from envs.scenarios.base import Scenario
from envs.scenarios.placing import CAR_SIZE
from envs.sensors.kinematics import Kinematics
from envs.state import IDM, META, world_struct


@dataclass(frozen=True)
class Highway(Scenario):
    """Parameters of the family.

    Attributes:
        lanes: number of lanes.
        ego_spacing: room ahead of the ego at the start, in default gaps [1].
        density: vehicles a default gap [1].
        ego_speed: speed of the ego at the start [m/s].
        speed_limit: of every lane [m/s].
        road_length: of every lane [m].
        others_collide: whether collisions between other vehicles are simulated.
        collision_reward, right_lane_reward, high_speed_reward: weights of the reward's terms.
        reward_speeds: speeds that the speed term maps to 0 and 1 [m/s].
    """

    lanes: int = 4
    ego_spacing: float = 2.0
    density: float = 1.0
    ego_speed: float = 25.0
    speed_limit: float = 30.0
    road_length: float = 10_000.0
    others_collide: bool = True
    collision_reward: float = -1.0
    right_lane_reward: float = 0.1
    high_speed_reward: float = 0.4
    reward_speeds: tuple[float, float] = (20.0, 30.0)

    def make_maps(self) -> list[ParallelRoad]:
        """See `Scenario.make_maps`."""
        return [ParallelRoad(self.lanes, self.road_length, self.speed_limit)]

    def task_values(self, maps: list[ParallelRoad], ego_kind: int) -> dict[str, float | int]:
        """See `Scenario.task_values`."""
        return {
            "ego_kind": ego_kind,
            "ego_speed": self.ego_speed,
            "ego_spacing": self.ego_spacing,
            "density": self.density,
            "others_collide": int(self.others_collide),
            "collision_reward": self.collision_reward,
            "right_lane_reward": self.right_lane_reward,
            "high_speed_reward": self.high_speed_reward,
            "speed_low": self.reward_speeds[0],
            "speed_high": self.reward_speeds[1],
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        return [Kinematics(simulation)]


HIGHWAY = Highway(name="highway", family="highway", upstream_id="highway-v0")
HIGHWAY_FAST = Highway(
    name="highway-fast",
    family="highway",
    upstream_id="highway-fast-v0",
    lanes=3,
    vehicles=20,
    simulation_frequency=5,
    duration=30.0,
    ego_spacing=1.5,
    others_collide=False,
)

# Draws a vehicle makes when it is spawned.
LANE, SPEED, SPACING, EXPONENT, DRAWS = 0, 1, 2, 3, 4


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road = world_struct(real), road_functions.Road
    Controls = action_functions.Controls
    uniform, below = random.build(real).uniform, random.build(real).below
    spawn_purpose = random.SPAWN
    scores = scoring.build(real, road_functions)
    idm, meta = IDM, META
    zero, one, pi = real(0.0), real(1.0), real(math.pi)
    length, width, height = (real(size) for size in CAR_SIZE)
    k_lane, k_speed, k_spacing, k_exponent, draws = LANE, SPEED, SPACING, EXPONENT, DRAWS

    @wp.struct
    class Task:
        ego_kind: wp.int32
        ego_speed: real
        ego_spacing: real
        density: real
        others_collide: wp.int32
        collision_reward: real
        right_lane_reward: real
        high_speed_reward: real
        speed_low: real
        speed_high: real
        step_duration: real
        duration: real

    @wp.func
    def place(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, lane: int, x: real, speed: real):
        y = real(lane) * road.lane_width
        world.vehicle[w, i].x = x
        world.vehicle[w, i].y = y
        world.vehicle[w, i].heading = zero
        world.vehicle[w, i].cos_heading = one
        world.vehicle[w, i].sin_heading = zero
        world.vehicle[w, i].speed = speed
        world.vehicle[w, i].sin_slip = zero
        world.vehicle[w, i].acceleration = zero
        world.vehicle[w, i].target_speed = speed
        # highway-env staggers the first decisions by a fractional part of the position.
        world.vehicle[w, i].timer = wp.mod((x + y) * pi, one)
        world.vehicle[w, i].exponent = real(4.0)
        world.vehicle[w, i].impact_x = zero
        world.vehicle[w, i].impact_y = zero
        world.vehicle[w, i].length = length
        world.vehicle[w, i].width = width
        world.vehicle[w, i].height = height
        world.vehicle[w, i].lane = lane
        world.vehicle[w, i].target_lane = lane
        world.vehicle[w, i].proposed_lane = lane
        world.vehicle[w, i].speed_index = 0
        world.vehicle[w, i].kind = idm
        world.vehicle[w, i].crashed = 0
        world.vehicle[w, i].has_impact = 0
        world.vehicle[w, i].changes_lanes = 1
        world.vehicle[w, i].checks_collisions = 1
        world.vehicle[w, i].order = i
        world.vehicle[w, i].rank = i

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        """Begin the world's next episode: vehicles queue up, each a random gap ahead of the last, on random lanes."""
        episode = world.episode[w]
        id = world.world_id[w]
        gap_scale = wp.exp(real(-5.0) / real(40.0) * real(road.lanes))
        x = real(0.0)
        for i in range(world.slots):
            speed = task.ego_speed
            spacing = task.ego_spacing
            if i > 0:
                draw = uniform(seed, id, episode, spawn_purpose, i * draws + k_speed)
                speed = road.speed_limit * (real(0.7) + real(0.1) * draw)
                spacing = one / task.density
            offset = spacing * (real(12.0) + speed) * gap_scale
            if i == 0:
                x = real(3.0) * offset
            x = x + offset * (real(0.9) + real(0.2) * uniform(seed, id, episode, spawn_purpose, i * draws + k_spacing))
            lane = below(seed, id, episode, spawn_purpose, i * draws + k_lane, road.lanes)
            place(world, road, w, i, lane, x, speed)
            if i > 0:
                draw = uniform(seed, id, episode, spawn_purpose, i * draws + k_exponent)
                world.vehicle[w, i].exponent = real(3.5) + draw
                world.vehicle[w, i].checks_collisions = task.others_collide
        world.vehicle[w, 0].kind = task.ego_kind
        if task.ego_kind == meta:
            index = action_functions.index_of(controls, task.ego_speed)
            world.vehicle[w, 0].speed_index = index
            world.vehicle[w, 0].target_speed = action_functions.speed_of(controls, index)
        elif task.ego_kind == idm:
            world.vehicle[w, 0].target_speed = road.speed_limit
        else:
            world.vehicle[w, 0].target_speed = zero

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        """Reward and end of the policy step that was just simulated."""
        lane = scores.chosen_lane(world, w, 0)
        forward = world.vehicle[w, 0].speed * world.vehicle[w, 0].cos_heading
        speed_term = wp.clamp((forward - task.speed_low) / (task.speed_high - task.speed_low), zero, one)
        lane_term = real(lane) / real(wp.max(road.lanes - 1, 1))
        total = (
            task.collision_reward * real(world.vehicle[w, 0].crashed)
            + task.right_lane_reward * lane_term
            + task.high_speed_reward * speed_term
        )
        best = task.high_speed_reward + task.right_lane_reward
        reward = (total - task.collision_reward) / (best - task.collision_reward)
        if not scores.on_road(world, road, w, 0):
            reward = zero
        scores.conclude(world, w, reward, world.vehicle[w, 0].crashed != 0, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
