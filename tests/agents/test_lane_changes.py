"""Changes of lane: when they begin, where they never do, and how they look from the seat."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from agents import lane_changes, passing, policies
from agents.gap_acceptance import critical_gap
from agents.lane_changes import plans
from agents.lane_path import Path
from agents.lane_view import LEFT, OWN, View
from envs.scenarios import stage
from envs.scenarios.stage import Actor, Case
from evaluation import suites
from evaluation.recorder import record
from tests.agents.lane_scenes import WIDTH, observe

LENGTH = 5.0
ENDS = {"changes": 1.0, "room": 150.0, "blind": 1.0}  # a lane that ends


def careful(spec="careful"):
    return policies.load(spec, stage.of([Case("test/0-0", "test", "road", 50.0, 3.5, 0.0, 20.0, 20.0)]))


def begins(*others, spec="careful", **scene):
    """Whether a driver begins to change lanes to the left."""
    driver = careful(spec)
    return bool(driver.act(observe(*others, steering=0.0, **{"left": {}, **scene}))[0, 1] < -1e-3)


def beside(gap, speed, ahead=False):
    """Somebody on the left lane, bumper to bumper."""
    return (gap + LENGTH if ahead else -gap - LENGTH), -WIDTH, speed, 0.0, 0.0, 0


# --- gaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("theirs", [15.0, 20.0, 28.0])
def test_a_needed_change_begins_at_the_critical_gap(ahead, theirs):
    own, room = 20.0, 150.0
    time_gap = 1 - (1 - 0.56) * (1 - (room - LENGTH / 2) / 295)  # LMRS
    order = (own, theirs) if ahead else (theirs, own)
    least = critical_gap(*(torch.tensor(v) for v in order), time_gap).item()
    assert begins(beside(least + 0.1, theirs, ahead), speed=own, own=ENDS)
    assert not begins(beside(least - 0.1, theirs, ahead), speed=own, own=ENDS)


OTHER = st.tuples(st.floats(-60.0, 60.0), st.floats(0.0, 35.0))


@settings(deadline=None, max_examples=60)
@given(st.lists(OTHER, min_size=1, max_size=4), st.floats(1.0, 30.0), st.floats(30.0, 300.0), st.booleans())
def test_nobody_changes_into_a_place_that_is_taken(others, speed, room, ends):
    """Whatever the need: with somebody beside, or nearer than a follower may come with 3 m/s2, the lane is kept."""
    scene = [(x, -WIDTH, v, 0.0, 0.0, 0) for x, v in others]
    leader = () if ends else ((25.0, 0.0, speed / 2, 0.0, 0.0, 0),)
    own = {"changes": 1.0, "room": room, "blind": 1.0} if ends else {}
    if begins(*scene, *leader, speed=speed, own=own):
        for x, v in others:
            rear, front = (v, speed) if x < 0 else (speed, v)
            closing = max(rear - front, 0.0)
            assert abs(x) - LENGTH >= closing * 0.4 + closing**2 / 6 + 0.56 * front + 2.0 - 1e-3


def test_rss_keeps_its_own_distances():
    """At equal speeds of 20 m/s RSS wants 113 m to a follower who takes 2 s to respond."""
    safe = 40 + 7 + 27**2 / 8 - 400 / 16
    assert begins(beside(safe + 1, 20.0), own=ENDS, spec="rss")
    assert not begins(beside(safe - 1, 20.0), own=ENDS, spec="rss") and begins(beside(safe - 1, 20.0), own=ENDS)


def test_only_what_is_useful_is_done():
    slow, fast = (40.0, 0.0, 12.0, 0.0, 0.0, 0), (40.0, 0.0, 24.0, 0.0, 0.0, 0)
    assert begins(slow) and not begins(fast) and not begins()
    assert not begins(slow, left=None)
    # Not for somebody who brakes or sways, not to a lane that is no better, nor one that leads elsewhere.
    assert not begins((40.0, 0.0, 12.0, 0.0, -2.0, 0)) and not begins((40.0, 0.0, 12.0, 0.5, 0.0, 0))
    assert not begins(slow, (40.0, -WIDTH, 12.0, 0.0, 0.0, 0))
    assert not begins(slow, left={"changes": 1.0, "room": 300.0})
    # Not while the rules hold us.
    assert not begins(slow, hold=1.0) and not begins(own=ENDS, hold=1.0)


def test_a_lane_that_begins_later_is_waited_for():
    assert not begins(own=ENDS, left={"opens": 20.0}) and begins(own=ENDS, left={"opens": 0.0})


def test_plans_are_what_they_say():
    rates, times, reached, place = plans(torch.tensor([10.0]))
    dt = 1e-3
    for k in range(0, len(rates), 17):
        half = k > 1 + (len(rates) - 1) // 2
        x, v, slowest = 0.0, 10.0, 10.0
        for n in range(round(times[k].item() / dt)):
            a = rates[k].item() * (-1 if half and n * dt >= times[k] / 2 else 1)
            x, v = x + v * dt + a * dt**2 / 2, v + a * dt
            slowest = min(slowest, v)
        if slowest < -1e-2:
            assert reached[0, k] < 0
        elif slowest > 1e-2:
            assert (reached[0, k].item(), place[0, k].item()) == pytest.approx((v, x), abs=2e-2)


# --- the path ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [5.0, 15.0, 30.0])
def test_the_path_is_comfortable_and_arrives(speed):
    """UN R79: at most 1 m/s2 sideways, and the change is over within 5 s from line to line."""
    view = View.of(observe(speed=speed, left={}))
    row, step = torch.tensor([LEFT]), 0.1
    path = Path.straight(view.speed).towards(view, row, torch.zeros(1), torch.tensor([True]))
    places, speeds = [path.place.item()], [0.0]
    while path.active.item():
        # As if the car stood still sideways: the line keeps its place.
        path = path.advance(view, row, step)
        places.append(path.place.item())
        speeds.append(path.speed.item())
    changes = [abs(b - a) / step for a, b in zip(speeds[:-1], speeds[1:-1], strict=False)]
    assert max(changes) <= 1.0 + 1e-4 and max(map(abs, speeds)) <= 1.2 + 1e-4
    assert places[0] == WIDTH and min(places) > -0.06
    assert (len(places) - 1) * step < 6.0


def drive(spec, *cases):
    staged = stage.of(cases)
    driver = policies.load(spec, staged)
    worlds = envs.make_vec(staged, len(cases), device="cpu", **driver.env_options)
    try:
        return record(worlds, driver, seed=0)
    finally:
        worlds.close()


def test_a_standing_car_is_passed_on_a_free_lane_but_not_by_the_regulations_drivers():
    case = Case("test/0-0", "test", "road", 50.0, 3.5, 0.0, 15.0, 15.0, actors=(Actor("still", 130.0, 3.5),))
    seen = drive("careful", case)
    last = int(seen.frames[0]) - 1
    assert not seen.hit.any() and seen.x[last, 0, 0] > 200 and seen.speed[:last, 0, 0].min() > 13
    assert abs(seen.y[last, 0, 0] - 0.0) < 0.1 or abs(seen.y[last, 0, 0] - 7.0) < 0.1
    across = seen.y[:last, 0, 0].diff() / seen.dt
    assert across.abs().max() < 1.5
    for name in ("cc", "fsm"):
        kept = drive(name, case)
        assert not kept.hit.any() and (kept.y[: int(kept.frames[0]), 0, 0] - 3.5).abs().max() < 0.05


def test_what_blocks_the_only_lane_is_passed_between_two_who_come_towards_us():
    """In a gap of 20 s, not in one of 4 s."""
    block, other, own = 300.0, 10.0, 10.0
    meets = (10.0, 14.0, 34.0)
    oncoming = tuple(Actor("scripted", block + other * t, -3.5, math.pi, other) for t in meets)
    case = Case("test/0-0", "test", "two-way", 200.0, 0.0, 0.0, own, own, duration=40.0,
                actors=(Actor("still", block, 0.75), *oncoming))  # fmt: skip
    seen = drive("careful", case)
    assert not seen.hit.any()
    last = int(seen.frames[0]) - 1
    passes = int((seen.x[: last + 1, 0, 0] > block).int().argmax()) * seen.dt
    assert 14.0 < passes < 34.0 and abs(seen.y[last, 0, 0]) < 0.2
    # Beside what is passed there is room, and it was never met by anybody.
    alongside = (seen.x[: last + 1, 0, 0] - block).abs() < LENGTH
    assert seen.y[: last + 1, 0, 0][alongside].max() < -0.25 - 1.0 - 0.5


def test_a_left_turn_lets_oncoming_traffic_pass():
    """The draws of the suite have nine cases: all of them."""
    draws = {tuple(c.parameters.values()): c for c in suites.suite("junction", 60, 5) if "turn-across" in c.id}
    assert len(draws) == 9
    assert not drive("careful", *draws.values()).hit.any()


def test_an_exit_that_is_missed_is_given_up():
    """Two lanes from it and 20 m before it, the motorway is followed."""
    case = Case("test/0-0", "test", "exit", 480.0, 16.0, 0.0, 25.0, 25.0, destination="exit", duration=8.0)
    seen = drive("careful", case)
    last = int(seen.frames[0]) - 1
    assert seen.x[last, 0, 0] > 600 and (seen.y[: last + 1, 0, 0] - 16.0).abs().max() < 0.3


def test_drivers_forget_their_path_with_the_episode():
    driver = careful()
    driver.act(observe(own=ENDS, left={}))
    assert driver._path.active.item()
    driver.reset(torch.tensor([True]))
    assert not driver._path.active.item()
    driver.reset(None)
    assert driver._path is None


# --- room -------------------------------------------------------------------------------------------------------------


def test_without_a_gap_it_stops_where_it_can_still_swing_out():
    """An endless platoon beside, and a lane that ends in comfortable reach; nine speeds at once."""
    driver, dt = careful(), 0.1
    v = torch.linspace(3.0, 30.0, 9)
    end, x = v**2 / (2 * 2.5) + 2 * v + lane_changes.SWING + 10, torch.zeros(9)
    platoon = [(12.0 * k, -WIDTH, 0.0, 0.0, 0.0, 0) for k in range(-4, 5)]
    obs = observe(*platoon, steering=0.0, own={"changes": 1.0, "blind": 1.0}, left={})
    obs = {name: rows.repeat(9, *[1] * (rows.ndim - 1)) for name, rows in obs.items()}
    for _ in range(200):
        obs["traffic"][:, :, 3] = v[:, None]
        obs["ego"][:, 0], obs["lanes"][:, OWN, 4] = v, end - x
        action = driver.act(obs)
        assert action[:, 1].abs().max() < 1e-6 and action[:, 0].min() >= -0.31
        faster = (v + 10 * action[:, 0] * dt).clamp(min=0)
        x, v = x + (v + faster) / 2 * dt, faster
    assert v.max() < 0.1 and (end - x - LENGTH / 2).min() >= lane_changes.SWING


def test_nobody_passes_a_queue_before_a_junction():
    queue = [(20.0 + 8 * k, 0.0, 0.0, 0.0, 0.0, 0) for k in range(3)]
    scene = observe(*queue, speed=8.0, oncoming=True)
    view = View.of(scene)
    assert passing.may_pass(view, passing.obstruction(view, 0.8)).item()
    scene["lanes"][:, OWN, 6] = 60.0  # m to the end of the lane
    view = View.of(scene)
    assert not passing.may_pass(view, passing.obstruction(view, 0.8)).item()
