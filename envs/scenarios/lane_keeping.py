"""Keeping to a winding lane with a car that slips: highway-env's `lane-keeping-v0`.

Only steering is commanded, ten times a second, at a constant speed of 8.3 m/s. Reward a step: 1 - (r / width)^2, with r
the distance from the centre of the lane to be kept. The state is observed before the action has had its effect.
"""

import functools
import math
from dataclasses import dataclass

import warp as wp

from envs.precision import Functions
from envs.roads.maps import lane_keeping as roads
from envs.roads.network import RoadNetwork
from envs.scenarios import placing, scoring
from envs.scenarios.base import ActionSet, Scenario
from envs.sensors.tracking import Tracking
from envs.state import DYNAMIC, world_struct


@dataclass(frozen=True)
class LaneKeeping(Scenario):
    """Parameters of the family.

    Attributes:
        noise: half-width of the uniform noise on what is observed.
    """

    noise: float = 0.05
    uses_lanes = False

    def make_maps(self) -> list[RoadNetwork]:
        """See `Scenario.make_maps`."""
        return [roads.network()]

    def task_values(self, maps: list[RoadNetwork], ego_kind: int) -> dict:
        """See `Scenario.task_values`."""
        return {
            "ego_kind": ego_kind,
            "first_lane": maps[0].number(("c", "d", 0)),
            "last_lane": maps[0].number(("a", "b", 0)),
            "step_duration": 1.0 / self.policy_frequency,
            "duration": self.duration,
        }

    def observation(self, simulation) -> list:
        """See `Scenario.observation`."""
        lane = simulation.state.reference_lane
        return [Tracking(simulation, lane, self.noise)]


LANE_KEEPING = LaneKeeping(
    name="lane-keeping",
    family="lane-keeping",
    upstream_id="lane-keeping-v0",
    vehicles=0,
    simulation_frequency=10,
    policy_frequency=10,
    duration=20.0,
    actions=ActionSet(kind="dynamic", names=(), throttle=False, steering_range=(-math.pi / 3, math.pi / 3)),
)


@functools.cache
def build(real: type, road_functions, action_functions) -> Functions:
    """Struct `Task`, `spawn(world, road, controls, task, seed, w)` and `score(...)`."""
    World, Road, Controls = world_struct(real), road_functions.Road, action_functions.Controls
    setting = placing.build(real, road_functions, action_functions)
    scores = scoring.build(real, road_functions)
    dynamic, zero = DYNAMIC, real(0.0)

    @wp.struct
    class Task:
        ego_kind: wp.int32
        first_lane: wp.int32
        last_lane: wp.int32
        step_duration: real
        duration: real

    @wp.func
    def spawn(
        world: wp.ref[World], road: wp.ref[Road], controls: Controls, task: wp.ref[Task], seed: wp.uint64, w: int
    ):
        lane = task.first_lane
        place = road_functions.position(road.lanes, lane, real(50.0), real(-4.0))
        heading = road_functions.heading_at(road, lane, zero)
        setting.put(world, road, w, 0, dynamic, place[0], place[1], heading, real(8.3))
        setting.engage(world, road, controls, w, 0, task.ego_kind)
        world.reference_lane[w] = lane

    @wp.func
    def score(
        world: wp.ref[World],
        road: wp.ref[Road],
        controls: Controls,
        task: wp.ref[Task],
        commands: wp.array2d(dtype=wp.float32),
        w: int,
    ):
        lane = world.reference_lane[w]
        share = (
            road_functions.local(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y)[1]
            / road.lanes.lane[lane].width
        )
        # Once the car has left a lane the next one is to be kept, from the next step on.
        if not road_functions.on_lane(road, lane, world.vehicle[w, 0].x, world.vehicle[w, 0].y, zero):
            world.reference_lane[w] = task.last_lane
        scores.conclude(world, w, real(1.0) - share * share, False, task.step_duration, task.duration)

    return Functions(Task=Task, spawn=spawn, score=score)
