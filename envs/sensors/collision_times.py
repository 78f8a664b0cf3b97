"""When the ego would hit whom: highway-env's TimeToCollision observation.

For the ego's target speed and the next slower and faster one, and for its lane and those beside: the times at which it
would meet another vehicle, if every speed stayed as it is and others kept their lanes.
"""

import functools
import math

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs.errors import UserError
from envs.launch import Launch
from envs.phases import ENDED
from envs.physics import actions
from envs.precision import Functions
from envs.roads import general
from envs.sensors import vehicle_list
from envs.sensors.vehicle_list import per_agent, require_network
from envs.state import world_struct

SPEEDS = LANES = 3
# Roads that are looked ahead for others, along the route where there is one.
DEPTH = 3
TOUCHING = 0.5  # value of the times at which bumpers meet; that of centres is 1
LEAST_CLOSING_SPEED = 1e-2  # m/s


@functools.cache
def build(real: type) -> Functions:
    """Kernel `predict`."""
    World = world_struct(real)
    roads = general.build(real)
    seeing = vehicle_list.build(real)
    act = actions.build(real, roads)
    Road, Controls = roads.Road, act.Controls
    places, ended, lanes_seen = general.PLACES, ENDED, LANES
    touching, whole, clear = wp.float32(TOUCHING), wp.float32(1.0), wp.float32(0.0)
    least, zero, half = real(LEAST_CLOSING_SPEED), real(0.0), real(0.5)

    @wp.func
    def meets(world: wp.ref[World], road: wp.ref[Road], w: int, a: int, here: int, there: int, at: int) -> bool:
        """Whether two roads are the same, or `there` leads into `here`."""
        return here == there or road.road_to[there] == road.road_from[here]

    def one_road_farther(search):
        """`search` with one road more ahead of it: the next of the agent's route, of which `at` is the next step, or
        every road that follows.
        """

        @wp.func
        def search_on(world: wp.ref[World], road: wp.ref[Road], w: int, a: int, here: int, there: int, at: int) -> bool:
            if meets(world, road, w, a, here, there, at):
                return True
            end = world.vehicle[w, a].route_end
            step = int(at)
            while step < end and world.route[w, a, step] / places == here:
                step = step + 1
            node = road.road_to[here]
            if step < end and road.road_from[world.route[w, a, step] / places] == node:
                return search(world, road, w, a, world.route[w, a, step] / places, there, step + 1)
            for k in range(road.node_first[node], road.node_first[node + 1]):
                if search(world, road, w, a, road.node_road[k], there, step):
                    return True
            return False

        return search_on

    is_connected = meets
    for _ in range(DEPTH):
        is_connected = one_road_farther(is_connected)

    @wp.func
    def apart(speed: real) -> real:
        """A closing speed that can be divided by."""
        if wp.abs(speed) > least:
            return speed
        return wp.where(speed >= zero, least, -least)

    @wp.func
    def mark(
        times: wp.array4d(dtype=wp.float32),
        w: int,
        a: int,
        row: int,
        place: int,
        own_place: int,
        lanes: int,
        steps: real,
        cost: wp.float32,
    ):
        """Note a meeting after `steps` time steps on the place's lane, on all where that is -1."""
        last = times.shape[3] - 1
        if not (steps >= zero and steps < real(last + 1)):
            return
        early = int(steps)
        late = wp.min(int(wp.ceil(steps)), last + 1)
        for column in range(lanes_seen):
            lane = own_place - lanes_seen / 2 + column
            if lane >= 0 and lane < lanes and (place < 0 or place == lane):
                cell = row * lanes_seen + column
                times[w, a, cell, early] = wp.max(times[w, a, cell, early], cost)
                if late <= last:
                    times[w, a, cell, late] = wp.max(times[w, a, cell, late], cost)

    @wp.kernel(module="unique")
    def predict(
        world: World,
        road: Road,
        controls: Controls,
        quantum: real,
        times: wp.array4d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w, a, row = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        lane = world.vehicle[w, a].lane
        here = road.of_lane[lane].road
        own_place = road.of_lane[lane].place
        # The lanes are counted on the first agent's road, whoever observes.
        lanes = road.road_lanes[road.of_lane[world.vehicle[w, 0].lane].road]
        for column in range(lanes_seen):
            beside = own_place - lanes_seen / 2 + column
            for k in range(times.shape[3]):
                times[w, a, row * lanes_seen + column, k] = wp.where(beside < 0 or beside >= lanes, whole, clear)
        speed = act.speed_of(controls, wp.clamp(world.vehicle[w, a].speed_index + row - 1, 0, controls.count - 1))
        s = roads.local_of(world, road, w, a, lane)[0]
        for j in range(world.slots):
            if (
                j != a
                and world.vehicle[w, j].kind != 0
                and not seeing.is_object(world, w, j)
                and world.vehicle[w, j].speed != speed
            ):
                there = road.of_lane[world.vehicle[w, j].lane].road
                if is_connected(world, road, w, a, here, there, world.vehicle[w, a].route_at):
                    ahead = seeing.along(world, road, w, j, lane) - s
                    margin = world.vehicle[w, j].length * half + world.vehicle[w, a].length * half
                    facing = (
                        world.vehicle[w, j].cos_heading * world.vehicle[w, a].cos_heading
                        + world.vehicle[w, j].sin_heading * world.vehicle[w, a].sin_heading
                    )
                    closing = apart(speed - world.vehicle[w, j].speed * facing)
                    place = int(road.of_lane[world.vehicle[w, j].lane].place)
                    if road.road_lanes[there] != road.road_lanes[here]:
                        place = -1
                    time = ahead / closing
                    mark(times, w, a, row, place, own_place, lanes, time / quantum, whole)
                    time = (ahead - margin) / closing
                    mark(times, w, a, row, place, own_place, lanes, time / quantum, touching)
                    time = (ahead + margin) / closing
                    mark(times, w, a, row, place, own_place, lanes, time / quantum, touching)

    return Functions(predict=predict)


class CollisionTimes:
    """highway-env's `TimeToCollision` observation. Shape: (N, 3, 3, T) float32, with several agents (N, A, 3, 3, T).

    Axes: the next slower target speed, the present and the next faster one (the slowest and fastest repeat); the lane
    to the left, the agent's and the one to the right (1 where there is none); time in steps of a decision.
    A value is 1 where centres meet, 0.5 where bumpers do, else 0.

    Args:
        horizon: how far times are looked ahead [s].

    Raises:
        UserError: a horizon shorter than a decision.
    """

    def __init__(self, simulation, horizon: float = 10.0):
        require_network(simulation, "CollisionTimes")
        self._quantum = 1.0 / simulation.scenario.policy_frequency
        steps = int(horizon / self._quantum) if math.isfinite(horizon) else 0
        if steps < 1:
            raise UserError(f"the horizon must be at least a decision of {self._quantum:g} s, not {horizon:g} s")
        self._simulation = simulation
        n, agents = simulation.num_worlds, simulation.state.agents
        shape = per_agent(simulation, SPEEDS, LANES, steps)
        output = torch.zeros((n, *shape), dtype=torch.float32, device=simulation.device)
        self._times = wp.from_torch(output.view(n, agents, SPEEDS * LANES, steps))
        self.outputs, self.finals = {"state": output}, {"state": torch.zeros_like(output)}
        self.spaces = {"state": spaces.Box(0.0, 1.0, shape, np.float32)}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        inputs = (
            simulation.state.warp,
            simulation.road,
            simulation.controls,
            self._quantum,
            self._times,
            which,
        )
        return [Launch(build(simulation.real).predict, (simulation.state.agents, SPEEDS), inputs)]
