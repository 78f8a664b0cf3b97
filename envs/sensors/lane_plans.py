"""Which lanes lead to a destination, how far, and how many changes of lane the others are from one that does.

A lane *leads on* where the next lane on the way begins where it ends. Where it does not, such as at the end of a ramp,
or before an exit that begins beside it, whoever wants to go on has to be on another lane of that road by then.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from envs.roads.lanes import STRAIGHT
from envs.roads.network import RoadNetwork

MEETS = 1.0  # m, between the end of a lane and the start of the one that continues it, at most
ENDLESS = 1000.0  # m, stands for a lane that never ends


class LanePlans(NamedTuple):
    """Tables over the lanes of all maps, by number, and destinations as `envs.scenarios.staging.onward` counts them.

    Attributes:
        through: the lane that continues a lane, -1 for none. Shape: (lanes, 1 + destinations), int32.
        changes: of lane that are needed from it on the way. Shape: as `through`.
        room: from a lane's start to where it no longer leads on [m], at most `ENDLESS`. Shape: as `through`, float64.
        blind: whether the road ends there as well. Shape: as `through`, bool.
        oncoming: the lane of oncoming traffic to its left, behind a dashed line; -1 for none. Shape: (lanes,), int32.
    """

    through: np.ndarray
    changes: np.ndarray
    room: np.ndarray
    blind: np.ndarray
    oncoming: np.ndarray


def lane_plans(networks: Sequence[RoadNetwork], onward: np.ndarray) -> LanePlans:
    """The plans of maps.

    Args:
        networks: the maps, in their order.
        onward: the lane after each lane on the way to each destination, see `envs.scenarios.staging.onward`.
    """
    lanes = [lane for network in networks for lane in network.lanes]
    ends = np.array([lane.position(lane.length) for lane in lanes])
    starts = np.array([lane.position(0.0) for lane in lanes])
    lengths = np.array([lane.length for lane in lanes])

    def meeting(following: np.ndarray) -> np.ndarray:
        away = np.hypot(*(starts[following] - ends).T)
        return np.where((following >= 0) & (away <= MEETS), following, -1)

    road = _roads(networks)
    through, changes, room, blind = [], [], [], []
    for following in onward.T:
        leads = meeting(following)
        ended = (following >= 0) & (leads < 0)
        # Who has missed the way goes where the road leads.
        continued = np.where(ended, meeting(onward[:, 0]), leads)
        through.append(continued)
        changes.append(_changes(leads, ended, road))
        rooms, last = _rooms(leads, ended, lengths)
        room.append(rooms)
        blind.append(ended[last] & (continued[last] < 0))
    through, changes, room, blind = (np.stack(table, axis=1) for table in (through, changes, room, blind))
    return LanePlans(through.astype(np.int32), changes.astype(np.int32), room, blind, _oncoming(networks))


def _roads(networks: Sequence[RoadNetwork]) -> np.ndarray:
    """The road of each lane, and its place on it. Shape: (lanes, 2)."""
    rows, base = [], 0
    for network in networks:
        numbers = {road: base + k for k, road in enumerate(network.roads)}
        rows += [(numbers[start, end], place) for start, end, place in network.indices]
        base += len(numbers)
    return np.array(rows)


def _changes(leads: np.ndarray, ended: np.ndarray, road: np.ndarray) -> np.ndarray:
    """The fewest changes of lane on the way; 0 also where no lane of the road leads there."""
    same = road[:, None, 0] == road[None, :, 0]
    aside = np.where(same, np.abs(road[:, None, 1] - road[None, :, 1]), np.inf)
    needed = np.where(ended | (leads >= 0), np.inf, 0.0)
    for _ in range(len(leads)):
        straight_on = np.where(leads >= 0, needed[leads], np.where(ended, np.inf, 0.0))
        better = np.minimum(needed, (aside + straight_on[None]).min(1))
        if (better == needed).all():
            break
        needed = better
    return np.where(np.isfinite(needed), needed, 0)


def _rooms(leads: np.ndarray, ended: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From each lane's start to the end of the last lane that it leads on to [m], and that lane."""
    room, last = np.where(ended, lengths, ENDLESS), np.arange(len(leads))
    for _ in range(len(leads)):
        longer = np.where(leads >= 0, np.minimum(lengths + room[leads], ENDLESS), room)
        if (longer == room).all():
            break
        room, last = longer, np.where(leads >= 0, last[leads], last)
    return room, last


def _oncoming(networks: Sequence[RoadNetwork]) -> np.ndarray:
    """See `LanePlans.oncoming`; of straight lanes only."""
    result, base = [], 0
    for network in networks:
        for lane in network.lanes:
            found = -1
            if lane.kind == STRAIGHT and lane.lines[0] == "dashed":
                x, y, c, s = lane.parameters[:4]
                for number, other in enumerate(network.lanes):
                    if other.kind == STRAIGHT and other.parameters[2] * c + other.parameters[3] * s < -0.99:
                        dx, dy = other.parameters[0] - x, other.parameters[1] - y
                        beside, far = dx * s - dy * c, dx * c + dy * s
                        apart = (lane.width + other.width) / 2
                        if abs(beside - apart) < MEETS / 2 and far > 0 and far - other.length < lane.length:
                            found = base + number
            result.append(found)
        base += len(network.lanes)
    return np.array(result, dtype=np.int32)
