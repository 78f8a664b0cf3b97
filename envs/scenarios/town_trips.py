"""Ways through a town without changing lanes: where each lane leads, and how far each destination is.

Who keeps to a lane is taken left or right by the road it takes at a crossing: the leftmost lane turns left, the
rightmost right. The shortest such ways are the routes of everybody in a town, so that no route asks for a lane change.
"""

from dataclasses import dataclass

import numpy as np

from envs.errors import UserError
from envs.roads.network import RoadNetwork
from envs.roads.town import Town

SAME_POINT = 0.1  # m


@dataclass(frozen=True)
class Ways:
    """The shortest ways from every lane to every destination, counted as the town counts them.

    Attributes:
        onward: the lane to take at a lane's end, -1 at a destination and where no way leads there.
            Shape: (lanes, destinations) int.
        left: from a lane's end to the destination [m], infinite where no way leads there. Shape: (lanes, destinations).
    """

    onward: np.ndarray
    left: np.ndarray


def followers(network: RoadNetwork) -> np.ndarray:
    """The lanes that begin where each lane ends; rows end with -1. Shape: (lanes, most) int."""
    starts = np.array([lane.position(0.0) for lane in network.lanes])
    ends = np.array([lane.position(lane.length) for lane in network.lanes])
    first = {road: network.number((*road, 0)) for road in network.roads}
    rows = []
    for lane, (_, node, _) in enumerate(network.indices):
        candidates = [
            first[node, following] + place
            for following, road in network.graph.get(node, {}).items()
            for place in range(len(road))
        ]
        rows.append([k for k in candidates if np.hypot(*(starts[k] - ends[lane])) < SAME_POINT])
    result = np.full((len(rows), max(len(row) for row in rows)), -1)
    for row, found in zip(result, rows, strict=True):
        row[: len(found)] = found
    return result


def ways(town: Town) -> Ways:
    """The shortest ways in a town that keep to their lane (Bellman and Ford's relaxation)."""
    network = town.network
    after = followers(network)
    length = np.array([lane.length for lane in network.lanes])
    ends_at = np.array([[end == goal for goal in town.destinations] for _, end, _ in network.indices])
    left = np.where(ends_at, 0.0, np.inf)
    while True:
        through = np.where(after[..., None] >= 0, length[after][..., None] + left[after], np.inf)
        shorter = np.minimum(left, through.min(axis=1))
        if np.array_equal(shorter, left):
            break
        left = shorter
    onward = np.take_along_axis(after, through.argmin(axis=1), axis=1)
    return Ways(np.where(ends_at | np.isinf(left), -1, onward), left)


def streets(town: Town) -> np.ndarray:
    """The lanes between crossings and into town, from which something can be reached. Shape: (lanes,) bool."""
    out = set(town.destinations)
    return np.array([index[:2] not in town.turns and index[1] not in out for index in town.network.indices])


def table(towns: list[Town], shortest: float, longest: float) -> dict[str, np.ndarray]:
    """What traffic and trips need to know of several towns, lanes numbered through all of them.

    Args:
        towns: the towns.
        shortest, longest: of a trip, beyond the street on which it begins [m].

    Returns:
        onward: see `Ways`, with -1 for destinations that a town does not have. Shape: (lanes, most destinations).
        goals: how many destinations each has. Shape: (towns,).
        leaving: whether a lane leads out of town. Shape: (lanes,).
        street, entry, trip: lanes on which vehicles may be put, on which they enter, and on which trips begin.
        trip_goal: where each trip leads.
        first_street, first_entry, first_trip: where each town's begin in them. Shape: (towns + 1,).

    Raises:
        UserError: a town without such a trip.
    """
    most = max(len(town.destinations) for town in towns)
    rows: dict[str, list] = {name: [] for name in ("onward", "leaving", "street", "entry", "trip", "trip_goal")}
    first = 0
    for k, town in enumerate(towns):
        found, network = ways(town), town.network
        onward = np.where(found.onward >= 0, found.onward + first, -1)
        rows["onward"].append(np.pad(onward, ((0, 0), (0, most - onward.shape[1])), constant_values=-1))
        rows["leaving"].append(np.array([index[1] in town.destinations for index in network.indices]))
        street = streets(town)
        lane, goal = np.nonzero(street[:, None] & (found.left >= shortest) & (found.left <= longest))
        if len(lane) == 0:
            raise UserError(f"map {k} has no trip of {shortest:g} to {longest:g} m")
        rows["street"].append(first + np.flatnonzero(street))
        rows["entry"].append(first + np.array([network.number(index) for index, _ in town.entries]))
        rows["trip"].append(first + lane)
        rows["trip_goal"].append(goal)
        first += len(network.lanes)
    result = {name: np.concatenate(parts).astype(np.int32) for name, parts in rows.items()}
    for name in ("street", "entry", "trip"):
        counts = [0, *(len(part) for part in rows[name])]
        result["first_" + name] = np.cumsum(counts).astype(np.int32)
    result["goals"] = np.array([len(town.destinations) for town in towns], dtype=np.int32)
    return result
