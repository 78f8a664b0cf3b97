"""Which failures stand in which picture of a road."""

import math
from collections import Counter

import numpy as np
import pytest

from envs import scenarios
from envs.scenarios.stage import MAPS, Case
from evaluation import places
from evaluation.endings import AT_FAULT, MISSED, NONE, Endings
from evaluation.metrics import METRICS
from evaluation.results import Outcome, Setting


def outcome(failure, map=None, lane=None, kind=None, cases=None) -> Outcome:
    pose = np.asarray(failure, dtype=float)
    count = len(pose)
    kind = np.full(count, AT_FAULT) if kind is None else np.asarray(kind)
    none = np.zeros(count, int)
    ended = Endings(kind, pose, pose, none if map is None else np.asarray(map), none if lane is None else lane)
    values, valid = dict.fromkeys(METRICS, np.zeros(count)), dict.fromkeys(METRICS, np.zeros(count, bool))
    return Outcome("mine", "mine", values, valid, ended, {}, 1.0, 1, cases)


def episodes(picture) -> list[int]:
    return [int(name.split()[1]) for name in picture.places.names]


def test_maps_that_look_alike_share_a_picture():
    setting = Setting("intersection-signals", "lanewise", 12, 0)
    kinds = [AT_FAULT] * 6 + [NONE] + [MISSED] * 5
    found = places.of_scenario(
        setting, outcome([(2.0, 20.0 + k, 0.0) for k in range(12)], np.arange(12) % 6, kind=kinds)
    )
    # Of its six plans two have other roads.
    assert [picture.title for picture in found] == ["Maps 0, 2, 4", "Map 1", "Maps 3, 5"]
    assert [episodes(picture) for picture in found] == [[0, 2, 4, 8, 10], [1, 7], [3, 5, 9, 11]]
    assert found[0].places.pose[1].tolist() == [2.0, 22.0, 0.0]
    assert found[0].places.kind.tolist() == [AT_FAULT] * 3 + [MISSED] * 2


def test_cases_are_on_their_own_road():
    cases = [Case(f"a/0-{k:04d}", "a", name, 0, 0, 0, 1, 1) for k, name in enumerate(("merge", "road", "merge"))]
    tested = outcome([(10.0 * k, 0.0, 0.0) for k in range(3)], cases=cases)
    found = places.of_cases(tested, np.array([0, 1, 2]), np.array([False, True, False]))
    assert [picture.places.names for picture in found] == [
        ["a/0-0000 (episode 0)", "a/0-0002 (episode 2)"],
        ["a/0-0001 (episode 1)"],
    ]
    assert [len(picture.lanes) for picture in found] == [len(MAPS["merge"]().lanes), 3]
    assert [picture.places.shared.tolist() for picture in found] == [[False, False], [True]]


@pytest.mark.parametrize("name", ["town", "town-held-out"])
def test_junctions_of_towns_are_laid_over_each_other(name):
    """Cars 10 m before the end of every lane that leads into a junction with signals."""
    towns = scenarios.get(name).towns()
    pose, maps, lanes = [], [], []
    for number, town in enumerate(towns):
        for lane in sorted({(signal.movements[0][0], k) for k, signal in enumerate(town.network.signals)}):
            (road,) = [index for index in town.network.indices if index[1] == lane[0] and index[2] == 0]
            line = town.network.lane(road).centre_line()
            step = (line[1] - line[0]) / math.dist(*line[:2])
            pose.append((*(line[-1] - 10.0 * step), math.atan2(step[1], step[0])))
            maps.append(number)
            lanes.append(town.network.number(road))
    found = places.of_scenario(Setting(name, "lanewise", len(pose), 0), outcome(pose, maps, np.array(lanes)))
    assert [picture.title for picture in found] == ["At signals"]
    assert Counter(episodes(found[0])) == Counter(range(len(pose))) and len(pose) > 50
    # The stop line is 16 m from the middle, the first lane 2 m to the right of it; they come from below.
    x, y, heading = found[0].places.pose.T
    assert x == pytest.approx(2.0) and y == pytest.approx(26.0)
    assert np.cos(heading + math.pi / 2) == pytest.approx(1.0)
    # On every one of them a lane of the picture.
    assert any(np.allclose(line[-1], (2.0, 16.0)) for line, _ in found[0].lanes)
