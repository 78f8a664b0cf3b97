"""Counter-based random numbers: a number is a hash of what it is for, so no stream is shared or stored.

A draw is keyed by (seed, world, episode, purpose, index). A world's life therefore does not depend on how many other
worlds there are, on the order in which threads reach it, or on the device. The hash chains the finaliser of
SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), once for each key.
"""

import functools
import math

import warp as wp

from envs.precision import Functions

# What a draw is for. Values are part of a world's identity: append, never renumber.
SPAWN = 1
APPEARANCE = 2
SENSOR_NOISE = 3
TRAFFIC = 4  # arrivals while an episode runs
SECOND = 1000  # added to a purpose for the second of two numbers that make one

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


def hash_key(seed: int, world: int, episode: int, purpose: int, index: int) -> int:
    """The 64 random bits of one draw, on the host; the same as the kernels' `bits`."""
    mask = (1 << 64) - 1
    h = seed & mask
    for key in (world, episode, purpose, index):
        h = (h + (key + 1) * GOLDEN) & mask
        h = ((h ^ (h >> 30)) * MIX_1) & mask
        h = ((h ^ (h >> 27)) * MIX_2) & mask
        h ^= h >> 31
    return h


@functools.cache
def build(real: type) -> Functions:
    """The draws as Warp functions: `uniform(...)` in [0, 1), `below(..., n)` in {0 .. n-1}, standard `normal(...)`."""
    golden, mix_1, mix_2 = wp.uint64(GOLDEN), wp.uint64(MIX_1), wp.uint64(MIX_2)
    unit = real(2.0**-24) if real is wp.float32 else real(2.0**-53)
    drop = wp.uint64(40) if real is wp.float32 else wp.uint64(11)
    two_pi, second = real(2.0 * math.pi), SECOND

    @wp.func
    def absorb(h: wp.uint64, key: int) -> wp.uint64:
        h = h + wp.uint64(key + 1) * golden
        h = (h ^ (h >> wp.uint64(30))) * mix_1
        h = (h ^ (h >> wp.uint64(27))) * mix_2
        return h ^ (h >> wp.uint64(31))

    @wp.func
    def bits(seed: wp.uint64, world: int, episode: int, purpose: int, index: int) -> wp.uint64:
        return absorb(absorb(absorb(absorb(seed, world), episode), purpose), index)

    @wp.func
    def uniform(seed: wp.uint64, world: int, episode: int, purpose: int, index: int) -> real:
        return real(bits(seed, world, episode, purpose, index) >> drop) * unit

    @wp.func
    def below(seed: wp.uint64, world: int, episode: int, purpose: int, index: int, n: int) -> int:
        # The high 32 bits times n, over 2^32: Lemire's multiply, whose bias at n < 100 is under 3e-8.
        high = bits(seed, world, episode, purpose, index) >> wp.uint64(32)
        return int((high * wp.uint64(n)) >> wp.uint64(32))

    @wp.func
    def normal(seed: wp.uint64, world: int, episode: int, purpose: int, index: int) -> real:
        # Box and Muller 1958; the second uniform has a purpose of its own.
        radius = wp.sqrt(real(-2.0) * wp.log(real(1.0) - uniform(seed, world, episode, purpose, index)))
        return radius * wp.cos(two_pi * uniform(seed, world, episode, purpose + second, index))

    return Functions(bits=bits, uniform=uniform, below=below, normal=normal)
