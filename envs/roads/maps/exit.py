"""A motorway with an exit on its right: highway-env's `exit-v0`.

It runs along +x through nodes 0, 1, 2 and 3, its leftmost lane on y = 0, with one lane more between 1 and 2, from which
the road from 2 to "exit" bends away. The further right a lane, the lower its speed limit.
"""

import math
from dataclasses import replace

from envs.errors import UserError
from envs.roads.lanes import circular
from envs.roads.maps.carriageway import LANE_WIDTH, add_road, markings, require_lanes, require_positive, straights
from envs.roads.network import RoadNetwork

LEFTMOST_LIMIT = 26.0  # m/s
LIMIT_STEP = 3.4  # m/s from a lane to the next
RADIUS = 150.0  # m, of the exit
# The lane for the exit has the lowest limit, which must be above 0.
MOST_LANES = math.ceil(LEFTMOST_LIMIT / LIMIT_STEP) - 1


def network(
    lanes: int = 6, length: float = 1000.0, exit_position: float = 400.0, exit_length: float = 100.0
) -> RoadNetwork:
    """The roads of `exit-v0`.

    Args:
        lanes: of the motorway, without the one that leads to the exit.
        length: of the motorway [m].
        exit_position: where the lane for the exit begins [m].
        exit_length: of that lane [m].

    Raises:
        UserError: no lane, so many that the speed limit would fall to 0, or lengths that do not fit.
    """
    require_lanes(lanes)
    if lanes > MOST_LANES:
        raise UserError(f"an exit's motorway has at most {MOST_LANES} lanes, not {lanes}: each is slower by 3.4 m/s")
    require_positive(exit_position=exit_position, exit_length=exit_length)
    split = exit_position + exit_length
    if not length > split:
        raise UserError(f"'length' must be more than the {split:g} m up to the exit, not {length:g} m")
    result = RoadNetwork()
    for node, count, x0, x1 in (
        (0, lanes, 0.0, exit_position),
        (1, lanes + 1, exit_position, split),
        (2, lanes, split, length),
    ):
        road = straights((x0, 0.0), (x1, 0.0), markings(count, dividers="left"))
        road = [replace(lane, speed_limit=LEFTMOST_LIMIT - LIMIT_STEP * k) for k, lane in enumerate(road)]
        add_road(result, str(node), str(node + 1), road)
    center = (split, lanes * LANE_WIDTH + RADIUS)
    result.add_lane("2", "exit", circular(center, RADIUS, 1.5 * math.pi, 2 * math.pi, forbidden=True))
    return result
