"""Closed circuits: highway-env's `racetrack-v0`, `racetrack-large-v0` and `racetrack-oval-v0`.

Each begins at node a with a straight along +x and goes through b, c, ... back to a. Not all ends meet, as in
highway-env: they miss each other by up to 2.6 m on the first track, 1.3 m on the large one and 1 m on the oval.
"""

import math

from envs.errors import UserError
from envs.roads.maps.carriageway import (
    Obstacle,
    Point,
    add_road,
    arcs,
    markings,
    require_lanes,
    require_positive,
    straights,
)
from envs.roads.network import RoadNetwork

LANE_WIDTH = 5.0  # m
SPEED_LIMIT = 10.0  # m/s
OPTIONS = {"width": LANE_WIDTH, "speed_limit": SPEED_LIMIT}
# From a lane of the slanting straights to the next one [m].
SLANT_STEP = (3.6934, -3.5)


def network() -> RoadNetwork:
    """The track of `racetrack-v0`: two lanes, nine roads."""
    lines, right_drawn = markings(2, dividers="left"), markings(2, dividers="right")
    both_drawn = [("solid", "dashed"), ("dashed", "solid")]
    return _circuit(
        straights((42, 0), (100, 0), both_drawn, **OPTIONS),
        arcs((100, -20), (20, 25), 90, -1, lines, **OPTIONS),
        straights((120, -20), (120, -30), lines, **OPTIONS),
        arcs((105, -30), (15, 20), 0, -181, lines, **OPTIONS),
        arcs((70, -30), (20, 15), 0, (136, 137), right_drawn, clockwise=True, **OPTIONS),
        straights((55.7, -15.7), (35.7, -35.7), lines, step=SLANT_STEP, **OPTIONS),
        arcs((18.1, -18.1), (25, 30), 315, (170, 165), lines, **OPTIONS),
        arcs((18.1, -18.1), (25, 30), 170, (56, 58), lines, **OPTIONS),
        arcs((43.2, 23.4), (23.5, 18.5), (240, 238), (270, 268), right_drawn, clockwise=True, **OPTIONS),
    )


def large(speed_limit: float = SPEED_LIMIT) -> RoadNetwork:
    """The track of `racetrack-large-v0`: three lanes, nine roads.

    Args:
        speed_limit: of every lane [m/s].

    Raises:
        UserError: a speed limit that is not positive.
    """
    if not speed_limit > 0:
        raise UserError(f"'speed_limit' must be more than 0 m/s, not {speed_limit:g} m/s")
    lines = [("solid", "none"), ("dashed", "dashed"), ("none", "solid")]
    options = {"width": LANE_WIDTH, "speed_limit": speed_limit}
    bend, bend_radii, bend_end = (88.1, -78.1), (25, 30, 35), 205
    last, last_radii = (42, -15), (15, 20, 25)
    # Each lane of the straight between those two bends joins their ends, so it is not quite parallel to the others.
    rim = zip(bend_radii, last_radii, lines, strict=True)
    between = [
        straights(_on_circle(bend, r0, bend_end), _on_circle(last, r1, 210), [pair], **options)[0]
        for r0, r1, pair in rim
    ]
    return _circuit(
        straights((42, 0), (200, 0), [("solid", "dashed"), *lines[1:]], **options),
        arcs((200, -20), (20, 25, 30), 90, -1, lines, **options),
        straights((220, -20), (220, -61), lines, **options),
        arcs((205, -60), (15, 20, 25), 0, -181, lines, **options),
        arcs((170, -60), (20, 15, 10), 0, (136, 137, 137), lines, clockwise=True, **options),
        straights((155.7, -45.7), (105.7, -95.7), lines, step=SLANT_STEP, **options),
        arcs(bend, bend_radii, 317, (bend_end - 3, bend_end, bend_end), lines, **options),
        between,
        arcs(last, last_radii, (210, 210, 212), (88, 90, 88), lines, **options),
    )


def oval(lanes: int = 3, straight: float = 100.0) -> RoadNetwork:
    """The track of `racetrack-oval-v0`: eight roads.

    Args:
        lanes: at least 2.
        straight: length of the longer straights, which highway-env calls "length" [m].

    Raises:
        UserError: fewer than two lanes (highway-env then lays two on top of each other), or no straight.
    """
    require_lanes(lanes, least=2)
    require_positive(straight=straight)
    lines = markings(lanes, dividers="left")
    wide, tight = ([radius + LANE_WIDTH * k for k in range(lanes)] for radius in (20, 15))
    right, far = straight + 20, straight + 5
    return _circuit(
        straights((0, 0), (straight + 1, 0), [("solid", "dashed"), *lines[1:]], **OPTIONS),
        arcs((straight, -20), wide, 90, 0, lines, **OPTIONS),
        straights((right, -20), (right, -50), lines, **OPTIONS),
        arcs((far, -50), tight, 0, -90, lines, **OPTIONS),
        straights((far, -65), (-5, -65), lines, **OPTIONS),
        arcs((-5, -50), tight, -90, -180, lines, **OPTIONS),
        straights((-20, -50), (-20, -20), lines, **OPTIONS),
        arcs((0, -20), wide, 180, 90, [lines[0], *[("dashed", "solid")] * (lanes - 1)], **OPTIONS),
    )


def obstacles(straight: float = 100.0, block_lane: bool = False, force_decision: bool = False) -> list[Obstacle]:
    """The road blocks of `racetrack-oval-v0` on its first straight; without options none.

    Args:
        straight: as `oval` has it [m].
        block_lane: whether the second lane is blocked, 49 to 40 m before the straight's end.
        force_decision: whether the first and third lanes are blocked, 90 m before the straight's end.
    """
    places = [(straight - back, y) for back in (40, 43, 46, 49) for y in (3.75, 6.25)] if block_lane else []
    if force_decision:
        places += [(straight - 90, y) for y in (-1.25, 1.25, 8.85, 11.25)]
    return [(x, y, 0.0, 2.0, 2.0) for x, y in places]


def _on_circle(center: Point, radius: float, phase: float) -> Point:
    """The point of a circle at a phase [deg]."""
    return center[0] + radius * math.cos(math.radians(phase)), center[1] + radius * math.sin(math.radians(phase))


def _circuit(*roads) -> RoadNetwork:
    """Roads from node a to b to c and so on, the last one back to a."""
    result = RoadNetwork()
    nodes = "abcdefghi"[: len(roads)]
    for start, end, lanes in zip(nodes, nodes[1:] + "a", roads, strict=True):
        add_road(result, start, end, lanes)
    return result
