"""Lane geometry: straight, circular, sine and polyline lanes, on the host and as Warp functions over a table.

A lane maps (s, r), distance along and across its centre line, to the plane and back. r grows to the right of travel
where y points down, as highway-env draws it. A sine lane's s runs along its straight axis, not along its arc.
"""

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import warp as wp

from envs.errors import UserError
from envs.physics import angles
from envs.precision import Functions

STRAIGHT, CIRCULAR, SINE, POLYLINE = 0, 1, 2, 3
# Columns of a lane's row in the table.
PARAMETERS = 8
# Columns of a polyline lane's samples: x, y, cos and sin of the direction, width.
SAMPLE_COLUMNS = 5
LINES = ("none", "dashed", "solid")


@dataclass(frozen=True)
class Lane:
    """A lane's shape as one row of numbers, and what is allowed on it.

    Attributes:
        kind: STRAIGHT, CIRCULAR, SINE or POLYLINE.
        parameters: straight: x, y of the start, cos and sin of the heading, 0...; circular: x, y of the centre,
            radius, start phase, +1 where it turns clockwise (y down) or -1, 0...; sine: as straight, then amplitude
            [m], pulsation [rad/m] and phase [rad]; polyline: none.
        length: [m].
        width: [m].
        speed_limit: [m/s].
        priority: right of way, the higher goes first.
        forbidden: whether changing into this lane is forbidden.
        lines: styles of the left and right markings, each "none", "dashed" or "solid".
        samples: of a polyline, one a metre of arc: x, y [m], cos and sin of the direction there, width [m].
            Shape: (floor(length) + 1, 5).
    """

    kind: int
    parameters: tuple[float, ...]
    length: float
    width: float = 4.0
    speed_limit: float = 20.0
    priority: int = 0
    forbidden: bool = False
    lines: tuple[str, str] = ("dashed", "dashed")
    samples: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self):
        if not (self.length > 0 and self.width > 0):
            raise UserError(f"a lane of length {self.length:g} m and width {self.width:g} m cannot be driven")
        if not np.all(np.isfinite(self.parameters)) or not math.isfinite(self.length):
            raise UserError(f"a lane's geometry must be finite, not {self.parameters} of length {self.length}")
        if not set(self.lines) <= set(LINES):
            raise UserError(f"a lane's lines must be among {', '.join(LINES)}, not {self.lines}")

    def position(self, s, r=0.0) -> np.ndarray:
        """The point at (s, r) [m]. Shape: (..., 2)."""
        s, r = np.asarray(s, dtype=float), np.asarray(r, dtype=float)
        if self.kind == POLYLINE:
            k = self._sample(s)
            x, y, c, d, _ = self.samples[k].T if k.ndim else self.samples[k]
            return np.stack((x + (s - k) * c - r * d, y + (s - k) * d + r * c), axis=-1)
        x, y, a, b = self.parameters[:4]
        if self.kind == CIRCULAR:
            direction = self.parameters[4]
            phase = direction * s / a + b
            reach = a - r * direction
            return np.stack((x + reach * np.cos(phase), y + reach * np.sin(phase)), axis=-1)
        if self.kind == SINE:
            r = r + self.parameters[4] * np.sin(self.parameters[5] * s + self.parameters[6])
        return np.stack((x + s * a - r * b, y + s * b + r * a), axis=-1)

    def heading_at(self, s) -> np.ndarray:
        """Direction of the centre line [rad]."""
        s = np.asarray(s, dtype=float)
        if self.kind == POLYLINE:
            k = self._sample(s)
            return np.arctan2(self.samples[k, 3], self.samples[k, 2])
        a, b = self.parameters[2:4]
        if self.kind == CIRCULAR:
            direction = self.parameters[4]
            return direction * s / a + b + math.pi / 2 * direction
        heading = np.full(s.shape, math.atan2(b, a))
        if self.kind == SINE:
            amplitude, pulsation, phase = self.parameters[4:7]
            heading = heading + np.arctan(amplitude * pulsation * np.cos(pulsation * s + phase))
        return heading

    def centre_line(self, spacing: float = 1.0) -> np.ndarray:
        """Points on the centre line from end to end, at most `spacing` apart along s [m]. Shape: (P, 2)."""
        straight_enough = self.kind == STRAIGHT
        count = 2 if straight_enough else max(2, math.ceil(self.length / spacing) + 1)
        return self.position(np.linspace(0.0, self.length, count))

    def _sample(self, s: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(s), 0, len(self.samples) - 1).astype(int)


