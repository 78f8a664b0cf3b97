"""The kinematic bicycle model, as highway-env integrates it.

    x += v cos(psi + beta) dt,  y += v sin(psi + beta) dt,  psi += v sin(beta) / (L/2) dt,  v += a dt

with beta the slip angle at the centre and all of the right-hand sides at the old state (Polack et al. 2017, "The
kinematic bicycle model: a consistent model for planning feasible trajectories for autonomous vehicles?").
"""

import functools

import warp as wp

from envs.physics import angles
from envs.physics.control import HALF_LENGTH
from envs.precision import Functions
from envs.state import world_struct

MAX_SPEED = 40.0  # m/s; above it the acceleration is bounded so that the speed returns within a second


@functools.cache
def build(real: type) -> Functions:
    """`integrate(world, w, i, dt)`: one frame of one vehicle, the pending impact of a collision included.

    `bounded(world, w, i)`: the acceleration that a vehicle's speed and a crash leave of its command.
    """
    World = world_struct(real)
    half_length, max_speed = real(HALF_LENGTH), real(MAX_SPEED)
    zero, one = real(0.0), real(1.0)
    cosine, sine = angles.build(real).cosine, angles.build(real).sine

    @wp.func
    def bounded(world: wp.ref[World], w: int, i: int) -> real:
        speed = world.vehicle[w, i].speed
        acceleration = world.vehicle[w, i].acceleration
        if world.vehicle[w, i].crashed != 0:
            acceleration = -speed
        if speed > max_speed:
            acceleration = wp.min(acceleration, max_speed - speed)
        elif speed < -max_speed:
            acceleration = wp.max(acceleration, -max_speed - speed)
        return acceleration

    @wp.func
    def integrate(world: wp.ref[World], w: int, i: int, dt: real):
        speed = world.vehicle[w, i].speed
        acceleration = bounded(world, w, i)
        sin_slip = world.vehicle[w, i].sin_slip
        if world.vehicle[w, i].crashed != 0:
            sin_slip = zero
        # The bounded command is what is kept: a vehicle that no longer acts (a crashed one) repeats it.
        world.vehicle[w, i].acceleration = acceleration
        world.vehicle[w, i].sin_slip = sin_slip

        along = world.vehicle[w, i].cos_heading
        across = world.vehicle[w, i].sin_heading
        if sin_slip != zero:
            cos_slip = wp.sqrt(one - sin_slip * sin_slip)
            c = along
            s = across
            along = c * cos_slip - s * sin_slip
            across = s * cos_slip + c * sin_slip
        x = world.vehicle[w, i].x + speed * along * dt
        y = world.vehicle[w, i].y + speed * across * dt
        if world.vehicle[w, i].has_impact != 0:
            x = x + world.vehicle[w, i].impact_x
            y = y + world.vehicle[w, i].impact_y
            world.vehicle[w, i].crashed = 1
            world.vehicle[w, i].has_impact = 0
        world.vehicle[w, i].x = x
        world.vehicle[w, i].y = y
        if sin_slip != zero:
            heading = world.vehicle[w, i].heading + speed * sin_slip / half_length * dt
            world.vehicle[w, i].heading = heading
            world.vehicle[w, i].cos_heading = cosine(heading)
            world.vehicle[w, i].sin_heading = sine(heading)
        world.vehicle[w, i].speed = speed + acceleration * dt

    return Functions(integrate=integrate, bounded=bounded)
