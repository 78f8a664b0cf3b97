"""Which way the roads of a network turn."""

import math

from envs.roads.crossings import LEFT, RIGHT, STRAIGHT
from envs.roads.network import RoadNetwork

BEND = math.radians(30.0)  # of the direction; less is straight on


def turns(network: RoadNetwork) -> dict[tuple[str, str], str]:
    """What each road (from, to) does that leaves a node where there is a choice: "left", "straight" or "right".

    A turn may be made of two roads: the direction is that at the end of the next one, where there is no other.
    """
    result = {}
    for start, roads in network.graph.items():
        for end, (lane, *_) in roads.items() if len(roads) > 1 else ():
            onward = list(network.graph.get(end, {}).values())
            last = onward[0][0] if len(onward) == 1 else lane
            bend = math.remainder(float(last.heading_at(last.length)) - float(lane.heading_at(0.0)), math.tau)
            result[start, end] = STRAIGHT if abs(bend) < BEND else RIGHT if bend > 0 else LEFT
    return result
