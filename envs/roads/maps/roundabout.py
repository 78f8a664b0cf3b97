"""Roundabouts with four arms: highway-env's `roundabout-v0` and `roundabout-generic-v0`.

Traffic turns anticlockwise as drawn with y down. Nodes begin with the arm's letter, s, e, n or w. Of the ring, se is
where the south arm enters and sx where it leaves. The way in comes straight from ser to ses and swings to se; the way
out swings from sx to sxs and goes straight on to sxr.
"""

import math
from dataclasses import dataclass

from envs.roads.lanes import sine, straight
from envs.roads.maps.carriageway import (
    LANE_WIDTH,
    Point,
    add_road,
    arcs,
    markings,
    require_lanes,
    require_positive,
)
from envs.roads.network import RoadNetwork

ARMS = "senw"
# Entries and exits lie this far to either side of an arm's axis [deg].
ALPHA = 24
HALF_LANE = LANE_WIDTH / 2


@dataclass(frozen=True)
class _Arm:
    """The south arm, whose axis points along +y; the way out mirrors the way in but for the sine's phase.

    Attributes:
        outer: y of its far end [m].
        gate: y where the straight parts meet the swinging ones [m].
        ring: y where those meet the ring [m].
        swing: half the sideways distance between the straight parts and where the sines turn back [m].
        pulsation: of both sines [rad/m].
        out_amplitude, out_phase: of the way out [m, rad].
    """

    outer: float
    gate: float
    ring: float
    swing: float
    pulsation: float
    out_amplitude: float
    out_phase: float


def network() -> RoadNetwork:
    """The roads of `roundabout-v0`: two lanes, the inner one of radius 20 m, and arms that reach out to 170 m.

    The ways in and out miss the ring's outer lane by 5.6 m, as in highway-env.
    """
    wave = 85.0  # m
    pulsation, entry = 2 * math.pi / wave, 0.2 * wave
    arm = _Arm(170.0, wave / 2, wave / 2 - entry, 5.0, pulsation, 5.0, -math.pi / 2 + pulsation * (wave - entry))
    return _network(20.0, 2, arm)


def generic(lanes: int = 2, radius: float = 20.0) -> RoadNetwork:
    """The roads of `roundabout-generic-v0`, whose arms end on the ring's outermost lane.

    Args:
        lanes: of the ring.
        radius: of its innermost lane [m].

    Raises:
        UserError: no lane, or a radius that is not positive.
    """
    require_lanes(lanes)
    require_positive(radius=radius)
    outermost = radius + LANE_WIDTH * (lanes - 1)
    span = max(100.0, 2 * outermost + 40.0)
    across, ring = outermost * math.sin(math.radians(ALPHA)), outermost * math.cos(math.radians(ALPHA))
    swing = (across - HALF_LANE) / 2
    arm = _Arm(span + 40.0, span / 2, ring, swing, math.pi / (span / 2 - ring), -swing, -math.pi / 2)
    return _network(radius, lanes, arm)


def _network(radius: float, lanes: int, arm: _Arm) -> RoadNetwork:
    result = RoadNetwork()
    radii, lines = [radius + LANE_WIDTH * k for k in range(lanes)], markings(lanes, dividers="right")
    for quarter, (here, following) in enumerate(zip(ARMS, ARMS[1:] + ARMS[:1], strict=True)):
        turn = 90 * quarter
        for start, end, a, b in (
            (f"{here}e", f"{following}x", 90 - ALPHA - turn, ALPHA - turn),
            (f"{following}x", f"{following}e", ALPHA - turn, -ALPHA - turn),
        ):
            # Phases begin within half a turn of 0, so that headings come out as highway-env's.
            full = 360 if a < -180 else 0
            add_road(result, start, end, arcs((0.0, 0.0), radii, a + full, b + full, lines))
    for quarter, name in enumerate(ARMS):
        _add_arm(result, name, quarter, arm)
    return result


def _add_arm(result: RoadNetwork, name: str, quarters: int, arm: _Arm) -> None:
    def turned(x: float, y: float) -> Point:
        for _ in range(quarters):
            x, y = y, -x
        return x, y

    def both(x: float, y0: float, y1: float) -> tuple[Point, Point]:
        return turned(x, y0), turned(x, y1)

    axis = HALF_LANE + arm.swing
    walled = ("solid", "solid")
    way_in = straight(*both(HALF_LANE, arm.outer, arm.gate), lines=("dashed", "solid"))
    swing_in = sine(*both(axis, arm.gate, arm.ring), arm.swing, arm.pulsation, -math.pi / 2, lines=walled)
    swing_out = sine(*both(-axis, arm.ring, arm.gate), arm.out_amplitude, arm.pulsation, arm.out_phase, lines=walled)
    way_out = straight(*both(-HALF_LANE, arm.gate, arm.outer), lines=("none", "solid"))
    result.add_lane(f"{name}er", f"{name}es", way_in)
    result.add_lane(f"{name}es", f"{name}e", swing_in)
    result.add_lane(f"{name}x", f"{name}xs", swing_out)
    result.add_lane(f"{name}xs", f"{name}xr", way_out)
