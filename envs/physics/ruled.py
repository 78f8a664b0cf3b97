"""The rules of a road network: signals and junctions, and people on foot."""

import functools

import warp as wp

from envs.physics import junctions, walkers
from envs.precision import Functions
from envs.state import world_struct


@functools.cache
def build(real: type, road_functions, law) -> Functions:
    """What the rules of the road add to the laws of driving.

    advance(world, road, w, dt)         a frame of everything that switches: signals
    hold(world, road, driver, w, i)     how hard a driver brakes for what it must stop for, 0 where nothing is [m/s2]
    walk(world, road, w, i, dt)         a frame of a person on foot
    """
    World, Road, Driver = world_struct(real), road_functions.Road, law.Driver
    crossing_traffic = junctions.build(real, road_functions, law)
    people = walkers.build(real, road_functions, law)

    @wp.func
    def hold(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int) -> real:
        return wp.max(crossing_traffic.hold(world, road, driver, w, i), people.hold(world, road, driver, w, i))

    return Functions(advance=crossing_traffic.advance, hold=hold, walk=people.walk)
