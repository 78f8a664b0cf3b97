"""The Intelligent Driver Model, as highway-env writes it.

Treiber, Hennecke and Helbing 2000, "Congested traffic states in empirical observations and microscopic simulations":

    a = a_max [1 - (v / v0)^delta - (d* / d)^2],    d* = d0 + T v + v dv / (2 sqrt(a_max b))

highway-env's choices: d is measured between centres (so d0 holds a car's length), v0 is capped by the lane's speed
limit, dv is projected on the follower's direction, and d* is squared even where it is negative.
"""

import functools
import math
from dataclasses import dataclass, fields

import warp as wp

from envs.physics import power
from envs.precision import Functions
from envs.state import world_struct


@dataclass(frozen=True)
class DriverModel:
    """Parameters of IDM and MOBIL; the defaults are those of highway-env's IDMVehicle.

    Attributes:
        max_acceleration: bound on the magnitude of the command [m/s2].
        comfort_acceleration: a_max of the law [m/s2].
        comfort_deceleration: b of the law, a positive number [m/s2].
        jam_distance: d0, centre to centre [m].
        headway: T, desired time headway [s].
        politeness: MOBIL's weight of the followers' gain [1].
        min_gain: least gain in acceleration for which a lane is changed [m/s2].
        max_imposed_braking: hardest braking that a change may impose on its new follower [m/s2].
        decision_delay: a lane change is considered when more than this time has passed since the last decision [s].
    """

    max_acceleration: float = 6.0
    comfort_acceleration: float = 3.0
    comfort_deceleration: float = 5.0
    jam_distance: float = 10.0
    headway: float = 1.5
    politeness: float = 0.0
    min_gain: float = 0.2
    max_imposed_braking: float = 2.0
    decision_delay: float = 1.0


def fill(driver, model: DriverModel) -> None:
    """Write the parameters of a model into a struct `Driver`."""
    for parameter in fields(model):
        setattr(driver, parameter.name, getattr(model, parameter.name))
    driver.closing_scale = 2 * math.sqrt(model.comfort_acceleration * model.comfort_deceleration)


@functools.cache
def build(real: type) -> Functions:
    """Struct `Driver` and the law on scalars and on pairs of slots."""
    World = world_struct(real)

    @wp.struct
    class Driver:
        max_acceleration: real
        comfort_acceleration: real
        comfort_deceleration: real
        jam_distance: real
        headway: real
        politeness: real
        min_gain: real
        max_imposed_braking: real
        decision_delay: real
        closing_scale: real  # 2 sqrt(a_max b)

    powers = power.build(real)
    eps, zero, one = real(0.01), real(0.0), real(1.0)

    @wp.func
    def not_zero(value: real) -> real:
        # highway-env divides by this in place of the value.
        if wp.abs(value) > eps:
            return value
        return wp.where(value >= zero, eps, -eps)

    @wp.func
    def desired_gap(driver: Driver, speed: real, approach: real) -> real:
        """d*, from the follower's speed and the rate at which it closes in [m]."""
        return driver.jam_distance + speed * driver.headway + speed * approach / driver.closing_scale

    @wp.func
    def speed_share(speed: real, target_speed: real, limit: real) -> real:
        """v / v0."""
        return wp.max(speed, zero) / wp.abs(not_zero(wp.clamp(target_speed, zero, limit)))

    @wp.func
    def free_road(driver: Driver, raised: real) -> real:
        """The law on an empty road, from (v / v0) ** delta [m/s2]."""
        return driver.comfort_acceleration * (one - raised)

    @wp.func
    def free_acceleration(driver: Driver, speed: real, target_speed: real, limit: real, exponent: real) -> real:
        """The law on an empty road [m/s2]."""
        return free_road(driver, powers.power(speed_share(speed, target_speed, limit), exponent))

    @wp.func
    def interaction(driver: Driver, speed: real, approach: real, gap: real) -> real:
        """The deceleration that a vehicle ahead asks for, a positive number [m/s2]."""
        ratio = desired_gap(driver, speed, approach) / not_zero(gap)
        return driver.comfort_acceleration * ratio * ratio

    @wp.func
    def approach_rate(world: wp.ref[World], w: int, i: int, j: int) -> real:
        """Speed of i relative to j along i's direction [m/s]."""
        along = (
            world.vehicle[w, j].cos_heading * world.vehicle[w, i].cos_heading
            + world.vehicle[w, j].sin_heading * world.vehicle[w, i].sin_heading
        )
        return world.vehicle[w, i].speed - world.vehicle[w, j].speed * along

    @wp.func
    def braking(world: wp.ref[World], driver: Driver, w: int, i: int, j: int, gap: real) -> real:
        """What the law asks of i to brake for j, `gap` ahead of it, or 0 where there is no j [m/s2]."""
        if j < 0:
            return zero
        return interaction(driver, world.vehicle[w, i].speed, approach_rate(world, w, i, j), gap)

    return Functions(
        Driver=Driver,
        not_zero=not_zero,
        desired_gap=desired_gap,
        speed_share=speed_share,
        free_road=free_road,
        free_acceleration=free_acceleration,
        interaction=interaction,
        approach_rate=approach_rate,
        braking=braking,
    )
