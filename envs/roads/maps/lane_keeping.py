"""A winding lane and a straight one to get used to first: highway-env's `lane-keeping-v0`.

The sine runs from a to b along +x. The straight lane from c to d goes on from d to a, which in truth stops on the
sine's 135th metre and not at a.
"""

import math

from envs.roads.lanes import sine, straight
from envs.roads.network import RoadNetwork

WIDTH = 10.0  # m


def network() -> RoadNetwork:
    """The lanes of `lane-keeping-v0`."""
    start, bend = (50.0, 50.0), (115.0, 15.0)
    ahead = 20.0  # m along x
    last = (bend[0] + ahead, bend[1] + ahead * (bend[1] - start[1]) / (bend[0] - start[0]))
    result = RoadNetwork()
    result.add_lane("a", "b", sine((0.0, 0.0), (500.0, 0.0), 5.0, 2 * math.pi / 100, 0.0, width=WIDTH))
    result.add_lane("c", "d", straight(start, bend, width=WIDTH))
    result.add_lane("d", "a", straight(bend, last, width=WIDTH, lines=("none", "dashed")))
    return result