def straight(start: tuple[float, float], end: tuple[float, float], **options) -> Lane:
    """A lane from one point to another [m]."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length == 0:
        raise UserError(f"a straight lane from {tuple(start)} to {tuple(end)} has no length")
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


def polyline(points: np.ndarray, widths: np.ndarray | None = None, **options) -> Lane:
    """A lane along straight pieces between points [m], read every metre of its arc.

    Args:
        points: Shape: (P, 2).
        widths: width at every whole metre of arc [m]; by default the lane's. Shape: (floor(length) + 1,).
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise UserError(f"a polyline lane needs points of shape (P, 2) with P >= 2, not {points.shape}")
    arc = np.concatenate(([0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))))
    if arc[-1] < 1.0:
        raise UserError(f"a polyline lane must be at least 1 m long, not {arc[-1]:g} m")
    s = np.arange(int(arc[-1]) + 1)
    at = np.stack([np.interp(s, arc, column) for column in points.T], axis=1)
    along = np.diff(at, axis=0)
    along = np.concatenate((along, along[-1:]))
    along /= np.hypot(*along.T)[:, None]
    width = options.get("width", 4.0)
    widths = np.full(len(s), width) if widths is None else np.asarray(widths, dtype=float)[: len(s)]
    samples = np.concatenate((at, along, widths[:, None]), axis=1)
    return Lane(POLYLINE, (), float(arc[-1]), samples=samples, **options)


@functools.cache
def build(real: type) -> Functions:
    """Struct `Lanes` (the table) and the functions of one of its lanes.

    local_coordinates(lanes, lane, x, y)    (s, r) of a point
    nearby(lanes, lane, x, y, reach)        the same, or far away where |r| > reach is seen without computing s
    position(lanes, lane, s, r)             the point at (s, r)
    heading_at(lanes, lane, s)              direction of the centre line
    width_at(lanes, lane, s)                width
    """
    wrap = angles.build(real).wrap
    vec2 = wp.vec2f if real is wp.float32 else wp.vec2d
    vec_row = wp.types.vector(PARAMETERS, real)
    half_pi, zero, far = real(math.pi / 2), real(0.0), real(1.0e9)
    circular_kind, sine_kind, polyline_kind = CIRCULAR, SINE, POLYLINE

    @wp.struct
    class Row:
        parameters: vec_row
        length: real  # m
        width: real  # m
        speed_limit: real  # m/s
        kind: wp.int32

    @wp.struct
    class Lanes:
        lane: wp.array(dtype=Row)  # [lane]
        first_sample: wp.array(dtype=wp.int32)  # [lane + 1] where a polyline's samples begin
        samples: wp.array2d(dtype=real)  # [sample, SAMPLE_COLUMNS]

    @wp.func
    def sway(lanes: wp.ref[Lanes], lane: int, s: real) -> real:
        return lanes.lane[lane].parameters[4] * wp.sin(
            lanes.lane[lane].parameters[5] * s + lanes.lane[lane].parameters[6]
        )

    @wp.func
    def along_sample(lanes: wp.ref[Lanes], k: int, x: real, y: real) -> real:
        return (x - lanes.samples[k, 0]) * lanes.samples[k, 2] + (y - lanes.samples[k, 1]) * lanes.samples[k, 3]

    @wp.func(inline=False)
    def on_polyline(lanes: wp.ref[Lanes], lane: int, x: real, y: real) -> vec2:
        # The last sample that the point is not behind, as highway-env scans them.
        first = lanes.first_sample[lane]
        last = lanes.first_sample[lane + 1] - 1
        k = int(last)
        ahead = along_sample(lanes, k, x, y)
        while ahead < zero and k > first:
            k = k - 1
            ahead = along_sample(lanes, k, x, y)
        across = (y - lanes.samples[k, 1]) * lanes.samples[k, 2] - (x - lanes.samples[k, 0]) * lanes.samples[k, 3]
        return vec2(real(k - first) + ahead, across)

    @wp.func
    def sample_at(lanes: wp.ref[Lanes], lane: int, s: real) -> int:
        first = lanes.first_sample[lane]
        return wp.clamp(first + int(wp.floor(s)), first, lanes.first_sample[lane + 1] - 1)

    @wp.func
    def local_coordinates(lanes: wp.ref[Lanes], lane: int, x: real, y: real) -> vec2:
        """(s, r) of a point [m]."""
        kind = lanes.lane[lane].kind
        if kind == polyline_kind:
            return on_polyline(lanes, lane, x, y)
        dx = x - lanes.lane[lane].parameters[0]
        dy = y - lanes.lane[lane].parameters[1]
        a = lanes.lane[lane].parameters[2]
        b = lanes.lane[lane].parameters[3]
        if kind == circular_kind:
            direction = lanes.lane[lane].parameters[4]
            s = direction * wrap(wp.atan2(dy, dx) - b) * a
            return vec2(s, direction * (a - wp.sqrt(dx * dx + dy * dy)))
        s = dx * a + dy * b
        r = dy * a - dx * b
        if kind == sine_kind:
            r = r - sway(lanes, lane, s)
        return vec2(s, r)

    @wp.func
    def nearby(lanes: wp.ref[Lanes], lane: int, x: real, y: real, reach: real) -> vec2:
        """(s, r) of a point [m]; (1e9, 1e9) where |r| is beyond `reach` for sure."""
        kind = lanes.lane[lane].kind
        if kind == circular_kind:
            dx = x - lanes.lane[lane].parameters[0]
            dy = y - lanes.lane[lane].parameters[1]
            a = lanes.lane[lane].parameters[2]
            square = dx * dx + dy * dy
            outer = a + reach
            inner = wp.max(a - reach, zero)
            if square > outer * outer or square < inner * inner:
                return vec2(far, far)
        elif kind == sine_kind:
            dx = x - lanes.lane[lane].parameters[0]
            dy = y - lanes.lane[lane].parameters[1]
            r = dy * lanes.lane[lane].parameters[2] - dx * lanes.lane[lane].parameters[3]
            if wp.abs(r) > reach + wp.abs(lanes.lane[lane].parameters[4]):
                return vec2(far, far)
        return local_coordinates(lanes, lane, x, y)

    @wp.func
    def position(lanes: wp.ref[Lanes], lane: int, s: real, r: real) -> vec2:
        """The point at (s, r) [m]."""
        kind = lanes.lane[lane].kind
        if kind == polyline_kind:
            k = sample_at(lanes, lane, s)
            ahead = s - real(k - lanes.first_sample[lane])
            c = lanes.samples[k, 2]
            d = lanes.samples[k, 3]
            return vec2(lanes.samples[k, 0] + ahead * c - r * d, lanes.samples[k, 1] + ahead * d + r * c)
        x = lanes.lane[lane].parameters[0]
        y = lanes.lane[lane].parameters[1]
        a = lanes.lane[lane].parameters[2]
        b = lanes.lane[lane].parameters[3]
        if kind == circular_kind:
            direction = lanes.lane[lane].parameters[4]
            phase = direction * s / a + b
            reach = a - r * direction
            return vec2(x + reach * wp.cos(phase), y + reach * wp.sin(phase))
        across = real(r)
        if kind == sine_kind:
            across = r + sway(lanes, lane, s)
        return vec2(x + s * a - across * b, y + s * b + across * a)

    @wp.func
    def heading_at(lanes: wp.ref[Lanes], lane: int, s: real) -> real:
        """Direction of the centre line [rad]."""
        kind = lanes.lane[lane].kind
        if kind == polyline_kind:
            k = sample_at(lanes, lane, s)
            return wp.atan2(lanes.samples[k, 3], lanes.samples[k, 2])
        if kind == circular_kind:
            direction = lanes.lane[lane].parameters[4]
            return direction * s / lanes.lane[lane].parameters[2] + lanes.lane[lane].parameters[3] + half_pi * direction
        # The direction of a straight axis is kept, which saves an arctangent.
        heading = lanes.lane[lane].parameters[7]
        if kind == sine_kind:
            pulsation = lanes.lane[lane].parameters[5]
            phase = pulsation * s + lanes.lane[lane].parameters[6]
            heading = heading + wp.atan(lanes.lane[lane].parameters[4] * pulsation * wp.cos(phase))
        return heading

    @wp.func
    def width_at(lanes: wp.ref[Lanes], lane: int, s: real) -> real:
        """Width [m]."""
        if lanes.lane[lane].kind == polyline_kind:
            return lanes.samples[sample_at(lanes, lane, s), 4]
        return lanes.lane[lane].width

    return Functions(
        Row=Row,
        Lanes=Lanes,
        vec2=vec2,
        local_coordinates=local_coordinates,
        nearby=nearby,
        position=position,
        heading_at=heading_at,
        width_at=width_at,
    )


