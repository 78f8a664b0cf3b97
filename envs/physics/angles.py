"""Angles, with short cuts for the small ones that straight driving is made of.

Below `SMALL` the series used here differ from the functions by less than a rounding error of float64.
"""

import functools
import math

import warp as wp

from envs.precision import Functions

SMALL = 2.0e-3  # rad; the first terms left out are below 1e-19


@functools.cache
def build(real: type) -> Functions:
    """`wrap(angle)`, `arcsine(x)`, `cosine(angle)` and `sine(angle)`."""
    pi, small, one = real(math.pi), real(SMALL), real(1.0)

    @wp.func
    def wrap(angle: real) -> real:
        """The angle in [-pi, pi)."""
        if wp.abs(angle) < pi:
            return angle
        return angle - real(2.0) * pi * wp.floor((angle + pi) / (real(2.0) * pi))

    @wp.func
    def arcsine(x: real) -> real:
        if wp.abs(x) < small:
            square = x * x
            return x * (one + square * (real(1.0 / 6.0) + square * real(3.0 / 40.0)))
        return wp.asin(x)

    @wp.func
    def cosine(angle: real) -> real:
        if wp.abs(angle) < small:
            square = angle * angle
            return one - square * (real(0.5) - square * real(1.0 / 24.0))
        return wp.cos(angle)

    @wp.func
    def sine(angle: real) -> real:
        if wp.abs(angle) < small:
            square = angle * angle
            return angle * (one - square * (real(1.0 / 6.0) - square * real(1.0 / 120.0)))
        return wp.sin(angle)

    return Functions(wrap=wrap, arcsine=arcsine, cosine=cosine, sine=sine)
