"""How episodes ended and where, against what was simulated and against scenes that are written down."""

import math

import numpy as np
import pytest
import torch

from envs.roads.parallel import ParallelRoad
from envs.scenarios.stage import MAPS
from evaluation import endings, metrics
from evaluation.endings import KINDS, Endings
from evaluation.lanes import Lanes
from evaluation.recorder import HELD_OUT_SEED
from evaluation.results import Setting, merged
from evaluation.shards import Task, compute, split
from tests.evaluation.scenes import drive

HIGHWAY = Lanes([ParallelRoad(3)])  # lanes of 4 m at y = 0, 4, 8


def ending(trajectory, **more) -> Endings:
    found = metrics.compute(trajectory)
    values = {name: result.value.double().numpy() for name, result in found.items()}
    valid = {name: result.valid.numpy() for name, result in found.items()}
    return endings.endings(trajectory, values, valid, **({"lost": (), "without_numbers": ()} | more))


def test_a_collision_is_placed_where_it_happened():
    ego, other = {"x": 0.0, "speed": 10.0}, {"x": 15.0}
    hit = ending(drive(ego, other, crashed={0: 11, 1: 11}, lanes=HIGHWAY))
    assert hit.name(0) == "collision at fault"
    # 1.1 s at 10 m/s; the recording goes on for another second.
    assert hit.failure[0] == pytest.approx([11.0, 0.0, 0.0]) and hit.end[0] == pytest.approx([11.0, 0.0, 0.0])
    from_behind = ending(drive({"x": 20.0}, {"x": 0.0, "speed": 15.0}, crashed={0: 11, 1: 11}, lanes=HIGHWAY))
    assert from_behind.name(0) == "other collision" and from_behind.lane[0] == 0


@pytest.mark.parametrize(("y", "off"), [(-1.25, False), (-1.35, True), (9.35, True)])
def test_off_the_road_at_the_end(y, off):
    # The box reaches 1 m to the side, the road ends at y = -2 and 10.
    ego = {"x": 100.0 * torch.ones(21), "y": torch.linspace(4.0, y, 21), "lane": 0 if y < 0 else 2}
    found = ending(drive(ego, lanes=HIGHWAY))
    assert found.name(0) == ("off the road" if off else "")
    assert found.end[0, 1] == pytest.approx(y) and np.isnan(found.failure[0]).all() == (not off)
    back = {"x": 100.0 * torch.ones(21), "y": torch.linspace(4.0, y, 21).flip(0), "lane": 0}
    assert not ending(drive(back, lanes=HIGHWAY)).failed[0]


def test_the_end_of_the_map_is_not_off_the_road():
    lanes = Lanes([MAPS["street"]()])  # the lane ends at x = 250, 1.75 m right of the middle
    straight_on = drive({"x": 238.0, "y": 1.75, "speed": 6.0}, lanes=lanes)
    assert metrics.METRICS["off_road"].compute(straight_on).value > 0
    assert not ending(straight_on).failed[0]
    beside = drive({"x": 238.0, "y": 6.0, "speed": 1.0}, lanes=lanes)
    assert ending(beside).name(0) == "off the road"


def test_a_red_light_is_placed_where_it_was_run_and_a_collision_counts_for_more():
    lanes = Lanes([MAPS["signals"]()])
    counter = (torch.arange(21)[:, None] >= 7).int() + (torch.arange(21)[:, None] >= 15).int()
    ego = {"x": 2.0, "y": 24.0, "heading": -math.pi / 2, "speed": 10.0, "lane": 0}
    found = ending(drive(ego, lanes=lanes, red_lights=counter))
    assert found.name(0) == "red light run"
    assert found.failure[0] == pytest.approx([2.0, 17.0, -math.pi / 2])
    assert found.end[0] == pytest.approx([2.0, 4.0, -math.pi / 2])
    crashed = ending(drive(ego, {"x": 2.0, "y": 10.0}, crashed={0: 14, 1: 14}, lanes=lanes, red_lights=counter))
    assert crashed.name(0) == "collision at fault" and crashed.failure[0, 1] == pytest.approx(10.0)


def test_goals_numbers_and_faults():
    def found(success: int, **more) -> Endings:
        return ending(drive({"x": 100.0}, lanes=HIGHWAY, success=torch.tensor([success])), **more)

    assert [found(success).name(0) for success in (1, 0, -1)] == ["", "goal not reached", ""]
    assert found(1, without_numbers=[0]).name(0) == "no numbers returned"
    assert found(0, without_numbers=[0]).name(0) == "goal not reached"
    lost = found(0, lost={0})
    assert not lost.failed[0] and lost.map[0] == lost.lane[0] == -1 and np.isnan(lost.end).all()
    both = endings.joined([found(0), lost, endings.unknown(2)])
    assert both.failed.tolist() == [True, False, False, False] and both.end.shape == (4, 3)


@pytest.mark.parametrize(("scenario", "policy"), [("roundabout", "idm"), ("intersection-signals", "random")])
def test_places_are_those_of_the_simulation(scenario, policy):
    """Against recordings of all failures: the frame in which the ego's crash flag rises, else the last one."""
    setting = Setting(scenario, "lanewise", 14, HELD_OUT_SEED)
    task = Task(policy, setting, keep=14)
    outcome = merged(policy, policy, [compute(shard) for shard in split(task)], task.keep)
    ended = outcome.endings
    failed = np.flatnonzero(ended.failed).tolist()
    assert len(failed) > 4 and set(failed) <= outcome.replays.keys()
    for episode in failed:
        seen = outcome.replays[episode]
        frame = int(seen.crashed[:, 0].argmax()) if seen.crashed[:, 0].any() else len(seen) - 1
        place = [values[frame, 0] for values in (seen.x, seen.y, seen.heading)]
        assert ended.end[episode] == pytest.approx(place, abs=1e-4)
        assert seen.about["end"] == ended.name(episode) and seen.map == ended.map[episode]
        assert ("collision" in KINDS[ended.kind[episode]]) == seen.crashed[:, 0].any()
        if ended.name(episode) == "red light run":
            # 16 m from the middle of the junction is the stop line, which the front of the car has just passed.
            x, y, heading = ended.failure[episode]
            front = (x + 2.5 * math.cos(heading), y + 2.5 * math.sin(heading))
            assert max(map(abs, front)) == pytest.approx(16.0, abs=1.5)
        else:
            assert np.array_equal(ended.failure[episode], ended.end[episode])