def table(lanes: list[Lane], dtype: str, device: str):
    """Lanes as the Warp struct that the functions of `build` read.

    Their rows hold, beside the lane's own parameters, what saves a kernel trigonometry: the heading of a straight axis
    (column 7), the direction of an arc's middle (5, 6) and the cosine of half its angle and a metre more (7).
    """
    real = wp.float32 if dtype == "float32" else wp.float64
    rows = np.zeros((len(lanes), PARAMETERS))
    samples, first = [], [0]
    for row, lane in zip(rows, lanes, strict=True):
        row[: len(lane.parameters)] = lane.parameters
        if lane.kind in (STRAIGHT, SINE):
            row[7] = math.atan2(row[3], row[2])
        if lane.kind == CIRCULAR:
            half = lane.length / row[2] / 2
            middle = row[3] + row[4] * half
            row[5:8] = math.cos(middle), math.sin(middle), math.cos(min(half + 1.0 / row[2], math.pi))
        if lane.samples is not None:
            samples.append(lane.samples)
        first.append(first[-1] + (len(lane.samples) if lane.samples is not None else 0))
    all_samples = np.concatenate(samples) if samples else np.zeros((1, SAMPLE_COLUMNS))
    functions = build(real)
    result = functions.Lanes()
    table = np.zeros(len(lanes), dtype=functions.Row.numpy_dtype())
    table["parameters"] = rows
    for name in ("length", "width", "speed_limit", "kind"):
        table[name] = [getattr(lane, name) for lane in lanes]
    result.lane = wp.array(table, dtype=functions.Row, device=device)
    result.first_sample = wp.array(first, dtype=wp.int32, device=device)
    result.samples = wp.array(all_samples, dtype=real, device=device)
    return result
