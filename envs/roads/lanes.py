"""Lane geometry: straight, circular and sine lanes, on the host and as Warp functions over a table.

A lane maps (s, r), distance along and across its centre line, to the plane and back. r grows to the right of travel
where y points down, as highway-env draws it. A sine lane's s runs along its straight axis, not along its arc.
"""

import functools
import math
from dataclasses import dataclass

import warp as wp

from envs.errors import UserError
from envs.physics import angles
from envs.precision import Functions

STRAIGHT, CIRCULAR, SINE = 0, 1, 2
# Columns of a lane's row in the table.
PARAMETERS = 8


@dataclass(frozen=True)
class Lane:
    """A lane's shape as one row of numbers.

    Attributes:
        kind: STRAIGHT, CIRCULAR or SINE.
        parameters: straight: x, y of the start, cos and sin of the heading, 0...; circular: x, y of the centre,
            radius, start phase, +1 where it turns clockwise (y down) or -1, 0...; sine: as straight, then amplitude
            [m], pulsation [rad/m] and phase [rad].
        length: [m].
        width: [m].
        speed_limit: [m/s].
        priority: right of way, the higher goes first.
    """

    kind: int
    parameters: tuple[float, ...]
    length: float
    width: float = 4.0
    speed_limit: float = 20.0
    priority: int = 0

    def __post_init__(self):
        if not (self.length > 0 and self.width > 0):
            raise UserError(f"a lane of length {self.length:g} m and width {self.width:g} m cannot be driven")


def straight(start: tuple[float, float], end: tuple[float, float], **options) -> Lane:
    """A lane from one point to another [m]."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length == 0:
        raise UserError(f"a straight lane from {start} to {end} has no length")
    return Lane(STRAIGHT, (*start, dx / length, dy / length), length, **options)


def circular(
    center: tuple[float, float], radius: float, start_phase: float, end_phase: float, clockwise: bool = True, **options
) -> Lane:
    """An arc around a centre [m] between two phases [rad]."""
    direction = 1.0 if clockwise else -1.0
    length = radius * (end_phase - start_phase) * direction
    return Lane(CIRCULAR, (*center, radius, start_phase, direction), length, **options)


def sine(
    start: tuple[float, float],
    end: tuple[float, float],
    amplitude: float,
    pulsation: float,
    phase: float,
    **options,
) -> Lane:
    """A straight lane that swings sideways by amplitude * sin(pulsation * s + phase)."""
    axis = straight(start, end)
    return Lane(SINE, (*axis.parameters, amplitude, pulsation, phase), axis.length, **options)


@functools.cache
def build(real: type) -> Functions:
    """Struct `Lanes` (the table) and `local_coordinates`, `position` and `heading_at` of one of its lanes."""
    wrap = angles.build(real).wrap
    vec2 = wp.vec2f if real is wp.float32 else wp.vec2d
    half_pi = real(math.pi / 2)
    circular_kind, sine_kind = CIRCULAR, SINE

    @wp.struct
    class Lanes:
        kind: wp.array(dtype=wp.int32)  # [lane]
        parameters: wp.array2d(dtype=real)  # [lane, PARAMETERS]
        length: wp.array(dtype=real)  # [lane] m
        width: wp.array(dtype=real)  # [lane] m
        speed_limit: wp.array(dtype=real)  # [lane] m/s

    @wp.func
    def sway(lanes: Lanes, lane: int, s: real) -> real:
        return lanes.parameters[lane, 4] * wp.sin(lanes.parameters[lane, 5] * s + lanes.parameters[lane, 6])

    @wp.func
    def local_coordinates(lanes: Lanes, lane: int, x: real, y: real) -> vec2:
        """(s, r) of a point [m]."""
        dx = x - lanes.parameters[lane, 0]
        dy = y - lanes.parameters[lane, 1]
        a = lanes.parameters[lane, 2]
        b = lanes.parameters[lane, 3]
        if lanes.kind[lane] == circular_kind:
            direction = lanes.parameters[lane, 4]
            s = direction * wrap(wp.atan2(dy, dx) - b) * a
            return vec2(s, direction * (a - wp.sqrt(dx * dx + dy * dy)))
        s = dx * a + dy * b
        r = dy * a - dx * b
        if lanes.kind[lane] == sine_kind:
            r = r - sway(lanes, lane, s)
        return vec2(s, r)

    @wp.func
    def position(lanes: Lanes, lane: int, s: real, r: real) -> vec2:
        """The point at (s, r) [m]."""
        x = lanes.parameters[lane, 0]
        y = lanes.parameters[lane, 1]
        a = lanes.parameters[lane, 2]
        b = lanes.parameters[lane, 3]
        if lanes.kind[lane] == circular_kind:
            direction = lanes.parameters[lane, 4]
            phase = direction * s / a + b
            reach = a - r * direction
            return vec2(x + reach * wp.cos(phase), y + reach * wp.sin(phase))
        across = real(r)
        if lanes.kind[lane] == sine_kind:
            across = r + sway(lanes, lane, s)
        return vec2(x + s * a - across * b, y + s * b + across * a)

    @wp.func
    def heading_at(lanes: Lanes, lane: int, s: real) -> real:
        """Direction of the centre line [rad]."""
        a = lanes.parameters[lane, 2]
        b = lanes.parameters[lane, 3]
        if lanes.kind[lane] == circular_kind:
            direction = lanes.parameters[lane, 4]
            return direction * s / a + b + half_pi * direction
        heading = wp.atan2(b, a)
        if lanes.kind[lane] == sine_kind:
            pulsation = lanes.parameters[lane, 5]
            phase = pulsation * s + lanes.parameters[lane, 6]
            heading = heading + wp.atan(lanes.parameters[lane, 4] * pulsation * wp.cos(phase))
        return heading

    return Functions(
        Lanes=Lanes, vec2=vec2, local_coordinates=local_coordinates, position=position, heading_at=heading_at
    )
