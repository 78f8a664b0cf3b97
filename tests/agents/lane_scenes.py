"""Observations of a driver who may change lanes, made by hand: on a straight road of lanes 4 m wide."""

import torch

from envs.sensors.lane_choice import AWAY
from envs.sensors.lane_plans import ENDLESS

WIDTH = 4.0  # m
FREE = {"changes": 0.0, "room": ENDLESS, "opens": 0.0, "blind": 0.0}


def lane(there, offset, **facts):
    facts = FREE | facts
    return (
        there, offset, 0.0, facts["changes"], facts["room"], facts["opens"], ENDLESS, 36.0, 36.0, ENDLESS,
        facts["blind"],
    )  # fmt: skip


def observe(*others, speed=20.0, wanted=25.0, hold=0.0, steering=0.1, own=None, left=None, right=None, oncoming=False):
    """Observations of one world.

    Args:
        others: each (along, across, speed along, speed across, acceleration, kind).
        speed, wanted, hold, steering: of the ego, as "ego" has them.
        own, left, right: facts of a lane, see `FREE`; there is no lane on a side where it is None.
        oncoming: whether the lane on the left is that of oncoming traffic.
    """
    rows = []
    for x, y, v, u, a, kind in others:
        sides = [(x, y + side * WIDTH, u) if facts is not None else (0.0, AWAY, 0.0) for side, facts in
                 ((1, left), (-1, right))]  # fmt: skip
        around = (1.0, x, y, v, u, a, 5.0, 2.0, kind, float(abs(y) < 2))
        rows.append((*around, *sides[0], *sides[1], *(0.0,) * 6))
    traffic = torch.tensor([rows or [(0.0,) * 22]])
    nobody = (0.0,) * 11
    beside = lane(-1.0, -WIDTH) if oncoming else nobody
    lanes = (
        lane(1.0, 0.0, **(own or {})),
        beside if left is None else lane(1.0, -WIDTH, **left),
        nobody if right is None else lane(1.0, WIDTH, **right),
    )
    ego = (speed, 0.0, wanted, 0.0, 0.0, steering, hold, 36.0)
    return {
        "surroundings": traffic[..., :10].clone(),
        "traffic": traffic,
        "lanes": torch.tensor([lanes]),
        "ego": torch.tensor([ego]),
    }
