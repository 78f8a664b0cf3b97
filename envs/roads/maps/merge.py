"""A motorway with an access ramp: highway-env's `merge-v0` and `merge-generic-v0`.

The motorway runs along +x through nodes a, b, c and d, its leftmost lane on y = 0. The ramp comes from the right: j to
k parallel to it, k to b along half a wave of a sine, and b to c as one more lane, with an obstacle at its end.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

from envs.errors import UserError
from envs.roads.lanes import sine, straight
from envs.roads.maps.carriageway import (
    LANE_WIDTH,
    Lines,
    Obstacle,
    add_road,
    markings,
    require_lanes,
    require_positive,
    straights,
)
from envs.roads.network import RoadNetwork

# Half the sideways distance that the ramp covers on its way to the motorway [m].
AMPLITUDE = 3.25
# highway-env's generic merge ends this far before the end of the motorway, which must reach as far [m].
LEAST_AFTER = 90.0


def network() -> RoadNetwork:
    """The road of `merge-v0`: two lanes, 150 m before, 80 m converging, 80 m side by side and 150 m after."""
    motorway = markings(2, dividers="right")
    return _network((150.0, 80.0, 80.0, 150.0), motorway, [motorway[0], ("none", "dashed")], "none", 20.0)


def generic(
    lanes: int = 2, before: float = 150.0, converge: float = 80.0, parallel: float = 80.0, after: float = 150.0
) -> RoadNetwork:
    """The road of `merge-generic-v0`.

    Args:
        lanes: of the motorway.
        before: length of the ramp until it turns towards the motorway [m].
        converge: length of that turn along the motorway [m].
        parallel: length of the lane beside the motorway from which traffic merges [m].
        after: length of the motorway past that lane, at least 90 [m].

    Raises:
        UserError: no lane, or a part that is too short.
    """
    require_lanes(lanes)
    require_positive(before=before, converge=converge, parallel=parallel)
    if not after >= LEAST_AFTER:
        raise UserError(f"'after' must be at least {LEAST_AFTER:g} m, not {after:g} m")
    motorway = markings(lanes, dividers="left")
    return _network((before, converge, parallel, after), motorway, motorway, "dashed", 30.0)


def obstacles(lanes: int = 2, before: float = 150.0, converge: float = 80.0, parallel: float = 80.0) -> list[Obstacle]:
    """The block at the end of the merging lane; arguments as `generic` has them, by default those of `network`."""
    return [(before + converge + parallel, lanes * LANE_WIDTH, 0.0, 2.0, 2.0)]


def _network(
    lengths: tuple[float, float, float, float],
    motorway: Sequence[Lines],
    beside_ramp: Sequence[Lines],
    ramp_left: str,
    speed_limit: float,
) -> RoadNetwork:
    result = RoadNetwork()
    k, b, c, d = accumulate(lengths)
    for start, end, x0, x1, lines in (
        ("a", "b", 0, b, motorway),
        ("b", "c", b, c, beside_ramp),
        ("c", "d", c, d, motorway),
    ):
        add_road(result, start, end, straights((x0, 0.0), (x1, 0.0), lines, speed_limit=speed_limit))
    ramp = {"speed_limit": speed_limit, "forbidden": True}
    y, middle, far = (len(motorway) * LANE_WIDTH + n * AMPLITUDE for n in range(3))
    walled = ("solid", "solid")
    result.add_lane("j", "k", straight((0.0, far), (k, far), lines=walled, **ramp))
    swing = (AMPLITUDE, math.pi / lengths[1], math.pi / 2)
    result.add_lane("k", "b", sine((k, middle), (b, middle), *swing, lines=walled, **ramp))
    result.add_lane("b", "c", straight((b, y), (c, y), lines=(ramp_left, "solid"), **ramp))
    return result
