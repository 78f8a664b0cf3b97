"""Metrics against closed forms, on trajectories that are written down here."""

import dataclasses
import math

import pytest
import torch

from evaluation import metrics
from evaluation.recorder import record
from evaluation.trajectory import Trajectory
from tests.evaluation import scenes
from tests.evaluation.scenes import drive


def value(name: str, trajectory: Trajectory) -> float | None:
    """The metric of the only episode, None where it is not valid."""
    return scenes.value(metrics.METRICS[name], trajectory)


# --- time to collision and time headway ------------------------------------------------------------------------------


def test_ttc_and_thw_of_a_leader_in_the_lane():
    # Gap 45 - 5 = 40 m, closing at 5 m/s for 2 s: 30 m are left.
    trajectory = drive({"speed": 25.0}, {"x": 45.0, "speed": 20.0})
    assert value("minimum_time_to_collision", trajectory) == pytest.approx(30 / 5, rel=1e-5)
    assert value("minimum_time_headway", trajectory) == pytest.approx(30 / 25, rel=1e-5)
    assert value("close_following", trajectory) == 0


def test_a_leader_that_pulls_away_has_a_headway_but_no_ttc():
    trajectory = drive({"speed": 20.0}, {"x": 15.0, "speed": 25.0})
    assert value("minimum_time_to_collision", trajectory) is None
    assert value("minimum_time_headway", trajectory) == pytest.approx(10 / 20, rel=1e-5)
    # The gap is 10 + 5 t, and below 20 m until t = 2 s, the last of 21 frames.
    assert value("close_following", trajectory) == pytest.approx(20 / 21)


@pytest.mark.parametrize(
    "other",
    [
        {"x": 45.0, "y": 4.0, "speed": 20.0},
        {"x": 45.0, "y": -2.01, "speed": 20.0},
        {"x": -45.0, "speed": 30.0},
        {"x": 45.0, "speed": 20.0, "kind": 0},
    ],
    ids=["next lane", "beside the ego's way by a centimetre", "behind", "absent"],
)
def test_who_is_no_leader(other):
    trajectory = drive({"speed": 25.0}, other)
    assert value("minimum_time_to_collision", trajectory) is None
    assert value("minimum_time_headway", trajectory) is None


def test_an_edge_in_the_way_makes_a_leader():
    trajectory = drive({"speed": 25.0}, {"x": 45.0, "y": 1.99, "speed": 20.0}, {"x": 100.0, "speed": 0.0})
    assert value("minimum_time_to_collision", trajectory) == pytest.approx(30 / 5, rel=1e-5)


def test_a_turned_box_is_met_at_its_corner():
    # A box across the road, 5 m wide to the ego: its near side is 1 m before its centre.
    trajectory = drive({"speed": 25.0}, {"x": 45.0, "y": 3.0, "heading": math.pi / 2}, frames=1)
    assert value("minimum_time_to_collision", trajectory) == pytest.approx((45 - 2.5 - 1) / 25, rel=1e-5)
    # At 45 degrees the corner that is nearest to the ego is met, if it is put into the middle of the way.
    corner_x, corner_y = 45 - 3.5 / math.sqrt(2), -1.5 / math.sqrt(2)
    trajectory = drive({"speed": 25.0}, {"x": 45.0, "y": -corner_y, "heading": math.pi / 4}, frames=1)
    assert value("minimum_time_headway", trajectory) == pytest.approx((corner_x - 2.5) / 25, rel=1e-5)


def test_the_nearest_leader_counts():
    trajectory = drive({"speed": 25.0}, {"x": 65.0, "speed": 0.0}, {"x": 45.0, "speed": 20.0}, frames=1)
    assert value("minimum_time_to_collision", trajectory) == pytest.approx(40 / 5, rel=1e-5)


def test_frames_after_the_collision_and_after_the_end_do_not_count():
    vehicles = {"speed": 25.0}, {"x": 45.0, "speed": 20.0}
    crashed = drive(*vehicles, crashed={0: 10})
    assert value("minimum_time_to_collision", crashed) == pytest.approx((40 - 5) / 5, rel=1e-5)
    assert value("duration", crashed) == pytest.approx(1.0)
    whole = drive(*vehicles)
    shorter = dataclasses.replace(whole, frames=torch.tensor([6]))
    assert value("minimum_time_to_collision", shorter) == pytest.approx((40 - 2.5) / 5, rel=1e-5)
    assert value("duration", shorter) == pytest.approx(0.5)


