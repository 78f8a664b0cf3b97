"""What the maps are put together from: roads of lanes side by side, their markings, and checks of their sizes."""

import math
from collections.abc import Sequence

from envs.errors import UserError
from envs.roads.lanes import Lane, circular, straight
from envs.roads.network import RoadNetwork

LANE_WIDTH = 4.0  # m, highway-env's default

Point = tuple[float, float]
# Styles of a lane's left and right markings.
Lines = tuple[str, str]
# Something solid on the road: x, y of its middle [m], heading [rad], length and width [m].
Obstacle = tuple[float, float, float, float, float]


def markings(lanes: int, dividers: str) -> list[Lines]:
    """Solid edges, and one dashed line between two lanes.

    Args:
        lanes: how many lanes, from left to right.
        dividers: "left" or "right": the side on which a lane draws the line between itself and its neighbour. The
            line looks the same; highway-env uses both.
    """
    left, right = ("dashed", "none") if dividers == "left" else ("none", "dashed")
    return [("solid" if k == 0 else left, "solid" if k == lanes - 1 else right) for k in range(lanes)]


def straights(
    start: Point, end: Point, lines: Sequence[Lines], width: float = LANE_WIDTH, step: Point | None = None, **options
) -> list[Lane]:
    """Parallel straight lanes, one for each pair of markings.

    Args:
        start, end: of the leftmost lane [m].
        lines: markings of each lane, from left to right.
        width: of a lane [m].
        step: from a lane to the next [m]; by default its width, square to the right.
        options: of every lane, as `envs.roads.lanes.straight` has them.
    """
    if step is None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        step = (-dy / length * width, dx / length * width)

    def beside(point: Point, k: int) -> Point:
        return point[0] + k * step[0], point[1] + k * step[1]

    return [
        straight(beside(start, k), beside(end, k), width=width, lines=pair, **options) for k, pair in enumerate(lines)
    ]


def arcs(
    center: Point,
    radii: Sequence[float],
    starts: float | Sequence[float],
    ends: float | Sequence[float],
    lines: Sequence[Lines],
    clockwise: bool = False,
    **options,
) -> list[Lane]:
    """Concentric lanes, one for each radius.

    Args:
        center, radii: [m].
        starts, ends: phases between which the lanes run, one for all or one each [deg].
        lines: markings of each lane.
        clockwise: sense of travel as drawn with y down.
        options: of every lane, as `envs.roads.lanes.circular` has them.
    """

    def each(phases: float | Sequence[float]) -> Sequence[float]:
        return phases if isinstance(phases, Sequence) else [phases] * len(radii)

    return [
        circular(center, radius, math.radians(a), math.radians(b), clockwise, lines=pair, **options)
        for radius, a, b, pair in zip(radii, each(starts), each(ends), lines, strict=True)
    ]


def add_road(network: RoadNetwork, start: str, end: str, lanes: Sequence[Lane]) -> None:
    """Add lanes, from left to right, to the road between two nodes."""
    for lane in lanes:
        network.add_lane(start, end, lane)


def require_lanes(lanes: int, least: int = 1) -> None:
    """Raise a `UserError` for fewer lanes than a map can have."""
    if lanes < least:
        raise UserError(f"this map needs at least {least} lane{'s' * (least > 1)}, not {lanes}")


def require_positive(**lengths: float) -> None:
    """Raise a `UserError` that names the first length that is not above 0 m."""
    for name, length in lengths.items():
        if not length > 0:
            raise UserError(f"'{name}' must be more than 0 m, not {length:g} m")
