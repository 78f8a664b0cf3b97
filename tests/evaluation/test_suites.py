"""Suites of staged cases: draws by their id, and conflicts that come about for an ego that holds its speed.

The conflicts are found by moving boxes here, in closed form and without the simulator; a last test lives all families
in real worlds.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.errors import UserError
from envs.physics.idm import DriverModel
from envs.scenarios import stage
from evaluation import suites
from evaluation.suites import base, lane_changes

SEED = 1_000_000
TICK = 0.002  # s
EGO = (5.0, 2.0)  # m
# Whatever their parameters, an ego that holds its speed and lane collides.
ALWAYS = (
    "ccr-stationary", "ccr-moving", "ccr-braking", "lead-stop", "cut-out", "partial-blocker", "dense-lane-change",
    "ramp-merge", "slow-merge", "ccf-turn-across-path", "ccc-straight-crossing-path", "red-light-runner",
    "cp-near-side", "cp-far-side", "cp-hidden-child", "turning-pedestrian", "blocked-lane",
)  # fmt: skip
NEVER = ("swerving-lead", "amber-dilemma")


def cases(name: str, count: int = 40) -> list[stage.Case]:
    return suites.draw(suites.FAMILIES[name], count, SEED)


# --- moving boxes -----------------------------------------------------------------------------------------------------


def ego_path(case: stage.Case, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and heading at constant speed: straight on, but for turns at the map "crossing", arcs from y = 11."""
    s = case.speed * times
    if case.map != "crossing" or case.destination == "o2":
        return case.x + s * math.cos(case.heading), case.y + s * math.sin(case.heading), np.full_like(s, case.heading)
    right = case.destination == "o3"
    radius, side = (9.0, 1.0) if right else (13.0, -1.0)
    before = case.y - 11.0
    angle = np.clip((s - before) / radius, 0.0, math.pi / 2)
    after = np.maximum(s - before - radius * math.pi / 2, 0.0)
    x = 2.0 + side * (radius * (1 - np.cos(angle)) + after)
    y = case.y - np.minimum(s, before) - radius * np.sin(angle)
    return x, y, -math.pi / 2 + side * angle


