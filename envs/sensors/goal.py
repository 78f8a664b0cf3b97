"""What is and what is to be, for goal-conditioned agents: highway-env's KinematicsGoal observation."""

import functools
from collections.abc import Sequence

import torch
import warp as wp

from envs.errors import UserError, unknown
from envs.launch import Launch
from envs.phases import ENDED
from envs.precision import Functions
from envs.roads import general
from envs.sensors import base, vehicle_list
from envs.sensors.vehicle_list import columns_of, per_agent, require_network
from envs.state import LANDMARK, world_struct

# What highway-env knows of a place as it does of a vehicle.
FEATURES = ("presence", "x", "y", "vx", "vy", "cos_h", "sin_h", "cos_d", "sin_d")


@functools.cache
def build(real: type) -> Functions:
    """Kernel `compare`."""
    World = world_struct(real)
    seeing = vehicle_list.build(real)
    Road, Columns = general.build(real).Road, seeing.Columns
    ended, landmark = ENDED, LANDMARK

    @wp.func
    def goal_of(world: wp.ref[World], w: int, a: int) -> int:
        """The slot of the a-th landmark, -1 where there are not as many."""
        before = int(0)
        for j in range(world.slots):
            if world.vehicle[w, j].kind == landmark:
                if before == a:
                    return j
                before = before + 1
        return -1

    @wp.kernel(module="unique")
    def compare(
        world: World,
        road: Road,
        columns: Columns,
        scales: wp.array(dtype=real),
        goals: wp.array(dtype=wp.int32),
        observation: wp.array3d(dtype=wp.float32),
        achieved: wp.array3d(dtype=wp.float32),
        desired: wp.array3d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w, a = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        goal = int(goals[a])
        if goal < 0:
            goal = goal_of(world, w, a)
        for column in range(columns.feature.shape[0]):
            feature = columns.feature[column]
            own = wp.float32(seeing.value(world, road, w, a, feature) / scales[column])
            observation[w, a, column] = own
            achieved[w, a, column] = own
            desired[w, a, column] = wp.float32(0.0)
            if goal >= 0:
                desired[w, a, column] = wp.float32(seeing.value(world, road, w, goal, feature) / scales[column])

    return Functions(compare=compare)


class Goal:
    """highway-env's `KinematicsGoal` observation, with the keys that goal-conditioned agents expect.

    "observation" and "achieved_goal" are the agent's features, "desired_goal" those of the place it is to reach, 0
    where there is none. Shape: each (N, features) float32, with several agents (N, A, features).

    Args:
        features: among `FEATURES`; positions and velocities are the map's.
        scales: what each feature is divided by.
        goals: each agent's goal as a slot; by default the first agent's is the world's first landmark, and so on.

    Raises:
        UserError: an unknown feature, or numbers of scales or goals that do not match.
    """

    def __init__(
        self,
        simulation,
        features: Sequence[str] = ("x", "y", "vx", "vy", "cos_h", "sin_h"),
        scales: Sequence[float] = (100.0, 100.0, 5.0, 5.0, 1.0, 1.0),
        goals: Sequence[int] | None = None,
    ):
        require_network(simulation, "Goal")
        for name in features:
            if name not in FEATURES:
                raise unknown("feature of a goal", name, FEATURES)
        if len(scales) != len(features) or not all(scales):
            raise UserError(f"scales must be {len(features)} numbers other than 0, one a feature, not {tuple(scales)}")
        n, agents = simulation.num_worlds, simulation.state.agents
        goals = [-1] * agents if goals is None else list(goals)
        if len(goals) != agents or not all(-1 <= goal < simulation.state.slots for goal in goals):
            raise UserError(f"goals must be a slot for each of {agents} agents, not {goals}")
        self._simulation = simulation
        self._columns = columns_of(features, {}, simulation)
        self._scales = wp.array(list(scales), dtype=simulation.real, device=simulation.warp_device)
        self._goals = wp.array(goals, dtype=wp.int32, device=simulation.warp_device)
        shape = per_agent(simulation, len(features))
        shapes = dict.fromkeys(("observation", "achieved_goal", "desired_goal"), shape)
        self.outputs, self.finals, self.spaces = base.numbers(simulation, shapes)
        self.memory: dict[str, torch.Tensor] = {}
        self._rows = tuple(wp.from_torch(output.view(n, agents, -1)) for output in self.outputs.values())

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        tables = (self._columns, self._scales, self._goals)
        inputs = (simulation.state.warp, simulation.road, *tables, *self._rows, which)
        return [Launch(build(simulation.real).compare, (simulation.state.agents,), inputs)]
