"""Measures of the ego on its road: lanes, rules, ride, progress and scores, against closed forms and other code."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import envs
from agents import policies
from envs.roads.lanes import circular, straight
from envs.roads.network import RoadNetwork
from envs.roads.parallel import ParallelRoad
from envs.roads.signals import AMBER, GREEN, RED, Junction, Phase, Signal
from envs.scene import distance_to_polyline
from evaluation.lanes import Lanes
from evaluation.metrics import METRICS, comfort, progress, road, rules, scores
from evaluation.recorder import record
from evaluation.ways import Ways
from tests.evaluation.scenes import DT, drive, value

COUNT = 600  # boxes
HIGHWAY = Lanes([ParallelRoad(3)])  # lanes of 4 m at y = 0, 4, 8


def two_way() -> RoadNetwork:
    """A lane along +x at y = 0 and one along -x at y = -4, 100 m long."""
    network = RoadNetwork()
    network.add_lane("a", "b", straight((0, 0), (100, 0), speed_limit=10.0))
    network.add_lane("c", "d", straight((100, -4), (0, -4)))
    return network


# --- lanes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "heading", "off"), [(0, 0, 0), (-1.29, 0, 0), (-1.31, 0, 1), (9.31, 0, 1), (2, 1.5, 0), (-0.8, 0.4, 1)]
)
def test_a_corner_off_the_highway(y, heading, off):
    # The left edge is at y = -2 m; the box reaches half of 5 |sin| + 2 |cos| to the side.
    reach = 2.5 * math.sin(heading) + math.cos(heading)
    assert off == (y - reach < -2.3 or y + reach > 10.3)
    ego = {"x": 100.0 * torch.ones(4), "y": y * torch.ones(4), "heading": heading, "lane": round(max(y, 0) / 4)}
    assert value(road.OFF_ROAD, drive(ego, frames=4, lanes=HIGHWAY)) == off


@pytest.mark.parametrize("name", ["roundabout", "exit", "racetrack"])
def test_off_the_road_as_distances_to_centre_lines_have_it(name):
    network = envs.scenarios.get(name).maps()[0]
    lanes = Lanes([network])
    generator = np.random.default_rng(0)
    lines = [(lane.centre_line(0.25), lane.width) for lane in network.lanes]
    chosen = [network.lanes[k] for k in generator.integers(len(lines), size=COUNT)]
    along, across = generator.random(COUNT), generator.normal(size=COUNT)
    place = np.array([lane.position(lane.length * u, 4 * v) for lane, u, v in zip(chosen, along, across, strict=True)])
    heading = generator.uniform(-math.pi, math.pi, COUNT)
    away = np.array([distance_to_polyline(place, line)[0] for line, _ in lines])
    closest = away.argmin(0)
    x, y, turn = (torch.from_numpy(values) for values in (*place.T, heading))
    lane = torch.from_numpy(closest)
    size = torch.full_like(x, 5.0), torch.full_like(x, 2.0)
    found = lanes.outside(lane, lanes.places(lane, x, y, turn), (x, y, turn, *size), 0.3)

    ahead, right = np.stack([np.cos(heading), np.sin(heading)], 1), np.stack([-np.sin(heading), np.cos(heading)], 1)
    corners = [place + a * ahead + b * right for a, b in ((2.5, 1), (2.5, -1), (-2.5, -1), (-2.5, 1))]
    beyond = np.max(
        [np.min([distance_to_polyline(c, line)[0] - width / 2 for line, width in lines], 0) for c in corners], 0
    )
    # Near the ends of roads, and within centimetres of the bound, the two may differ.
    ends = np.array([line[k] for line, _ in lines for k in (0, -1)])
    clear = np.abs(beyond - 0.3) > 0.05
    clear &= np.min(np.hypot(*(place[:, None] - ends).transpose(2, 0, 1)), 1) > 8
    assert clear.sum() > 150 and 0.05 < found[torch.from_numpy(clear)].double().mean() < 0.95
    assert np.array_equal(found.numpy()[clear], (beyond > 0.3)[clear])


@pytest.mark.parametrize(
    ("y", "heading", "share"), [(0, 0, 0), (0, 3.0, 1), (-4, 0, 1), (-4, math.pi, 0), (-1.9, 0, 0), (-8, 0, 0)]
)
def test_the_wrong_way(y, heading, share):
    lane = int(y < -2)
    ego = {"x": 50.0 * torch.ones(3), "y": y * torch.ones(3), "heading": heading, "lane": lane}
    assert value(road.WRONG_WAY, drive(ego, frames=3, lanes=Lanes([two_way()]))) == share
    assert value(road.WRONG_WAY, drive(ego, frames=3)) is None


def test_offset_while_keeping_the_lane():
    # 0.5 m beside the middle for 4 s, then over to the next lane within 4 s and 1 m beside its middle for 6 s.
    time = DT * torch.arange(141)
    y = torch.where(time <= 4, 0.5, torch.where(time < 8, 0.5 + (time - 4) * 4.5 / 4, 5.0))
    lane = (y > 2).long()
    ego = {"y": y, "lane": lane, "speed": 20.0}
    trajectory = drive(ego, frames=141, lanes=HIGHWAY)
    crossing = float(time[lane.argmax()])
    before, after = int((time < crossing - 3.0 - 1e-4).sum()), int((time > crossing + 3.0 + 1e-4).sum())
    assert value(road.MEAN_OFFSET, trajectory) == pytest.approx((0.5 * before + after) / (before + after), abs=0.02)
    assert value(road.MAXIMUM_OFFSET, trajectory) == pytest.approx(1.0, abs=1e-5)
    assert value(road.MEAN_OFFSET, drive(ego, frames=141)) is None
    wanting = dataclasses.replace(trajectory, target_lane=trajectory.lane + 1)
    assert value(road.MEAN_OFFSET, wanting) is None


def test_speeding_is_what_is_above_the_limit():
    trajectory = drive({"speed": 13.0, "y": 0.0}, frames=5, lanes=Lanes([two_way()]))
    assert value(road.SPEEDING, trajectory) == pytest.approx(3.0)
    assert value(road.SPEEDING, drive({"speed": 9.0}, frames=5, lanes=Lanes([two_way()]))) == 0


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_round_a_bend_and_share_of_the_route():
    radius, speed = 30.0, 10.0
    network = RoadNetwork()
    network.add_lane("a", "b", straight((0, 0), (20, 0)))
    network.add_lane("b", "c", circular((20, radius), radius, -math.pi / 2, 0.0))
    network.add_lane("c", "d", straight((20 + radius, radius), (20 + radius, 100 + radius)))
    s = speed * DT * torch.arange(61) + 5.0
    angle = ((s - 20) / radius).clamp(0, math.pi / 2)
    ego = {
        "x": torch.where(s < 20, s, 20 + radius * angle.sin()),
        "y": radius * (1 - angle.cos()),
        "heading": angle,
        "speed": speed,
        "lane": (s >= 20).long(),
    }
    about = {"lanes": Lanes([network]), "ways": Ways([network]), "routes": ((0, 1, 2),), "map": torch.zeros(1)}
    trajectory = drive(ego, frames=61, **about)
    assert value(progress.PROGRESS, trajectory) == pytest.approx(60.0, abs=0.1)
    whole = 15 + radius * math.pi / 2 + 100
    assert value(progress.ROUTE_COMPLETION, trajectory) == pytest.approx(60 / whole, abs=2e-3)
    arrived = dataclasses.replace(trajectory, success=torch.ones(1))
    assert value(progress.ROUTE_COMPLETION, arrived) == 1
    assert value(progress.ROUTE_COMPLETION, drive(ego, frames=61)) is None
    assert value(progress.PROGRESS, drive({"speed": 20.0}, frames=11)) == pytest.approx(20.0)


# --- rules ------------------------------------------------------------------------------------------------------------


def signalled() -> RoadNetwork:
    """50 m to a line at x = 50, 20 m through a junction, and a street with a stop line at x = 170 without a signal."""
    network = RoadNetwork()
    for start, end, x, to in (("a", "b", 0, 50), ("b", "c", 50, 70), ("c", "d", 70, 170), ("d", "e", 170, 300)):
        network.add_lane(start, end, straight((x, 0), (to, 0)))
    network.signals.append(Signal((("b", "c", 0),), (50.0, 3.0), 0.0))
    network.junctions.append(Junction((0,), (Phase((0,)),)))
    network.stop_lines += [("a", "b", 0), ("c", "d", 0)]
    return network


def approach(x: torch.Tensor, shown: list[int], **vehicle):
    """An ego at these places, under a signal that shows this in every frame."""
    lane = (x >= 50).long() + (x >= 70) + (x >= 170)
    about = {"lanes": Lanes([signalled()]), "map": torch.zeros(1), "signal": torch.tensor(shown)[:, None, None]}
    return drive({"x": x, "lane": lane} | vehicle, frames=len(x), **about)


@pytest.mark.parametrize(("amber", "ran"), [(0, 1), (12, 1), (20, 0), (29, 0), (30, 0)])
def test_amber_is_run_where_one_could_have_stopped(amber, ran):
    # At 10 m/s stopping takes 100 / 6 = 16.7 m. The front is 30 - k m before the line in frame k, beyond it from 30 on.
    shown = [GREEN] * amber + [AMBER] * (30 - amber) + [AMBER] * 31
    assert ran == (30 - amber >= 100 / 6)
    x = 17.5 + torch.arange(61.0)
    assert value(rules.AMBER_RUN, approach(x, shown, speed=10.0)) == ran
    late = [GREEN] * 31 + [AMBER] * 30
    assert value(rules.AMBER_RUN, approach(x, late, speed=10.0)) == 0
    red = [AMBER] * 25 + [RED] * 36
    assert value(rules.AMBER_RUN, approach(x, red, speed=10.0)) == 0


def test_the_front_crosses_before_the_lane_changes():
    x = 17.5 + torch.arange(61.0)
    (line,) = rules.crossings(approach(x, [GREEN] * 61, speed=10.0))
    assert (line.world, line.frame, line.head) == (0, 30, 0)


def test_stop_lines_without_a_signal():
    x = 140 + torch.arange(41.0)
    shown = [GREEN] * 41
    assert value(rules.STOP_LINE, approach(x, shown, speed=10.0)) == 1
    # It stands at x = 165, its front 2.5 m before the line.
    stops = torch.cat([x[:26], x[25].expand(5), x[26:36]])
    speed = torch.cat([torch.full((26,), 10.0), torch.zeros(5), torch.full((10,), 10.0)])
    assert value(rules.STOP_LINE, approach(stops, shown, speed=speed)) == 0
    far = torch.cat([x[:10], x[9].expand(5), x[10:36]])
    assert value(rules.STOP_LINE, approach(far, shown, speed=torch.cat([speed[:10], speed[26:31], speed[:26]]))) == 1
    assert value(rules.STOP_LINE, approach(x - 60, shown, speed=10.0)) is None


class GoesOn:
    """Keeps to its lane and heeds nothing."""

    name, env_options = "goes on", {"observation": "state"}

    def act(self, obs):
        return torch.ones(24, dtype=torch.int64)

    def reset(self, done):
        pass


def test_red_lights_are_those_that_lines_and_signals_tell():
    worlds = envs.make_vec("intersection-signals", 24, device="cpu", observation="state")
    trajectory = record(worlds, GoesOn(), seed=5)
    worlds.close()
    lines = rules.crossings(trajectory)
    ran = torch.zeros(24)
    for line in lines:
        ran[line.world] += trajectory.signal[line.frame, line.world, line.head] == RED
    found = rules.red_lights(trajectory)
    assert found.valid.all() and torch.equal(found.value, ran)
    assert 5 < ran.sum() < len(lines)
    assert (rules.blocked_box(trajectory).value >= 0).all()


def test_worlds_without_counters_have_no_rules():
    for metric in (rules.RED_LIGHTS, rules.AMBER_RUN, rules.BLOCKED_BOX, rules.STOP_LINE):
        assert value(metric, drive({"speed": 5.0})) is None


# --- comfort ----------------------------------------------------------------------------------------------------------


@given(st.floats(-5, 5), st.floats(-3, 3), st.floats(-1, 1), st.integers(2, 9))
def test_derivatives_of_parabolas_are_exact(a, b, c, half):
    time = DT * torch.arange(30, dtype=torch.float64)[:, None]
    values = a + b * time + c * time**2
    inner = time[half : 30 - half]
    assert torch.allclose(comfort.derivative(values, half, DT), b + 2 * c * inner, atol=1e-8)
    assert torch.allclose(comfort.derivative(values, half, DT, 2), torch.full_like(inner, 2 * c), atol=1e-7)


@pytest.mark.parametrize(("braking", "comfortable"), [(0.0, 1), (-3.9, 1), (-4.2, 0), (2.3, 1), (2.5, 0)])
def test_bounds_of_constant_acceleration(braking, comfortable):
    speed = 25.0 + braking * DT * torch.arange(51)
    assert value(comfort.COMFORT, drive({"speed": speed}, frames=51)) == comfortable
    assert value(comfort.JERK_RMS, drive({"speed": speed}, frames=51)) == pytest.approx(0, abs=1e-3)


def test_jerk_of_a_swinging_speed():
    # v = 20 + sin(w t): jerk -w^2 sin(w t), of which long fits see a little less.
    w, time = 1.0, DT * torch.arange(400)
    found = value(comfort.JERK_RMS, drive({"speed": 20 + (w * time).sin()}, frames=400))
    assert found == pytest.approx(w**2 / math.sqrt(2), rel=0.1)


def test_jerk_tells_the_ride_and_not_the_frequency():
    """A policy that accelerates and brakes with 1.5 m/s2, 2 s each, in worlds of 10 to 50 Hz."""
    found = []
    for frequency in (10, 20, 50):
        dt = 1 / frequency
        time = dt * torch.arange(20 * frequency + 1)
        pushes = torch.where(time % 4 < 2, 1.5, -1.5)
        speed = 20 + torch.cat([torch.zeros(1), (pushes[:-1] * dt).cumsum(0)])
        ride = drive({"x": 20 * time, "speed": speed}, frames=len(time))
        found.append(value(comfort.JERK_RMS, dataclasses.replace(ride, dt=dt)))
    assert max(found) < 1.06 * min(found)


def test_a_turn_that_is_too_fast_or_too_tight():
    time = DT * torch.arange(61)
    assert value(comfort.COMFORT, drive({"speed": 10.0, "heading": 0.48 * time}, frames=61)) == 1
    assert value(comfort.COMFORT, drive({"speed": 10.0, "heading": 0.50 * time}, frames=61)) == 0  # 5 m/s2 sideways
    assert value(comfort.COMFORT, drive({"speed": 1.0, "heading": 0.90 * time}, frames=61)) == 1
    assert value(comfort.COMFORT, drive({"speed": 1.0, "heading": 1.00 * time}, frames=61)) == 0
    assert value(comfort.COMFORT, drive({"speed": 1.0, "heading": torch.remainder(0.9 * time, 6.2832)}, frames=61)) == 1


def test_neither_a_crash_nor_a_short_ride_is_judged():
    speed = torch.cat([torch.full((41,), 20.0), torch.zeros(20)])
    assert value(comfort.COMFORT, drive({"speed": speed}, frames=61, crashed={0: 41})) == 1
    assert value(comfort.COMFORT, drive({"speed": speed}, frames=61)) == 0
    assert value(comfort.COMFORT, drive({"speed": 20.0}, frames=21)) is None


# --- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "completion", "off", "older", "newer"),
    [
        ({"vehicle": [2.0]}, 1.0, 0.0, 36.0, 100 / 2.4),  # the leaderboard's own example
        ({}, 1.0, 0.0, 100.0, 100.0),
        ({}, 0.5, 0.1, 45.0, 45.0),
        ({"pedestrian": [1.0], "red_light": [2.0]}, 1.0, 0.0, 100 * 0.5 * 0.49, 100 / 2.8),
        ({"static": [1.0], "stop_sign": [1.0]}, 0.8, 0.0, 80 * 0.65 * 0.8, 80 / 1.85),
        ({"scenario_timeout": [1.0], "emergency_vehicle": [1.0]}, 1.0, 0.0, 49.0, 100 / 1.8),
    ],
)
def test_carla_driving_score(counts, completion, off, older, newer):
    infractions = scores.Infractions.none(1, **counts)
    share, beside = torch.tensor([completion]), torch.tensor([off])
    assert float(scores.driving_score("2.0", share, infractions, beside)) == pytest.approx(older, rel=1e-5)
    assert float(scores.driving_score("2.1", share, infractions, beside)) == pytest.approx(newer, rel=1e-5)
    with pytest.raises(KeyError):
        scores.driving_score("1.0", share, infractions, beside)


def test_nuplan_closed_loop_score():
    one = torch.ones(1)
    assert float(scores.closed_loop_score(*[one] * 8)) == 100
    assert float(scores.closed_loop_score(0 * one, *[one] * 7)) == 0
    # Half of the way, no TTC below the bound, 2.23 / 2 m/s too fast on average, not comfortable.
    found = scores.closed_loop_score(one, one, one, 0.5 * one, 0.5 * one, one, 0.5 * one, 0 * one)
    assert float(found) == pytest.approx(100 * 0.5 * (2.5 + 5 + 2) / 16)


@pytest.mark.parametrize("scenario", ["merge", "intersection", "intersection-signals", "parking"])
def test_everything_is_finite_where_valid_in_driven_worlds(scenario):
    driver = policies.load("random", scenario=scenario)
    worlds = envs.make_vec(scenario, 8, device="cpu", **driver.env_options)
    trajectory = record(worlds, driver, seed=1)
    worlds.close()
    for name, metric in METRICS.items():
        result = metric.compute(trajectory)
        assert result.value.shape == result.valid.shape == (8,) and result.valid.dtype == torch.bool, name
        assert result.value[result.valid].isfinite().all(), name
        if metric.unit == "%" or metric.kind == "rate":
            assert ((result.value >= 0) & (result.value <= 1))[result.valid].all(), name
