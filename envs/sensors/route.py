"""What a driver with a navigation system knows of its route: what comes next, how far off, how far it is in all."""

import functools

import numpy as np
import torch
import warp as wp
from gymnasium import spaces

from envs.errors import UserError
from envs.launch import Launch
from envs.phases import ENDED
from envs.precision import Functions
from envs.roads import general
from envs.state import IDM, META, world_struct

MANOEUVRES = ("left", "straight", "right", "roundabout")
ARRIVE = len(MANOEUVRES)
NEAR, FAR = 100.0, 500.0  # m, what distances to the next manoeuvre and to the destination are divided by


@functools.cache
def build(real: type) -> Functions:
    """Kernel `navigate`."""
    World = world_struct(real)
    road_functions = general.build(real)
    Road, places, ended = road_functions.Road, general.PLACES, ENDED
    idm, meta, arrive = IDM, META, ARRIVE
    near, far, zero = real(NEAR), real(FAR), real(0.0)
    f = wp.float32

    @wp.func
    def rest(world: wp.ref[World], road: wp.ref[Road], w: int, here: int) -> real:
        """How far it is to the end of the present road of the ego's route [m]."""
        lane = int(world.vehicle[w, 0].lane)
        if world.vehicle[w, 0].kind == idm or world.vehicle[w, 0].kind == meta:
            lane = world.vehicle[w, 0].target_lane
        if road.of_lane[lane].road != here:
            lane = road.road_lane[here]
        return road.lanes.lane[lane].length - road_functions.local_of(world, road, w, 0, lane)[0]

    @wp.kernel(module="unique")
    def navigate(
        world: World,
        road: Road,
        manoeuvre: wp.array(dtype=wp.int32),
        observation: wp.array2d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w = wp.tid() + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        following = int(arrive)
        distance = real(0.0)
        total = real(0.0)
        for step in range(world.vehicle[w, 0].route_at, world.vehicle[w, 0].route_end):
            here = world.route[w, 0, step] / places
            if following == arrive and manoeuvre[here] >= 0:
                following = manoeuvre[here]
                distance = total
            if step == world.vehicle[w, 0].route_at:
                total = rest(world, road, w, here)
            else:
                total = total + road.lanes.lane[road.road_lane[here]].length
        if following == arrive:
            distance = total
        for k in range(arrive + 1):
            observation[w, k] = wp.where(k == following, f(1.0), f(0.0))
        observation[w, arrive + 1] = f(wp.clamp(distance / near, zero, real(1.0)))
        observation[w, arrive + 2] = f(wp.max(total, zero) / far)

    return Functions(navigate=navigate)


class Route:
    """The ego's route, as a navigation system tells it: {"route": float32 (N, 7)}.

    Columns: one of five is 1, the next manoeuvre: left, straight or right at a crossing, into or out of a roundabout,
    arrive; the distance to where it begins in 100 m, at most 1, and 0 while it is under way; the length of what is
    left of the route in 500 m. What signals show is not in it.

    Args:
        simulation: the worlds.
        manoeuvres: for each map what its roads (from, to) are, among `MANOEUVRES`; roads that are not named are
            nothing to be told of.

    Raises:
        UserError: not as many as there are maps, or roads or manoeuvres that there are not.
    """

    def __init__(self, simulation, manoeuvres: list[dict[tuple[str, str], str]]):
        maps = simulation.maps or []
        if len(manoeuvres) != len(maps):
            raise UserError(f"manoeuvres are needed for each of {len(maps)} maps, not {len(manoeuvres)}")
        numbers = []
        for network, named in zip(maps, manoeuvres, strict=True):
            if not set(named) <= set(network.roads) or not set(named.values()) <= set(MANOEUVRES):
                raise UserError(f"manoeuvres name roads of the map, each {', '.join(MANOEUVRES)}")
            numbers += [MANOEUVRES.index(named[road]) if road in named else -1 for road in network.roads]
        self._simulation = simulation
        self._manoeuvres = wp.array(numbers, dtype=wp.int32, device=simulation.warp_device)
        output = torch.zeros((simulation.num_worlds, ARRIVE + 3), dtype=torch.float32, device=simulation.device)
        self.outputs = {"route": output}
        self.finals = {"route": torch.zeros_like(output)}
        self.spaces = {"route": spaces.Box(0.0, np.inf, (ARRIVE + 3,), np.float32)}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        rows = wp.from_torch(self.outputs["route"])
        inputs = (simulation.state.warp, simulation.road, self._manoeuvres, rows, which)
        return [Launch(build(simulation.real).navigate, (), inputs)]
