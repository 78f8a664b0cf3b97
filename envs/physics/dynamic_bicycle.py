"""The dynamic bicycle model, with tyres that slip, as highway-env integrates it (its BicycleVehicle).

Rajamani 2011, "Vehicle Dynamics and Control", chapter 2: tyre forces are linear in the slip angles, the body has a
lateral speed and a yaw rate; below 1 m/s both are damped instead. One fourth-order Runge-Kutta step a frame. Collisions
set the crashed flag and do not displace the vehicle.
"""

import functools
import math

import warp as wp

from envs.physics import bicycle
from envs.physics.control import HALF_LENGTH
from envs.precision import Functions
from envs.state import world_struct

MASS = 1.0
AXLE = HALF_LENGTH  # m, from the centre to either axle
INERTIA = MASS * (5.0**2 + 2.0**2) / 12.0  # of a 5 m by 2 m box about its vertical axis
STIFFNESS = 2.0 * 15.0 * MASS  # of an axle: force over slip angle
MAX_YAW_RATE = 2.0 * math.pi  # rad/s
CREEP = 1.0  # m/s, below which slip angles mean nothing


@functools.cache
def build(real: type) -> Functions:
    """`integrate(world, w, i, dt)`, on a state vector `advance` and `slope`, its derivative; `state_of` a vehicle.

    The state is x, y, heading, speed, lateral speed and yaw rate.
    """
    World = world_struct(real)
    bounded = bicycle.build(real).bounded
    vec6 = wp.types.vector(length=6, dtype=real)
    mass, axle, inertia, stiffness = real(MASS), real(AXLE), real(INERTIA), real(STIFFNESS)
    max_rate, creep, right_angle = real(MAX_YAW_RATE), real(CREEP), real(math.pi / 2)
    zero, half, two, sixth = real(0.0), real(0.5), real(2.0), real(1.0 / 6.0)

    @wp.func
    def slope(state: vec6, steering: real, acceleration: real) -> vec6:
        heading = state[2]
        speed = state[3]
        lateral = state[4]
        rate = state[5]
        front = stiffness * (steering - wp.atan2(lateral + axle * rate, speed))
        rear = -stiffness * wp.atan2(lateral - axle * rate, speed)
        if wp.abs(speed) < creep:
            front = -mass * lateral - inertia / axle * rate
            rear = -mass * lateral + inertia / axle * rate
        c = wp.cos(heading)
        s = wp.sin(heading)
        return vec6(
            c * speed - s * lateral,
            s * speed + c * lateral,
            rate,
            acceleration,
            (front + rear) / mass - rate * speed,
            (axle * front - axle * rear) / inertia,
        )

    @wp.func
    def state_of(world: wp.ref[World], w: int, i: int) -> vec6:
        return vec6(
            world.vehicle[w, i].x,
            world.vehicle[w, i].y,
            world.vehicle[w, i].heading,
            world.vehicle[w, i].speed,
            world.vehicle[w, i].lateral_speed,
            world.vehicle[w, i].yaw_rate,
        )

    @wp.func
    def advance(before: vec6, steering: real, acceleration: real, dt: real) -> vec6:
        """One Runge-Kutta step. The yaw rate is bounded before it: with a long step it can grow without limit."""
        start = vec6(before)
        start[5] = wp.clamp(start[5], -max_rate, max_rate)
        k1 = slope(start, steering, acceleration)
        k2 = slope(start + k1 * (dt * half), steering, acceleration)
        k3 = slope(start + k2 * (dt * half), steering, acceleration)
        k4 = slope(start + k3 * dt, steering, acceleration)
        return start + (k1 + k2 * two + k3 * two + k4) * (dt * sixth)

    @wp.func
    def integrate(world: wp.ref[World], w: int, i: int, dt: real):
        acceleration = bounded(world, w, i)
        steering = wp.clamp(world.vehicle[w, i].steering, -right_angle, right_angle)
        if world.vehicle[w, i].crashed != 0:
            steering = zero
        world.vehicle[w, i].acceleration = acceleration
        world.vehicle[w, i].steering = steering
        end = advance(state_of(world, w, i), steering, acceleration, dt)
        world.vehicle[w, i].x = end[0]
        world.vehicle[w, i].y = end[1]
        world.vehicle[w, i].heading = end[2]
        world.vehicle[w, i].cos_heading = wp.cos(end[2])
        world.vehicle[w, i].sin_heading = wp.sin(end[2])
        world.vehicle[w, i].speed = end[3]
        world.vehicle[w, i].lateral_speed = end[4]
        world.vehicle[w, i].yaw_rate = end[5]

    return Functions(vec6=vec6, slope=slope, advance=advance, state_of=state_of, integrate=integrate)
