"""The rules of a road network: signals and junctions, people on foot, and actors that follow a script."""

import functools

import warp as wp

from envs.physics import junctions, scripted, walkers
from envs.precision import Functions
from envs.state import ABSENT, PLAIN, world_struct


@functools.cache
def build(real: type, road_functions, law) -> Functions:
    """What the rules of the road add to the laws of driving.

    advance(world, road, w, dt)         a frame of everything that switches or follows a script: signals, actors
    hold(world, road, driver, w, i)     how hard a driver brakes for what it must stop for, 0 where nothing is [m/s2]
    walk(world, road, w, i, dt)         a frame of a person on foot
    """
    World, Road, Driver = world_struct(real), road_functions.Road, law.Driver
    crossing_traffic = junctions.build(real, road_functions, law)
    people = walkers.build(real, road_functions, law)
    actors = scripted.build(real, road_functions)
    absent, plain = ABSENT, PLAIN

    @wp.func
    def advance(world: wp.ref[World], road: wp.ref[Road], w: int, dt: real):
        # Who walks is no vehicle for which others wait at junctions.
        actors.be_people(world, road, w, absent)
        crossing_traffic.advance(world, road, w, dt)
        actors.be_people(world, road, w, plain)
        actors.advance(world, road, w, dt)

    @wp.func
    def hold(world: wp.ref[World], road: wp.ref[Road], driver: Driver, w: int, i: int) -> real:
        return wp.max(crossing_traffic.hold(world, road, driver, w, i), people.hold(world, road, driver, w, i))

    return Functions(advance=advance, hold=hold, walk=people.walk)
