"""The rules of a road without signals, crossings or people: none."""

import functools

import warp as wp

from envs.precision import Functions
from envs.state import world_struct


@functools.cache
def build(real: type, road_functions, law) -> Functions:
    """The functions of `envs.physics.ruled`, which do nothing here."""
    World, Road, Driver = world_struct(real), road_functions.Road, law.Driver

    @wp.func
    def advance(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
        return

    @wp.func
    def hold(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int) -> real:
        return real(0.0)

    @wp.func
    def walk(world: wp.ref[World], road: wp.ref[Road], w: int, i: int, dt: real):
        return

    return Functions(advance=advance, hold=hold, walk=walk)
