"""Vectors from the simulator's state: highway-env's Kinematics observation, and the ego's own speed."""

import functools

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs.launch import Launch
from envs.phases import ENDED
from envs.physics.bicycle import MAX_SPEED
from envs.precision import Functions
from envs.state import world_struct

FEATURES = ("presence", "x", "y", "vx", "vy")
PERCEPTION_DISTANCE = 5.0 * MAX_SPEED  # m, how far vehicles are seen and what x is divided by
BEHIND = 10.0  # m, two car lengths: what is farther behind is not observed
CAR_LENGTH = 5.0


@functools.cache
def build(real: type) -> Functions:
    """Kernels `kinematics` and `own_speed`."""
    World = world_struct(real)
    one = real(1.0)
    sight, behind = real(PERCEPTION_DISTANCE), real(BEHIND)
    ended = ENDED

    @wp.func
    def unit(value: real, scale: real) -> wp.float32:
        return wp.float32(wp.clamp(value / scale, -one, one))

    @wp.func
    def visible(world: wp.ref[World], w: int, j: int) -> bool:
        dx = world.vehicle[w, j].x - world.vehicle[w, 0].x
        dy = world.vehicle[w, j].y - world.vehicle[w, 0].y
        return world.vehicle[w, j].kind != 0 and dx > -behind and dx * dx + dy * dy < sight * sight

    @wp.kernel(module="unique")
    def kinematics(
        world: World,
        lane_range: real,
        rows: int,
        observation: wp.array3d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        speed_range = real(2.0 * MAX_SPEED)
        x = world.vehicle[w, 0].x
        y = world.vehicle[w, 0].y
        vx = world.vehicle[w, 0].speed * world.vehicle[w, 0].cos_heading
        vy = world.vehicle[w, 0].speed * world.vehicle[w, 0].sin_heading
        observation[w, 0, 0] = wp.float32(1.0)
        observation[w, 0, 1] = unit(x, sight)
        observation[w, 0, 2] = unit(y, lane_range)
        observation[w, 0, 3] = unit(vx, speed_range)
        observation[w, 0, 4] = unit(vy, speed_range)
        # The nearest along the road: two walkers leave the ego's place in the sorted order, one ahead and one behind.
        ahead = int(world.vehicle[w, 0].rank + 1)
        astern = int(world.vehicle[w, 0].rank - 1)
        for row in range(1, rows):
            while ahead < world.slots and not visible(world, w, world.vehicle[w, ahead].order):
                ahead = ahead + 1
            while astern >= 0 and not visible(world, w, world.vehicle[w, astern].order):
                astern = astern - 1
            j = int(-1)
            if ahead < world.slots:
                j = world.vehicle[w, ahead].order
            if astern >= 0:
                k = world.vehicle[w, astern].order
                if j < 0 or x - world.vehicle[w, k].x < world.vehicle[w, j].x - x:
                    j = k
                    astern = astern - 1
                else:
                    ahead = ahead + 1
            else:
                ahead = ahead + 1
            if j >= 0:
                observation[w, row, 0] = wp.float32(1.0)
                observation[w, row, 1] = unit(world.vehicle[w, j].x - x, sight)
                observation[w, row, 2] = unit(world.vehicle[w, j].y - y, lane_range)
                observation[w, row, 3] = unit(
                    world.vehicle[w, j].speed * world.vehicle[w, j].cos_heading - vx, speed_range
                )
                observation[w, row, 4] = unit(
                    world.vehicle[w, j].speed * world.vehicle[w, j].sin_heading - vy, speed_range
                )
            else:
                for feature in range(5):
                    observation[w, row, feature] = wp.float32(0.0)

    @wp.kernel(module="unique")
    def own_speed(world: World, observation: wp.array2d(dtype=wp.float32), which: int, first_world: int):
        w, a = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        observation[w, a] = wp.float32(world.vehicle[w, a].speed / real(MAX_SPEED))

    return Functions(kinematics=kinematics, own_speed=own_speed)


class Kinematics:
    """highway-env's `Kinematics` observation with its defaults: the ego and the four nearest vehicles.

    Rows: the ego, then others by distance along the road, none more than 10 m behind. Columns: presence, x and y
    (relative to the ego but for the ego's own row), vx, vy; scaled by 200 m, the road's width and 80 m/s, clipped to
    [-1, 1]. Shape: (N, 5, 5) float32.
    """

    features = FEATURES

    def __init__(self, simulation, rows: int = 5):
        self._simulation = simulation
        self._rows = rows
        shape = (rows, len(FEATURES))
        output = torch.zeros((simulation.num_worlds, *shape), dtype=torch.float32, device=simulation.device)
        self.outputs, self.finals = {"state": output}, {"state": torch.zeros_like(output)}
        self.spaces = {"state": spaces.Box(-1.0, 1.0, shape, np.float32)}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list:
        simulation = self._simulation
        road = simulation.scenario.road()
        output = wp.from_torch(self.outputs["state"])
        inputs = (simulation.state.warp, road.lane_width * road.lanes, self._rows, output, which)
        return [Launch(build(simulation.real).kinematics, (), inputs)]


class OwnSpeed:
    """The ego's speed as a share of 40 m/s, as a speedometer would tell it. Shape: (N, 1) float32, with several agents
    (N, A, 1)."""

    def __init__(self, simulation):
        self._simulation = simulation
        agents = simulation.state.agents
        shape = (agents, 1) if agents > 1 else (1,)
        output = torch.zeros((simulation.num_worlds, *shape), dtype=torch.float32, device=simulation.device)
        self.outputs, self.finals = {"speed": output}, {"speed": torch.zeros_like(output)}
        self.spaces = {"speed": spaces.Box(-2.0, 2.0, shape, np.float32)}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list:
        simulation = self._simulation
        output = wp.from_torch(self.outputs["speed"].view(simulation.num_worlds, -1))
        inputs = (simulation.state.warp, output, which)
        return [Launch(build(simulation.real).own_speed, (simulation.state.agents,), inputs)]
