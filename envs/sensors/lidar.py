"""Distances and closing speeds all around: highway-env's LidarObservation, on any road.

One ray a cell, along its middle. What stands there is a box, cut exactly; besides, a box is felt in the cell of its
centre at the centre's distance less half its width, as highway-env does it.
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
from envs.precision import Functions
from envs.sensors.vehicle_list import per_agent
from envs.state import LANDMARK, world_struct


@functools.cache
def build(real: type) -> Functions:
    """Kernel `scan`."""
    World = world_struct(real)
    vec2 = wp.vec2f if real is wp.float32 else wp.vec2d
    ended, landmark = ENDED, LANDMARK
    zero, half, one, two_pi, right_angle = real(0.0), real(0.5), real(1.0), real(2.0 * math.pi), real(math.pi / 2)
    nowhere = real(math.inf)

    @wp.func
    def corner(center: vec2, along: vec2, across: vec2, k: int) -> vec2:
        """The corners in order around the box: back left, back right, front right, front left."""
        forward = wp.where(k >= 2, one, -one)
        right = wp.where(k == 1 or k == 2, one, -one)
        return center + forward * along + right * across

    @wp.func
    def gap(low_a: real, high_a: real, low_b: real, high_b: real) -> real:
        """Distance between two intervals, negative where they overlap."""
        if low_a < low_b:
            return low_b - high_a
        return low_a - high_b

    @wp.func
    def ray_meets(ray: vec2, back_left: vec2, back_right: vec2, front_left: vec2) -> real:
        """Where along the ray from the origin, as a share of it, a box begins; infinity where it does not."""
        across = wp.normalize(back_right - back_left)
        along = wp.normalize(front_left - back_left)
        ray_across = wp.dot(ray, across)
        ray_along = wp.dot(ray, along)
        enter_across = wp.dot(back_left, across) / ray_across
        leave_across = wp.dot(back_right, across) / ray_across
        enter_along = wp.dot(back_left, along) / ray_along
        leave_along = wp.dot(front_left, along) / ray_along
        if ray_across < zero:
            kept = enter_across
            enter_across = leave_across
            leave_across = kept
        if ray_along < zero:
            kept = enter_along
            enter_along = leave_along
            leave_along = kept
        if (
            gap(enter_across, leave_across, enter_along, leave_along) <= zero
            and gap(zero, one, enter_across, leave_across) <= zero
            and gap(zero, one, enter_along, leave_along) <= zero
        ):
            return wp.max(enter_across, enter_along)
        return nowhere

    @wp.func
    def cell_at(angle: real, width: real, cells: int) -> int:
        cell = int(wp.floor(angle / width)) % cells
        return wp.where(cell < 0, cell + cells, cell)

    @wp.func
    def note(
        directions: wp.array(dtype=vec2),
        scan_of: wp.array4d(dtype=wp.float32),
        w: int,
        a: int,
        cell: int,
        distance: real,
        velocity: vec2,
    ):
        if distance <= real(scan_of[w, a, cell, 0]):
            scan_of[w, a, cell, 0] = wp.float32(distance)
            scan_of[w, a, cell, 1] = wp.float32(wp.dot(velocity, directions[cell]))

    @wp.func
    def velocity_of(world: wp.ref[World], w: int, j: int) -> vec2:
        return world.vehicle[w, j].speed * vec2(world.vehicle[w, j].cos_heading, world.vehicle[w, j].sin_heading)

    @wp.func
    def feel(
        world: wp.ref[World],
        directions: wp.array(dtype=vec2),
        reach: real,
        scan_of: wp.array4d(dtype=wp.float32),
        w: int,
        a: int,
        j: int,
    ):
        """Note one box in the cells that it is in."""
        center = vec2(world.vehicle[w, j].x - world.vehicle[w, a].x, world.vehicle[w, j].y - world.vehicle[w, a].y)
        away = wp.length(center)
        if away > reach:
            return
        cells = directions.shape[0]
        width = two_pi / real(cells)
        velocity = velocity_of(world, w, j) - velocity_of(world, w, a)
        middle = cell_at(wp.atan2(center[1], center[0]) + width * half, width, cells)
        note(directions, scan_of, w, a, middle, away - world.vehicle[w, j].width * half, velocity)

        c = world.vehicle[w, j].cos_heading
        s = world.vehicle[w, j].sin_heading
        along = vec2(c, s) * (world.vehicle[w, j].length * half)
        across = vec2(-s, c) * (world.vehicle[w, j].width * half)
        low = real(10.0)
        high = real(-10.0)
        for k in range(4):
            point = corner(center, along, across, k)
            angle = wp.atan2(point[1], point[0]) + width * half
            low = wp.min(low, angle)
            high = wp.max(high, angle)
        is_behind = low < -right_angle and high > right_angle
        if is_behind:
            kept = low
            low = high
            high = kept + two_pi
        first = cell_at(low, width, cells)
        last = cell_at(high, width, cells)
        count = int(last - first + 1)
        if count <= 1:
            count = count + cells
            # From a cell to itself highway-env goes all around; but no other cell's ray can hit a box within one.
            if first == last and not is_behind and high - low < width:
                count = 1
        back_left = corner(center, along, across, 0)
        back_right = corner(center, along, across, 1)
        front_left = corner(center, along, across, 3)
        for k in range(count):
            cell = (first + k) % cells
            share = ray_meets(directions[cell] * reach, back_left, back_right, front_left)
            note(directions, scan_of, w, a, cell, share * reach, velocity)

    @wp.kernel(module="unique")
    def scan(
        world: World,
        directions: wp.array(dtype=vec2),
        reach: real,
        normalize: int,
        scan_of: wp.array4d(dtype=wp.float32),
        which: int,
        first_world: int,
    ):
        w, a = wp.tid()
        w = w + first_world
        if which == ended and world.terminated[w] + world.truncated[w] == 0:
            return
        cells = directions.shape[0]
        for cell in range(cells):
            scan_of[w, a, cell, 0] = wp.float32(reach)
            scan_of[w, a, cell, 1] = wp.float32(reach)
        for j in range(world.slots):
            if j != a and world.vehicle[w, j].kind != 0 and world.vehicle[w, j].kind != landmark:
                feel(world, directions, reach, scan_of, w, a, j)
        if normalize != 0:
            for cell in range(cells):
                scan_of[w, a, cell, 0] = scan_of[w, a, cell, 0] / wp.float32(reach)
                scan_of[w, a, cell, 1] = scan_of[w, a, cell, 1] / wp.float32(reach)

    return Functions(scan=scan, vec2=vec2)


class Lidar:
    """highway-env's `LidarObservation`. Shape: (N, cells, 2) float32, with several agents (N, A, cells, 2).

    Columns: distance to what is nearest [m], and its speed away along the cell's ray, relative to the observer [m/s];
    both are `maximum_range` where nothing is seen. Cell 0 is towards +x of the map, not ahead of the observer, and
    numbers grow towards +y. Landmarks are not felt.

    Args:
        cells: rays, evenly spaced.
        maximum_range: what is centred farther away is not seen [m].
        normalize: whether both columns are divided by `maximum_range`.

    Raises:
        UserError: no cells or no range.
    """

    def __init__(self, simulation, cells: int = 16, maximum_range: float = 60.0, normalize: bool = True):
        if cells < 1 or not 0 < maximum_range < math.inf:
            raise UserError(f"a lidar needs cells and a range, not {cells} cells and {maximum_range:g} m")
        self._simulation, self._range, self._normalize = simulation, float(maximum_range), int(normalize)
        angles = np.arange(cells) * (2.0 * math.pi / cells)
        rays = np.stack((np.cos(angles), np.sin(angles)), axis=1)
        self._directions = wp.array(rays, dtype=build(simulation.real).vec2, device=simulation.warp_device)
        n, agents = simulation.num_worlds, simulation.state.agents
        shape = per_agent(simulation, cells, 2)
        output = torch.zeros((n, *shape), dtype=torch.float32, device=simulation.device)
        self._scan = wp.from_torch(output.view(n, agents, cells, 2))
        self.outputs, self.finals = {"state": output}, {"state": torch.zeros_like(output)}
        high = 1.0 if normalize else maximum_range
        self.spaces = {"state": spaces.Box(-high, high, shape, np.float32)}
        self.memory: dict[str, torch.Tensor] = {}

    def launches(self, which: int, restart: bool = False) -> list[Launch]:
        """See `envs.sensors.base.Sensor`."""
        simulation = self._simulation
        inputs = (simulation.state.warp, self._directions, self._range, self._normalize, self._scan, which)
        return [Launch(build(simulation.real).scan, (simulation.state.agents,), inputs)]