def test_contact_is_a_ttc_of_zero():
    assert value("minimum_time_to_collision", drive({"speed": 25.0}, {"x": 4.0, "speed": 30.0}, frames=1)) == 0


# --- collisions ------------------------------------------------------------------------------


def test_collision_counts_the_ego_only():
    vehicles = {"speed": 25.0}, {"x": 45.0, "speed": 20.0}
    assert value("collision", drive(*vehicles)) == 0
    assert value("collision", drive(*vehicles, crashed={1: 3})) == 0
    assert value("collision", drive(*vehicles, crashed={0: 20})) == 1
    assert value("impact_speed", drive(*vehicles, crashed={1: 3})) is None


def test_impact_speed_is_relative_to_what_was_hit():
    ego, ahead = {"speed": 25.0}, {"x": 5.5, "speed": 18.0}
    beside = {"x": 0.0, "y": 2.5, "speed": 25.0}
    assert value("impact_speed", drive(ego, beside, ahead, crashed={0: 1, 2: 1})) == pytest.approx(7.0)
    # Someone who crashed before is not whom the ego hit, unless there is no other.
    assert value("impact_speed", drive(ego, beside, ahead, crashed={0: 3, 1: 1, 2: 3})) == pytest.approx(7.0)
    assert value("impact_speed", drive(ego, ahead, crashed={0: 3, 1: 1})) == pytest.approx(7.0)
    # A car that crosses: 25 m/s along, 6 m/s across.
    crossing = {"x": 5.0, "speed": 6.0, "heading": math.pi / 2}
    assert value("impact_speed", drive(ego, crossing, crashed={0: 0, 1: 0})) == pytest.approx(math.hypot(25, 6))


# --- the rest ------------------------------------------------------------------------------


def test_speed_of_the_traffic_is_of_those_within_100_m():
    trajectory = drive(
        {"speed": 20.0},
        {"x": 90.0, "speed": 20.0},
        {"x": -99.0, "y": 8.0, "speed": 20.0},
        {"x": 30.0, "speed": 5.0, "kind": 0},
        {"x": 101.0, "speed": 20.0},
        {"x": 40.0, "y": 4.0, "speed": 26.0},
    )
    assert value("mean_speed", trajectory) == 20
    assert value("traffic_speed", trajectory) == pytest.approx(22)
    assert value("speed_over_traffic", trajectory) == pytest.approx(-2)
    assert value("traffic_speed", drive({"speed": 20.0}, {"x": 300.0, "speed": 1.0})) is None


def test_lane_changes_are_counted_until_the_collision():
    lanes = torch.tensor([0, 0, 1, 1, 2, 1, 1, 3])
    assert value("lane_changes", drive({"lane": lanes}, frames=8)) == 4
    assert value("lane_changes", drive({"lane": lanes}, frames=8, crashed={0: 4})) == 2


def test_return_sums_the_steps_of_the_episode(make_worlds, policy):
    trajectory = record(make_worlds(40), policy, seed=0)
    result = metrics.METRICS["episode_return"].compute(trajectory)
    assert torch.equal(result.value, trajectory.steps.float())


def test_every_metric_is_batched_and_finite_where_valid(make_worlds, policy):
    trajectory = record(make_worlds(40), policy, seed=0)
    for name, result in metrics.compute(trajectory).items():
        assert result.value.shape == result.valid.shape == (40,), name
        assert result.valid.dtype == torch.bool, name
        assert result.value[result.valid].isfinite().all(), name
    # Gap g, closing at 5 m/s: the least TTC is that of the last frame before the boxes overlap.
    ttc = metrics.METRICS["minimum_time_to_collision"].compute(trajectory)
    gap_left = 20.0 + torch.arange(40) - 40 - 5
    assert torch.allclose(ttc.value, gap_left.clamp(min=0) / 5, atol=1e-4)


def test_metrics_describe_themselves():
    for name, metric in metrics.METRICS.items():
        assert metric.name == name
        assert metric.kind in ("rate", "mean") and metric.better in ("lower", "higher", "")
        assert metric.threshold is None or metric.source, name
        assert metric.compute.__doc__ and "alid" in metric.compute.__doc__, name
