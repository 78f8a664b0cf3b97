"""Two lanes that turn back on themselves: highway-env's `u-turn-v0`.

From a to b along +x, anticlockwise (y down) from b to c, and from c to d along -x.
"""

from envs.roads.maps.carriageway import LANE_WIDTH, add_road, arcs, markings, require_positive, straights
from envs.roads.network import RoadNetwork

RADIUS = 20.0  # m, of the inner lane


def network(length: float = 128.0) -> RoadNetwork:
    """The roads of `u-turn-v0`.

    Args:
        length: of each straight [m].

    Raises:
        UserError: a length that is not positive.
    """
    require_positive(length=length)
    lines = markings(2, dividers="right")
    back = LANE_WIDTH
    middle, there = back + RADIUS, back + 2 * RADIUS
    result = RoadNetwork()
    add_road(result, "c", "d", straights((length, back), (0.0, back), lines))
    add_road(result, "b", "c", arcs((length, middle), (RADIUS, RADIUS + LANE_WIDTH), 90, -90, lines))
    add_road(result, "a", "b", straights((0.0, there), (length, there), lines))
    return result
