"""A car park: highway-env's `parking-v0`.

Two rows of spots face each other across y = 0, those from a to b on the side of +y and those from b to c opposite. A
spot is a lane of 8 m that leads away from the middle.
"""

import math

from envs.errors import UserError
from envs.roads.lanes import straight
from envs.roads.maps.carriageway import LANE_WIDTH, Obstacle
from envs.roads.network import RoadNetwork

DISTANCE, DEPTH = 10.0, 8.0  # m: from the middle to a spot's mouth, and from there to its end
YARD = (70.0, 42.0)  # m: length and width of the yard that the walls enclose
WALL = 1.0  # m: thickness


def network(spots: int = 14) -> RoadNetwork:
    """The spots of `parking-v0`.

    Args:
        spots: in each row.

    Raises:
        UserError: no spot.
    """
    if spots < 1:
        raise UserError(f"a car park needs at least one spot in a row, not {spots}")
    result = RoadNetwork()
    for start, end, side in (("a", "b", 1), ("b", "c", -1)):
        for k in range(spots):
            x = (k + 1 - spots // 2) * LANE_WIDTH - LANE_WIDTH / 2
            mouth, back = side * DISTANCE, side * (DISTANCE + DEPTH)
            result.add_lane(start, end, straight((x, mouth), (x, back), lines=("solid", "solid")))
    x = YARD[0] / 2
    result.paved.append(straight((-x, 0.0), (x, 0.0), width=YARD[1], lines=("none", "none")))
    return result


def obstacles() -> list[Obstacle]:
    """The four walls around the yard."""
    length, width = YARD
    along = [(0.0, y, 0.0, length, WALL) for y in (-width / 2, width / 2)]
    return along + [(x, 0.0, math.pi / 2, width, WALL) for x in (-length / 2, length / 2)]
