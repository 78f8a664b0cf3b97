"""A crossing of two roads with one lane each way: highway-env's `intersection-v0`.

Nodes end with the arm's number: 0 south, 1 west, 2 north, 3 east. Traffic comes in from o0 to ir0, goes right, left or
straight on to another arm's il, and out from il1 to o1. The arms west and east have right of way: priority 3, and 1 for
the others; left turns have one less.
"""

import math

import numpy as np

from envs.roads.lanes import circular, straight
from envs.roads.maps.carriageway import LANE_WIDTH
from envs.roads.network import RoadNetwork

RIGHT_RADIUS = LANE_WIDTH + 5.0  # m
LEFT_RADIUS = RIGHT_RADIUS + LANE_WIDTH  # m
SPEED_LIMIT = 10.0  # m/s
ACCESS_LENGTH = 100.0  # m


def network() -> RoadNetwork:
    """The roads of `intersection-v0`: arms of 100 m."""
    result = RoadNetwork()
    for arm in range(4):
        _add_movements(result, arm)
    return result


def _add_movements(result: RoadNetwork, arm: int) -> None:
    """Everything that traffic from one arm drives on, and the way out of the arm to its right."""
    angle = math.radians(90 * arm)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])

    def turned(x: float, y: float) -> tuple[float, float]:
        return tuple((rotation @ np.array([x, y])).tolist())

    middle = LANE_WIDTH / 2
    mouth = RIGHT_RADIUS + middle
    outer = mouth + ACCESS_LENGTH
    before, entry = turned(middle, outer), turned(middle, mouth)
    corner, opposite_corner = turned(mouth, mouth), turned(middle - LEFT_RADIUS, LEFT_RADIUS - middle)
    rank = {"priority": 3 if arm % 2 else 1, "speed_limit": SPEED_LIMIT}
    left_rank = rank | {"priority": rank["priority"] - 1}
    right_arm, left_arm, facing_arm = ((arm + turn) % 4 for turn in (-1, 1, 2))
    way_in = straight(before, entry, lines=("dashed", "solid"), **rank)
    right = circular(corner, RIGHT_RADIUS, angle + math.pi, angle + 1.5 * math.pi, lines=("none", "solid"), **rank)
    left = circular(
        opposite_corner, LEFT_RADIUS, angle, angle - math.pi / 2, clockwise=False, lines=("none", "none"), **left_rank
    )
    onward = straight(entry, turned(middle, -mouth), lines=("dashed", "none"), **rank)
    way_out = straight(turned(mouth, middle), turned(outer, middle), lines=("none", "solid"), **rank)
    result.add_lane(f"o{arm}", f"ir{arm}", way_in)
    result.add_lane(f"ir{arm}", f"il{right_arm}", right)
    result.add_lane(f"ir{arm}", f"il{left_arm}", left)
    result.add_lane(f"ir{arm}", f"il{facing_arm}", onward)
    result.add_lane(f"il{right_arm}", f"o{right_arm}", way_out)
