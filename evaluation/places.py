"""On which roads a policy failed, and where on them: what `evaluation.road_map` is to draw.

Episodes of a scenario with a few maps, and cases of a suite, are shown on their own roads; roads that look alike share
a picture. Each town is another, and no junction of it sees many failures. So their junctions are laid over each other,
one picture for each kind of junction, each turned such that the car comes from below.
"""

import functools
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from envs import scenarios
from envs.roads import town
from envs.roads.crossings import ROUNDABOUT
from envs.roads.network import RoadNetwork
from envs.roads.parallel import ParallelRoad
from envs.scenarios.stage import MAPS
from evaluation.results import Outcome, Setting
from evaluation.road_map import Lane, Places


@dataclass(frozen=True)
class Picture:
    """Failures on one road.

    Attributes:
        title: of the road; "" where there is only one.
        lanes: of the road.
        places: where it failed.
    """

    title: str
    lanes: list[Lane]
    places: Places


def of_cases(outcome: Outcome, failed: np.ndarray, shared: np.ndarray) -> list[Picture]:
    """Failed cases of a family on its road.

    Args:
        outcome: of the policy.
        failed: the numbers of the cases.
        shared: True where the reference driver crashed too. Shape: (E,).
    """
    maps = np.array([outcome.cases[k].map for k in failed])
    pictures = []
    for name in dict.fromkeys(maps.tolist()):
        episodes = failed[maps == name]
        names = [f"{outcome.cases[k].id} (episode {k})" for k in episodes]
        pictures.append(Picture("", _lanes(MAPS[name]()), _places(outcome, episodes, shared, names)))
    return pictures


def of_scenario(setting: Setting, outcome: Outcome) -> list[Picture]:
    """The failed episodes of a scenario on its roads."""
    scenario = scenarios.get(setting.scenario)
    failed = np.flatnonzero(outcome.endings.failed)
    if hasattr(scenario, "towns"):
        return _junctions(scenario.towns(), outcome, failed)
    maps = scenario.maps()
    alike = defaultdict(list)  # maps that look the same
    for number, road in enumerate(maps):
        alike[tuple((np.round(line, 2).tobytes(), width) for line, width in _lanes(road))].append(number)
    pictures = []
    for numbers in alike.values():
        episodes = failed[np.isin(outcome.endings.map[failed], numbers)]
        if len(episodes):
            which = f"{'Maps' if len(numbers) > 1 else 'Map'} {', '.join(map(str, numbers))}" if len(alike) > 1 else ""
            places = _places(outcome, episodes, outcome.endings.failed & False, _numbers(episodes))
            pictures.append(Picture(which, _lanes(maps[numbers[0]]), places))
    return pictures


def _numbers(episodes: np.ndarray) -> list[str]:
    return [f"episode {k}" for k in episodes]


def _places(outcome: Outcome, episodes: np.ndarray, shared: np.ndarray, names: list[str]) -> Places:
    ended = outcome.endings
    return Places(ended.failure[episodes], ended.kind[episodes], shared[episodes], names)


def _lanes(road: ParallelRoad | RoadNetwork) -> list[Lane]:
    return [(np.asarray(line, dtype=float), width) for line, _, _, width in road.polylines()]


# --- towns ------------------------------------------------------------------------------------------------------------


def _junctions(towns: tuple[town.Town, ...], outcome: Outcome, failed: np.ndarray) -> list[Picture]:
    """Failures by kind of junction, as seen from below."""
    ended = outcome.endings
    known = {number: _kinds(towns[number]) for number in np.unique(ended.map[failed]).tolist()}
    roads = {number: _lanes(towns[number].network) for number in known}

    @functools.cache
    def near(number: int, centre: tuple[float, float]) -> list[Lane]:
        """The lanes through a junction, and those to it and from it."""
        return [lane for lane in roads[number] if np.hypot(*(lane[0] - centre).T).min() < 0.5 * town.BLOCK]

    found = defaultdict(list)
    for episode in failed.tolist():
        number, (x, y, _) = int(ended.map[episode]), ended.failure[episode]
        centre = min(known[number], key=lambda place: np.hypot(x - place[0], y - place[1]))
        start, after = roads[number][ended.lane[episode]][0][:2]
        quarter = _quarter(*(after - start))
        found[known[number][centre]].append((episode, number, centre, quarter))
    pictures = []
    for kind, entries in sorted(found.items(), key=lambda entry: -len(entry[1])):
        lanes: dict[tuple, Lane] = {}
        for number, centre, quarter in dict.fromkeys(entry[1:] for entry in entries):
            for line, width in near(number, centre):
                line = _turned(line - centre, quarter)
                lanes.setdefault((tuple(np.round(line[[0, -1]].ravel(), 1)), width), (line, width))
        poses = []
        for episode, _, centre, quarter in entries:
            x, y, heading = ended.failure[episode]
            poses.append((*_turned(np.array([[x, y]]) - centre, quarter)[0], heading - (quarter + 1) * np.pi / 2))
        episodes = np.array([entry[0] for entry in entries])
        places = _places(outcome, episodes, ended.failed & False, _numbers(episodes))
        pictures.append(Picture(kind, list(lanes.values()), replace(places, pose=np.array(poses))))
    return pictures


def _kinds(place: town.Town) -> dict[tuple[float, float], str]:
    """Centre of each junction of a town -> what it is."""
    controlled = {(start, end) for signal in place.network.signals for start, end, _ in signal.movements}
    roads = defaultdict(list)
    for (start, end), turn in place.turns.items():
        points = np.concatenate([lane.centre_line() for lane in place.network.graph[start][end]])
        centre = town.BLOCK * np.round(points.mean(0) / town.BLOCK)
        roads[tuple(centre.tolist())].append((start, end, turn))
    return {
        centre: "At roundabouts"
        if any(turn == ROUNDABOUT for *_, turn in through)
        else "At signals"
        if any((start, end) in controlled for start, end, _ in through)
        else "At crossings without signals, and bends"
        for centre, through in roads.items()
    }


def _quarter(dx: float, dy: float) -> int:
    """How many quarter turns a direction is from +x."""
    return round(float(np.arctan2(dy, dx)) / (np.pi / 2))


def _turned(points: np.ndarray, quarter: int) -> np.ndarray:
    """Points turned such that the direction of so many quarter turns leads up the page. Shape: (P, 2)."""
    x, y = points.T
    for _ in range((-quarter - 1) % 4):
        x, y = -y, x
    return np.stack([x, y], 1)
