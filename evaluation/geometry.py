"""Oriented boxes: extents, and the first contact of two boxes of which one moves in a straight line."""

from typing import NamedTuple

import torch
from torch import Tensor


class Boxes(NamedTuple):
    """Rectangles on the ground. Every field has the same shape (...,)."""

    x: Tensor  # centre [m]
    y: Tensor  # centre [m]
    heading: Tensor  # direction of the length, from +x towards +y [rad]
    length: Tensor  # [m]
    width: Tensor  # [m]

    def half_extent(self, axis_x: Tensor | float, axis_y: Tensor | float) -> Tensor:
        """Half of the box's shadow on a unit axis [m]. Shape: (...,)."""
        cos, sin = self.heading.cos(), self.heading.sin()
        along = (axis_x * cos + axis_y * sin).abs()
        across = (axis_y * cos - axis_x * sin).abs()
        return 0.5 * (self.length * along + self.width * across)


def first_contact(moving: Boxes, fixed: Boxes, velocity_x: Tensor | float, velocity_y: Tensor | float) -> Tensor:
    """Time until a box that moves in a straight line, without turning, first touches another.

    Two convex polygons overlap when their shadows overlap on the normals of all their sides (separating axes). With a
    constant relative velocity each axis gives one span of time, so the span of contact is their intersection: exact.

    Args:
        moving, fixed: boxes. Shape: (...,).
        velocity_x, velocity_y: of `moving` relative to `fixed` [m/s]. A unit vector makes the result a distance [m].

    Returns:
        time [s], 0 where the boxes overlap already, infinite where they never will. Shape: (...,).
    """
    enter = torch.full_like(moving.x, -torch.inf)
    leave = torch.full_like(moving.x, torch.inf)
    for heading in (moving.heading, fixed.heading):
        for axis_x, axis_y in ((heading.cos(), heading.sin()), (-heading.sin(), heading.cos())):
            apart = (fixed.x - moving.x) * axis_x + (fixed.y - moving.y) * axis_y
            reach = moving.half_extent(axis_x, axis_y) + fixed.half_extent(axis_x, axis_y)
            speed = velocity_x * axis_x + velocity_y * axis_y
            still = speed == 0
            divisor = torch.where(still, torch.ones_like(speed), speed)
            one, two = (apart - reach) / divisor, (apart + reach) / divisor
            # On an axis without relative motion the shadows overlap always or never.
            always = torch.where(apart.abs() < reach, -torch.inf, torch.inf)
            enter = torch.maximum(enter, torch.where(still, always, torch.minimum(one, two)))
            leave = torch.minimum(leave, torch.where(still, -always, torch.maximum(one, two)))
    return torch.where((enter < leave) & (leave > 0), enter.clamp(min=0), torch.inf)


def distance(a: Boxes, b: Boxes) -> Tensor:
    """How far apart two boxes are: the widest gap between their shadows on the four side normals [m]. Shape: (...,).

    That is the distance itself where a corner is nearest to a side, a lower bound of it where two corners are nearest,
    and minus the depth where the boxes overlap.
    """
    gap = torch.full_like(a.x, -torch.inf)
    for heading in (a.heading, b.heading):
        for axis_x, axis_y in ((heading.cos(), heading.sin()), (-heading.sin(), heading.cos())):
            apart = ((b.x - a.x) * axis_x + (b.y - a.y) * axis_y).abs()
            gap = torch.maximum(gap, apart - a.half_extent(axis_x, axis_y) - b.half_extent(axis_x, axis_y))
    return gap
