"""A road on which overtaking means meeting oncoming traffic: highway-env's `two-way-v0`.

Two lanes lead from a to b along +x; one leads back from b to a on top of the left one.
"""

from envs.roads.maps.carriageway import add_road, markings, require_positive, straights
from envs.roads.network import RoadNetwork


def network(length: float = 800.0) -> RoadNetwork:
    """The road of `two-way-v0`.

    Args:
        length: [m].

    Raises:
        UserError: a length that is not positive.
    """
    require_positive(length=length)
    result = RoadNetwork()
    add_road(result, "a", "b", straights((0.0, 0.0), (length, 0.0), markings(2, dividers="right")))
    add_road(result, "b", "a", straights((length, 0.0), (0.0, 0.0), [("none", "none")]))
    return result