def actor_path(actor: stage.Actor, times: np.ndarray, ego: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and heading of a scripted actor; the first instant at which its trigger holds is found by looking."""
    trigger = actor.trigger
    away = np.hypot(ego[0] - trigger.point[0], ego[1] - trigger.point[1])
    speed = np.gradient(np.hypot(ego[0] - ego[0][0], ego[1] - ego[1][0]), times).max()
    holds = (times >= trigger.time) | (away <= trigger.arrival * speed)
    begins = times[np.argmax(holds)] if holds.any() else math.inf
    along, across = np.zeros_like(times), np.zeros_like(times)
    v = 0.0 if actor.waits else actor.speed
    for k, now in enumerate(times[:-1]):
        a = r = 0.0
        if now >= begins:
            v = actor.speed if actor.waits and v == 0.0 else v
            left = now - begins
            for segment in actor.script:
                a, r = segment.acceleration, segment.lateral_speed
                if left < segment.duration:
                    break
                left -= segment.duration
        along[k + 1] = along[k] + max(v + a * TICK / 2, 0.0) * TICK
        across[k + 1] = across[k] + r * TICK
        v = max(v + a * TICK, 0.0)
    c, s = math.cos(actor.heading), math.sin(actor.heading)
    heading = actor.heading + np.arctan2(np.gradient(across, times), np.maximum(np.gradient(along, times), 1e-9))
    return actor.x + along * c - across * s, actor.y + along * s + across * c, heading


def overlaps(one: tuple, size_one: tuple, two: tuple, size_two: tuple) -> np.ndarray:
    """Where two boxes overlap: none of their axes separates them."""
    result = np.ones_like(one[0], dtype=bool)
    dx, dy = two[0] - one[0], two[1] - one[1]
    for axis in (one[2], one[2] + math.pi / 2, two[2], two[2] + math.pi / 2):
        reach = 0.0
        for (_, _, heading), (length, width) in ((one, size_one[:2]), (two, size_two[:2])):
            reach = reach + np.abs(np.cos(heading - axis)) * length / 2 + np.abs(np.sin(heading - axis)) * width / 2
        result &= np.abs(dx * np.cos(axis) + dy * np.sin(axis)) < reach
    return result


def contact(case: stage.Case, which: int) -> tuple[float, tuple, tuple]:
    """When the ego first touches an actor (inf for never), and where both are then."""
    times = np.arange(0.0, case.duration, TICK)
    ego = ego_path(case, times)
    actor = case.actors[which]
    other = actor_path(actor, times, ego)
    hit = overlaps(ego, EGO, other, actor.size)
    if not hit.any():
        return math.inf, (), ()
    k = int(np.argmax(hit))
    return float(times[k]), tuple(each[k] for each in ego), tuple(each[k] for each in other)


# --- draws ------------------------------------------------------------------------------------------------------------


@given(name=st.sampled_from(sorted(suites.FAMILIES)), seed=st.integers(0, 2**40), number=st.integers(0, 20_000))
@settings(max_examples=150, deadline=None)
def test_a_case_is_made_again_from_its_id_and_lies_in_the_ranges(name, seed, number):
    family = suites.FAMILIES[name]
    case = base.drawn(family, seed, number)
    assert case.id == f"{name}/{seed}-{number:04d}"
    again = suites.case(case.id)
    assert again == case and again.parameters == case.parameters
    assert case.parameters.keys() == family.parameters.keys()
    for parameter, value in case.parameters.items():
        assert value in family.parameters[parameter]
    assert family.valid(case.parameters)


def test_a_longer_list_begins_with_the_shorter_one():
    family = suites.FAMILIES["cut-in"]
    assert suites.draw(family, 30, 7)[:11] == suites.draw(family, 11, 7)
    assert suites.draw(family, 5, 7) != suites.draw(family, 5, 8)


def test_ids_name_the_same_case_for_ever():
    assert suites.case("cut-in/1000000-0042").parameters == pytest.approx(
        {"speed": 46.830724, "other_speed": 12.076591, "gap": 15.015301, "lateral_speed": 1.174392, "side": 1.000000},
        abs=1e-5,
    )


@given(low=st.floats(-100, 100), width=st.floats(0, 50), share=st.floats(0, 1, exclude_max=True))
def test_a_range_holds_what_is_drawn_from_it(low, width, share):
    every = base.Range(low, low + width)
    assert every.at(share) in every or every.at(share) == pytest.approx(low + width)
    steps = base.Range(low, low + width, step=3.0)
    assert steps.at(share) in steps


def test_steps_are_equally_likely_and_include_both_ends():
    values = [base.Range(-50.0, 50.0, step=25.0).at((k + 0.5) / 5) for k in range(5)]
    assert values == [-50.0, -25.0, 0.0, 25.0, 50.0]


@pytest.mark.parametrize("name", suites.FAMILIES)
def test_every_family_makes_cases_that_can_be_staged(name):
    made = cases(name, 200)
    assert len({case.id for case in made}) == 200
    assert all(re.fullmatch(r"[a-z0-9-]+/\d+-\d{4}", case.id) and case.family == name for case in made)
    # Raises for actors that overlap at the start, stand beside the map or have no way to where they go.
    stage.of(made)


def test_suites_name_families():
    assert len(suites.FAMILIES) == 24 and set(suites.SUITES["all"]) == set(suites.FAMILIES)
    for names in suites.SUITES.values():
        assert set(names) <= set(suites.FAMILIES) and len(set(names)) == len(names)
    assert len(suites.SUITES["ncap"]) == 8
    drawn = suites.suite("signals", 3, 5)
    assert [case.id for case in drawn[:3]] == [f"red-light-runner/5-{k:04d}" for k in range(3)] and len(drawn) == 6


@pytest.mark.parametrize("id", ["cut-in", "cut-in/1-42", "cut-in/-1-0042", "cut-in/1-0042/", "../1-0042", ""])
def test_what_is_no_id_is_refused(id):
    with pytest.raises(UserError, match="no id of a case"):
        suites.case(id)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="did you mean 'cut-in'"):
        suites.case("cut-inn/1-0042")
    with pytest.raises(UserError, match="did you mean 'ncap'"):
        suites.suite("nncap", 1, 1)


def test_a_family_without_valid_parameters_says_so():
    family = base.Family("none", "", "", {"a": base.Range(0.0, 1.0)}, None, lambda parameters: False)
    with pytest.raises(UserError, match="'none' has hardly any valid parameters"):
        base.drawn(family, 1, 0)


def test_the_manual_lists_every_family():
    text = (Path(__file__).parents[2] / "docs" / "suites.md").read_text()
    for name, family in suites.FAMILIES.items():
        assert f"`{name}`" in text
        assert all(f"`{parameter}`" in text for parameter in family.parameters)


# --- conflicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, time", [("ccr-stationary", 4.0), ("ccr-moving", 4.0), ("partial-blocker", 6.0)]
)  # fmt: skip
def test_time_to_collision_at_the_start(name, time):
    for case in cases(name, 10):
        assert contact(case, 0)[0] == pytest.approx(time, abs=3 * TICK)


def test_overlaps_are_those_of_the_protocol():
    offsets = sorted({round(case.actors[0].y - case.y, 6) for case in cases("ccr-stationary", 60)})
    # 2 m wide cars that overlap by 50, 75, 100, 75 and 50 %.
    assert offsets == [-1.0, -0.5, 0.0, 0.5, 1.0]


@pytest.mark.parametrize("name, fixed", [("ccr-braking", None), ("lead-stop", 6.0)])
def test_the_ego_runs_into_a_braking_car_when_the_gap_is_used_up(name, fixed):
    for case in cases(name, 10):
        braking = fixed or case.parameters["deceleration"]
        gap = case.actors[0].x - case.x - 5.0
        expected = case.parameters.get("gap") or case.parameters["headway"] * case.speed
        assert gap == pytest.approx(expected)
        # After 1 s the gap shrinks by b t^2 / 2 until the other stands, then with the ego's speed.
        time, stop = math.sqrt(2 * gap / braking), case.speed / braking
        if time > stop:
            time = stop + (gap - braking * stop**2 / 2) / case.speed
        assert contact(case, 0)[0] == pytest.approx(1.0 + time, abs=0.01)


@pytest.mark.parametrize("name", ["cut-in", "cut-in-fast"])
def test_a_car_cuts_in_at_the_gap_and_ends_in_the_egos_lane(name):
    hits = 0
    for case in cases(name, 20):
        (actor,), gap = case.actors, case.parameters["gap"]
        approach = case.speed - actor.speed
        begins, (change, _) = actor.trigger.time, actor.script
        assert actor.x - case.x - 5.0 - approach * begins == pytest.approx(gap)
        assert actor.y + change.duration * change.lateral_speed == pytest.approx(case.y)
        # It gets there ahead of the ego, which reaches it when the gap is used up: no blow from the side.
        time, _, there = contact(case, 0)
        if time < math.inf:
            hits += 1
            assert there[0] - case.x - case.speed * time > 4.0
        assert time == pytest.approx(begins + gap / approach, abs=0.4) or begins + gap / approach > case.duration - 0.4
    assert hits > 5


def test_a_car_cuts_out_without_touching_the_blocker_which_the_ego_hits():
    for case in cases("cut-out", 20):
        lead, blocker = case.actors
        begins = lead.trigger.time
        assert blocker.x - lead.x - lead.speed * begins - 5.0 == pytest.approx(case.parameters["distance"])
        times = np.arange(0.0, case.duration, TICK)
        ego = ego_path(case, times)
        paths = [actor_path(actor, times, ego) for actor in case.actors]
        assert not overlaps(paths[0], lead.size, paths[1], blocker.size).any()
        assert contact(case, 0)[0] == math.inf
        assert contact(case, 1)[0] == pytest.approx((blocker.x - 5.0 - case.x) / case.speed, abs=0.01)


def test_a_swerving_car_goes_as_far_to_either_side_as_it_should():
    for case in cases("swerving-lead", 5):
        times = np.arange(0.0, case.duration, TICK)
        y = actor_path(case.actors[0], times, ego_path(case, times))[1] - case.y
        amplitude = case.parameters["amplitude"]
        assert (y.min(), y.max(), y[-1]) == pytest.approx((-amplitude, amplitude, 0.0), abs=0.01)


@pytest.mark.parametrize("name", ["ccc-straight-crossing-path", "red-light-runner"])
def test_the_ego_hits_the_middle_of_the_side_of_who_crosses(name):
    for case in cases(name, 10):
        time, ego, other = contact(case, 0)
        assert time == pytest.approx(5.0, abs=3 * TICK)
        assert other[0] == pytest.approx(ego[0], abs=0.05)
        assert other[1] == pytest.approx(2.0 if case.parameters["side"] < 0 else -2.0)


def test_a_left_turn_meets_the_oncoming_car():
    for case in cases("ccf-turn-across-path", 10):
        # Where both ways cross, after 6 s.
        x, y, _ = (float(each[0]) for each in ego_path(case, np.array([6.0])))
        oncoming = case.actors[0]
        assert (x, y) == pytest.approx((oncoming.x, oncoming.y + 6.0 * oncoming.speed))
        assert 5.0 < contact(case, 0)[0] < 6.0


def share_of_width(case: stage.Case, ego: tuple, person: tuple, direction: float) -> float:
    """How far across the ego's front a person is, in % from the side that they come from."""
    right = -(person[0] - ego[0]) * math.sin(ego[2]) + (person[1] - ego[1]) * math.cos(ego[2])
    return 100.0 * (0.5 - direction * right / EGO[1])


@pytest.mark.parametrize("name, direction", [("cp-near-side", 1.0), ("cp-far-side", -1.0), ("cp-hidden-child", 1.0)])
def test_people_are_hit_at_the_share_of_the_egos_width(name, direction):
    for case in cases(name, 8):
        time, ego, person = contact(case, 0)
        assert share_of_width(case, ego, person, direction) == pytest.approx(case.parameters["share"], abs=1.0)
        assert person[0] - ego[0] == pytest.approx(2.5 + case.actors[0].size[1] / 2, abs=2 * case.speed * TICK)
        assert all(contact(case, k)[0] == math.inf for k in range(1, len(case.actors))) and time > 1.5


def test_people_behind_a_turn_are_hit_at_the_share_of_the_egos_width():
    seen = set()
    for case in cases("turning-pedestrian", 16):
        _, ego, person = contact(case, 0)
        side, turn = case.parameters["side"], case.parameters["turn"]
        assert share_of_width(case, ego, person, side) == pytest.approx(case.parameters["share"], abs=2.0)
        assert math.copysign(1.0, person[0]) == turn
        seen.add((side, turn))
    assert len(seen) == 4


def test_a_hidden_child_is_behind_the_parked_cars():
    for case in cases("cp-hidden-child", 5):
        child, *parked = case.actors
        for car in parked:
            assert car.x + car.size[0] / 2 < child.x
        # Seen from the ego's middle at the start, the child is behind the nearer of them.
        near = max(parked, key=lambda car: car.x)
        slope = (child.y - case.y) / (child.x - case.x)
        at_car = case.y + slope * (near.x - case.x)
        assert abs(at_car - near.y) < near.size[1] / 2


def test_the_light_turns_amber_the_given_time_before_the_line():
    for case in cases("amber-dilemma", 10):
        front = case.y - 2.5 - case.speed * case.parameters["time_to_line"]
        assert (front - 16.0) / case.speed == pytest.approx(12.0 - case.phase_time)
        assert case.phase == 0


@pytest.mark.parametrize("name", ["ramp-merge", "slow-merge"])
def test_the_ego_meets_the_gap_where_the_lanes_join(name):
    for case in cases(name, 30):
        cars = sorted((actor for actor in case.actors if actor.form == "car"), key=lambda actor: actor.x)
        speed, gap = cars[0].speed, case.parameters["gap"] * cars[0].speed
        spacings = {round(b.x - a.x - 5.0, 6) for a, b in zip(cars, cars[1:], strict=False)}
        assert spacings == {round(gap, 6)}
        # When a car at the ego's speed along x is at x = 250.
        there = [car.x + speed * 100.0 / case.speed for car in cars]
        middle = 250.0 + case.parameters["phase"] * (gap + 5.0) / 2
        assert min(abs((a + b) / 2 - middle) for a, b in zip(there, there[1:], strict=False)) < 1e-6


def test_dense_traffic_keeps_its_speed_by_the_law_of_following():
    model = DriverModel()
    for speed in (5.0, 10.0, 14.0):
        distance = lane_changes.settled_spacing(speed, 1.3 * speed)
        wanted = model.jam_distance + model.headway * speed
        assert 1.0 - (1 / 1.3) ** 4 - (wanted / distance) ** 2 == pytest.approx(0.0, abs=1e-9)


# --- real worlds ------------------------------------------------------------------------------------------------------


def test_all_families_live_in_one_batch_of_worlds():
    drawn = suites.suite("all", 2, SEED)
    worlds = envs.make_vec(
        stage.of(drawn), num_worlds=len(drawn), observation="state", ego="continuous", device="cpu", seed=SEED
    )  # fmt: skip
    obs, _ = worlds.reset(seed=SEED)
    crashed = torch.zeros(len(drawn), dtype=torch.bool)
    running = torch.ones(len(drawn), dtype=torch.bool)
    for _ in range(round(max(case.duration for case in drawn) * worlds.scenario.policy_frequency) + 1):
        # Neither brakes nor accelerates, and keeps to its way.
        action = torch.stack((torch.zeros(len(drawn)), obs["ego"][:, 5]), dim=1)
        obs, _, terminated, truncated, _ = worlds.step(action)
        crashed |= running & (worlds.state.ego_crashed > 0)
        running &= ~(terminated | truncated)
        if not running.any():
            break
    worlds.close()
    by_family = {name: crashed[[case.family == name for case in drawn]] for name in suites.FAMILIES}
    assert not running.any()
    assert all(by_family[name].all() for name in ALWAYS), [name for name in ALWAYS if not by_family[name].all()]
    assert not any(by_family[name].any() for name in NEVER)
