"""Disturbances of scripted actors: where they take an actor, their bounds, their likelihood, their file format."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

import envs
from envs.errors import UserError
from envs.scenarios import stage
from envs.scenarios.stage import Actor, Segment, Trigger
from evaluation.disturbances import CAR, PERSON, Disturbances, Sequences, movers
from evaluation.suites import FAMILIES, draw
from evaluation.suites.base import robot, scene, standing


def case_with(*actors, duration=8.0):
    return scene("test/0-0000", {}, "road", (200.0, 3.5, 0.0), 10.0, actors, duration=duration)


# --- what becomes of them ---------------------------------------------------------------------------------------------


def driven(case, seconds: float) -> tuple[float, float, float]:
    """x, y and speed of the first actor after so long in the simulator."""
    worlds = envs.make_vec(stage.of([case]), num_worlds=1, device="cpu", observation="state", dtype="float64")
    try:
        worlds.reset(seed=0)
        for _ in range(round(10 * seconds)):
            worlds.step(torch.zeros(1, 2))
        state = worlds.state
        return tuple(float(part[0, 1]) for part in (state.x, state.y, state.speed))
    finally:
        worlds.close()


def integrated(speed, seconds, acceleration, lateral_speed, h=1e-4) -> tuple[float, float, float]:
    """Way along and across, and speed, in small steps. `acceleration` and `lateral_speed` are functions of time."""
    along = across = 0.0
    for k in range(round(seconds / h)):
        at = (k + 0.5) * h
        after = max(speed + acceleration(at) * h, 0.0)
        along, across, speed = along + 0.5 * (speed + after) * h, across + lateral_speed(at) * h, after
    return along, across, math.hypot(speed, lateral_speed(seconds - h))


def test_an_actor_goes_where_script_and_disturbances_take_it():
    script = (Segment(1.7, -1.0, 0.4), Segment(1.0, 0.5, -0.2), Segment(1.0))
    actor = robot(400.0, 3.5, 15.0, script=script, trigger=Trigger(time=1.3))
    table = np.array([[0.6, 0.2], [-1.2, -0.3], [0.3, 0.0], [-0.4, 0.5], [0.0, -0.1]])
    case = case_with(actor)

    def piece(at):
        since = at - 1.3
        return (0.0, 0.0) if since < 0 else (-1.0, 0.4) if since < 1.7 else (0.5, -0.2) if since < 2.7 else (0.0, 0.0)

    def beyond(at):
        return table[int(at)] if at < 5.0 else (0.0, 0.0)

    along, across, speed = integrated(
        15.0, 6.5, lambda at: piece(at)[0] + beyond(at)[0], lambda at: piece(at)[1] + beyond(at)[1]
    )
    x, y, v = driven(Disturbances(1.0, {0: table}).of(case), 6.5)
    assert (x, y) == pytest.approx((400.0 + along, 3.5 + across), abs=2e-3) and v == pytest.approx(speed, abs=1e-3)


def test_who_has_stopped_can_be_set_going_again_but_does_not_slide_aside():
    table = np.array([[-6.0, 0.3], [0.0, 0.3], [2.0, 0.3]])
    after = Disturbances(1.0, {0: table}).of(case_with(robot(400.0, 3.5, 3.0)))
    x, y, v = driven(after, 3.0)
    assert x == pytest.approx(400.0 + 0.75 + 1.0, abs=1e-3) and v == pytest.approx(2.0, abs=1e-3) and y == 3.5


def test_a_person_who_waits_is_disturbed_from_when_they_walk():
    trigger = Trigger(point=(250.0, 3.5), arrival=2.0)
    walker = Actor("scripted", 250.0, 9.0, -math.pi / 2, 1.4, "person", (0.5, 0.6, 1.7), trigger=trigger, waits=True)
    after = Disturbances(0.5, {0: np.array([[0.4, 0.1], [-0.2, 0.0]])}).of(case_with(walker)).actors[0]
    assert after.trigger == trigger and after.waits and after.speed == 1.4
    assert [(p.duration, p.acceleration, p.lateral_speed) for p in after.script] == [
        (0.5, 0.4, 0.1), (0.5, -0.2, 0.0), (1.0, 0.0, 0.0)
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["cut-in", "lead-stop", "ramp-merge", "cp-far-side"])
def test_without_disturbance_a_case_is_as_it_was(family):
    for case in draw(FAMILIES[family], 5, 7):
        each = Sequences(case, 1.0)
        none = each.at(np.zeros(each.dimension))
        assert none.of(case) == case and each.log_likelihood(none) == 0.0
        assert none.document() == {"interval": 1.0, "actors": {}}


def test_who_never_moves_is_not_disturbed():
    stands = case_with(standing(300.0, 3.5))
    assert movers(stands) == ()
    with pytest.raises(UserError, match="nobody to disturb"):
        Sequences(stands, 1.0)
    driver, moves = Actor("driver", 350.0, 3.5, speed=10.0), robot(300.0, 7.0, 10.0)
    assert movers(case_with(standing(300.0, 3.5), driver, moves)) == (2,)


# --- bounds -----------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-12.0, 12.0)


@settings(max_examples=200, deadline=None)
@given(
    speed=st.floats(0.1, 39.0),
    script=st.lists(st.tuples(st.floats(0.05, 3.0), st.floats(-8.0, 4.0), st.floats(-2.0, 2.0)), max_size=3),
    begins=st.floats(0.0, 4.0),
    interval=st.floats(0.2, 2.0),
    table=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6),
    person=st.booleans(),
)
def test_disturbances_stay_within_their_bounds(speed, script, begins, interval, table, person):
    kind, form = (PERSON, "person") if person else (CAR, "car")
    speed = min(speed, kind.top_speed)
    script = [(t, min(max(a, kind.accelerations[0]), kind.accelerations[1]), r) for t, a, r in script]
    pieces = tuple(Segment(*piece) for piece in script)
    actor = Actor("scripted", 0.0, 0.0, speed=speed, form=form, script=pieces, trigger=Trigger(time=begins))
    table = np.array(table) + 1e-3
    after = Disturbances(interval, {0: table}).of(case_with(actor)).actors[0]
    assert after.trigger == Trigger(time=0.0)
    now, v, undisturbed = 0.0, speed, ((begins, 0.0, 0.0), *script) if script else ()
    for piece in after.script[:-1]:
        ends, own = 0.0, (0.0, 0.0) if not undisturbed else undisturbed[-1][1:]
        for lasts, *values in undisturbed[:-1]:
            ends += lasts
            if now + 0.5 * piece.duration < ends:
                own = values
                break
        least, most = kind.accelerations
        assert least - 1e-9 <= piece.acceleration <= most + 1e-9
        end = max(v + piece.acceleration * piece.duration, 0.0)
        assert end <= max(kind.top_speed, v) + 1e-6 or piece.acceleration <= own[0] + 1e-9
        aside = abs(piece.lateral_speed - own[1])
        assert aside <= kind.most[1] + 1e-9 and aside <= kind.slip * min(v, end) + 1e-6
        now, v = now + piece.duration, min(end, 40.0)
    assert now >= len(table) * interval - 1e-6


# --- likelihood -------------------------------------------------------------------------------------------------------


def test_the_likelihood_is_that_of_independent_normals():
    walker = Actor("scripted", 250.0, 9.0, -math.pi / 2, 1.4, form="person", size=(0.5, 0.6, 1.7))
    each = Sequences(case_with(robot(300.0, 3.5, 10.0), standing(400.0, 3.5), walker, duration=3.0), 1.0)
    assert each.shape == (2, 3, 2) and each.dimension == 12
    found = each.at(np.random.default_rng(0).standard_normal(12))
    assert set(found.actors) == {0, 2}
    truth = 0.0
    for number, deviations in ((0, (1.0, 0.3)), (2, (0.3, 0.2))):
        prior = Normal(torch.zeros(2), torch.tensor(deviations))
        truth += float((prior.log_prob(torch.tensor(found.actors[number])) - prior.log_prob(torch.zeros(2))).sum())
    assert each.log_likelihood(found) == pytest.approx(truth, rel=1e-6)
    assert each.most[:4] == pytest.approx([8.0, 1.0 / 0.3, 8.0, 1.0 / 0.3])


# --- files ------------------------------------------------------------------------------------------------------------


def test_disturbances_are_read_back_as_they_were():
    (case,) = draw(FAMILIES["cut-in"], 1, 7)
    each = Sequences(case, 0.7)
    found = each.at(np.random.default_rng(0).standard_normal(each.dimension))
    again = Disturbances.read(case, json.loads(json.dumps(found.document())))
    assert again.interval == 0.7
    np.testing.assert_array_equal(again.actors[0], found.actors[0])
    assert again.of(case) == found.of(case)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3, "an interval and tables"),
        ({"interval": 1.0}, "an interval and tables"),
        ({"interval": 0.0, "actors": {}}, "must be above 0 s, not 0"),
        ({"interval": 1.0, "actors": {"1": [[0.0, 0.0]]}}, "actor 1 cannot be disturbed.*: 0"),
        ({"interval": 1.0, "actors": {"0": [[0.0, 0.0, 1.0]]}}, r"needs \[acceleration, lateral speed\]"),
        ({"interval": 1.0, "actors": {"0": [[math.nan, 0.0]]}}, r"needs \[acceleration, lateral speed\]"),
        ({"interval": 1.0, "actors": {"0": [[0.0, 0.0]] * 2000}}, "1000 are the most"),
        ({"interval": 1.0, "actors": {"0": [["a", 0.0]]}}, "an interval and tables"),
    ],
)
def test_what_is_no_disturbance_is_refused(found, message):
    (case,) = draw(FAMILIES["cut-in"], 1, 7)
    with pytest.raises(UserError, match=message):
        Disturbances.read(case, found)


@pytest.mark.parametrize("interval", [0.0, -1.0, math.inf, math.nan, 1e-6])
def test_impossible_intervals_are_refused(interval):
    (case,) = draw(FAMILIES["cut-in"], 1, 7)
    with pytest.raises(UserError, match="an interval of"):
        Sequences(case, interval)
