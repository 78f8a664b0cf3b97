"""What a tracking controller measures: the observation of highway-env's lane-keeping environment."""

import functools
import math

import torch
import warp as wp

from envs import random
from envs.errors import UserError
from envs.launch import Launch
from envs.phases import ENDED
from envs.physics import dynamic_bicycle
from envs.precision import Functions
from envs.roads import general
from envs.sensors import base
from envs.sensors.vehicle_list import per_agent, require_network
from envs.state import world_struct

# Of the dynamic bicycle model's state (x, y, heading, speed, lateral speed, yaw rate).
MEASURED = (1, 2, 4, 5)


@functools.cache
def build(real: type) -> Functions:
    """Kernel `measure`."""
    World = world_struct(real)
    roads = general.build(real)
    model = dynamic_bicycle.build(real)
    uniform = random.build(real).uniform
    Road, purpose, ended = roads.Road, random.SENSOR_NOISE, ENDED
    one, two = real(1.0), real(2.0)
    measured = wp.vec4i(*MEASURED)

    @wp.kernel(module="unique")
    def measure(
        world: World,
        road: Road,
        lane: wp.array(dtype=wp.int32),
        noise: real,
        seed: wp.array(dtype=wp.uint64),
        state: wp.array3d(dtype=wp.float32),
        derivative: wp.array3d(dtype=wp.float32),
        reference: wp.array3d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w, a = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        now = model.state_of(world, w, a)
        slope = model.slope(now, world.vehicle[w, a].steering, world.vehicle[w, a].acceleration)
        draw = (world.frame[w] * world.agents + a) * 8
        for k in range(4):
            error = real(0.0)
            slope_error = real(0.0)
            if noise > real(0.0):
                identity = world.world_id[w]
                episode = world.episode[w]
                error = noise * (two * uniform(seed[0], identity, episode, purpose, draw + k) - one)
                slope_error = noise * (two * uniform(seed[0], identity, episode, purpose, draw + 4 + k) - one)
            state[w, a, k] = wp.float32(now[measured[k]] + error)
            derivative[w, a, k] = wp.float32(slope[measured[k]] + slope_error)
            reference[w, a, k] = wp.float32(0.0)
        place = roads.local(road, lane[w], world.vehicle[w, a].x, world.vehicle[w, a].y)
        reference[w, a, 0] = wp.float32(world.vehicle[w, a].y - place[1])
        reference[w, a, 1] = wp.float32(roads.heading_at(road, lane[w], place[0]))

    return Functions(measure=measure)


class Tracking:
    """highway-env's `AttributesObservation` of lane keeping. Shape: each (N, 4, 1) float32, with agents (N, A, 4, 1).

    "state" is y [m], heading [rad], lateral speed [m/s] and yaw rate [rad/s]; "derivative" their slopes under the
    dynamic bicycle model and the present command; "reference_state" is y less the distance from the reference lane,
    the lane's heading, 0 and 0.

    Args:
        lane: number of each world's reference lane, read at every observation. Shape: (N,) int32.
        noise: bound of the uniform errors that are added to state and derivative.

    Raises:
        UserError: lanes of another shape or type, or a negative noise.
    """

    # Observed when the action has been taken and before it has had its effect.
    early = True

    def __init__(self, simulation, lane: torch.Tensor, noise: float = 0.05):
        require_network(simulation, "Tracking")
        n, agents = simulation.num_worlds, simulation.state.agents
        if tuple(lane.shape) != (n,) or lane.dtype != torch.int32:
            raise UserError(f"lane must be int32 of shape ({n},), not {lane.dtype} of shape {tuple(lane.shape)}")
        if not 0 <= noise < math.inf:
            raise UserError(f"noise must be at least 0, not {noise:g}")
        self._simulation, self._lane, self._noise = simulation, lane, float(noise)
        shape = per_agent(simulation, len(MEASURED), 1)
        shapes = dict.fromkeys(("state", "derivative", "reference_state"), shape)
        self.outputs, self.finals, self.spaces = base.numbers(simulation, shapes)
        self.memory: dict[str, torch.Tensor] = {}
        self._rows = tuple(wp.from_torch(output.view(n, agents, -1)) for output in self.outputs.values())

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        seed = wp.from_torch(simulation.seed, dtype=wp.uint64)
        lane = wp.from_torch(self._lane)
        inputs = (simulation.state.warp, simulation.road, lane, self._noise, seed, *self._rows, which)
        return [Launch(build(simulation.real).measure, (simulation.state.agents,), inputs)]
