"""Rule-based drivers on staged cases, and their laws on scenes made by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from agents import policies, rss
from agents.reference_drivers import DRIVERS, EGO_LENGTH
from agents.shield import Surroundings
from envs.errors import UserError
from envs.scenarios import stage
from envs.scenarios.stage import Actor, Case, Segment, Trigger
from evaluation.recorder import record
from tests.agents.lane_scenes import observe

KMH = 1 / 3.6
ME = (50.0, 3.5)


def case(*actors, speed, number=0, **options):
    return Case(f"test/0-{number:04}", "test", "road", *ME, 0.0, speed, speed, actors=actors, **options)


def drive(spec, *cases):
    """The trajectory of a driver in these cases."""
    staged = stage.of(cases)
    driver = policies.load(spec, staged)
    worlds = envs.make_vec(staged, len(cases), device="cpu", **driver.env_options)
    try:
        return record(worlds, driver, seed=0)
    finally:
        worlds.close()


def standing(gap, speed, number=0):
    """A car that stands `gap` ahead of the ego's front."""
    return case(Actor("still", ME[0] + EGO_LENGTH + gap, ME[1]), speed=speed, number=number, duration=12.0)


def acceleration(spec, obs):
    driver = policies.load(spec, stage.of([standing(100, 10)]))
    action = driver.act(obs)[0]
    assert action[1] == pytest.approx(0.1)
    return 10 * action[0].item()


@pytest.mark.parametrize("name", DRIVERS)
def test_names_are_known_and_drive_staged_cases_only(name):
    driver = policies.load(name, stage.of([standing(50, 10)]))
    assert driver.name == name and isinstance(driver, DRIVERS[name])
    with pytest.raises(UserError, match="staged cases only"):
        policies.load(name, "highway")
    with pytest.raises(UserError, match="surroundings"):
        driver.act({"state": torch.zeros(2, 5, 5)})
    with pytest.raises(UserError, match="careful"):
        policies.load("carefull", "highway")


def test_a_stage_like_another_scenario_has_weaker_brakes():
    driver = policies.load("careful", stage.of([standing(50, 10)], envs.scenarios.get("highway")))
    assert driver.env_options["ego"] == "continuous" and driver.low == -5


@pytest.mark.parametrize("name", DRIVERS)
def test_nobody_brakes_on_an_empty_road_and_everybody_does_for_the_rules(name):
    assert 0 < acceleration(name, observe()) <= 2.01
    assert acceleration(name, observe(wanted=20.0)) == pytest.approx(0, abs=1e-3)
    assert acceleration(name, observe(wanted=20.0, hold=3.0)) == pytest.approx(-3, abs=1e-3)
    # Beside the road, behind, or far away.
    assert acceleration(name, observe((30.0, 7.0, 20.0, 0.0, 0.0, 0), wanted=20.0)) == pytest.approx(0, abs=1e-3)
    assert acceleration(name, observe((-30.0, 0.0, 30.0, 0.0, 0.0, 0), wanted=20.0)) == pytest.approx(0, abs=1e-3)


def test_careful_anticipates():
    still = {"wanted": 20.0}
    beside = acceleration("careful", observe((25.0, 3.5, 14.0, 0.0, 0.0, 0), **still))
    coming = acceleration("careful", observe((25.0, 3.5, 14.0, -0.5, 0.0, 0), **still))
    assert beside == pytest.approx(0, abs=1e-3) and coming < -2
    # A person who will be there with us, who will have gone, who has not come yet, and who might step out.
    meets, gone, early = ((40.0, y, 0.0, -1.4, 0.0, 1) for y in (3.0, -2.6, 9.0))
    assert acceleration("careful", observe(meets, **still)) < -2
    assert acceleration("careful", observe(gone, **still)) == pytest.approx(0, abs=1e-3)
    assert acceleration("careful", observe(early, **still)) == pytest.approx(0, abs=1e-3)
    assert acceleration("careful", observe((30.0, 3.0, 0.0, 0.0, 0.0, 1), **still)) == pytest.approx(-3, abs=1e-3)
    # Cross traffic that can still stop, and that cannot.
    assert acceleration("careful", observe((40.0, 45.0, 0.0, -10.0, 0.0, 0), **still)) == pytest.approx(0, abs=1e-3)
    assert acceleration("careful", observe((40.0, 20.0, 0.0, -10.0, 0.0, 0), **still)) < -3


@pytest.mark.parametrize("name", DRIVERS)
def test_crashes_that_can_be_avoided_are(name):
    """Stopping takes no more than 3 m/s2 after a second. All lanes are blocked."""
    speeds = [k * 10 * KMH for k in range(1, 9)]
    gaps = [4 + v + v**2 / 6 for v in speeds]
    walls = [tuple(Actor("still", ME[0] + EGO_LENGTH + gap, y) for y in (0.0, 3.5, 7.0)) for gap in gaps]
    cases = zip(walls, speeds, strict=True)
    seen = drive(name, *(case(*wall, speed=v, number=k, duration=12.0) for k, (wall, v) in enumerate(cases)))
    assert not seen.hit.any()
    last = seen.speed[:, :, 0].gather(0, (seen.frames - 1)[None])
    assert (last.abs() < 1.0).all()


def test_crashes_that_cannot_be_avoided_happen():
    assert drive("careful", standing(5.0, 25.0)).hit.all()


def test_careful_brakes_no_harder_than_it_has_to():
    """In comfort for what is far away, hard for who walks out of nowhere."""
    child = Actor(
        "scripted", ME[0] + 40, ME[1] + 2.2, -1.57, 1.4, "person", (0.5, 0.5, 1.2),
        waits=True, trigger=Trigger(point=(ME[0] + 40, ME[1]), arrival=2.0),
    )  # fmt: skip
    cutting = Actor("scripted", ME[0] + 25, 0.0, 0.0, 14.0, script=(Segment(1.0), Segment(3.5, 0.0, 1.0), Segment(1.0)))
    seen = drive("careful", standing(120, 20), case(child, speed=14.0, number=1), case(cutting, speed=20.0, number=2))
    assert not seen.hit.any()
    hardest = torch.where(seen.driving, seen.acceleration[..., 0], 0.0).amin(0)
    assert hardest[0] > -3.5 and hardest[1] > -8.01 and -6 < hardest[2] < -1


def test_who_stands_does_not_drive_backwards():
    seen = drive("careful", standing(10, 5.0), standing(3, 1.0, 1))
    assert seen.speed[..., 0].amin() > -0.01


def test_the_human_of_the_regulation_brakes_late():
    """UN R157: .75 s pass from a time to collision of 2 s with who cuts in to the brakes."""
    script = (Segment(3.5, 0.0, 1.0), Segment(1.0))
    seen = drive("cc", case(Actor("scripted", ME[0] + EGO_LENGTH + 45, 0.0, speed=10.0, script=script), speed=20.0))
    gap = seen.x[:, 0, 1] - seen.x[:, 0, 0] - EGO_LENGTH
    closing = seen.speed[:, 0, 0] - seen.speed[:, 0, 1]
    danger = int((gap <= 2 * closing).int().argmax()) * seen.dt
    brakes = int((seen.acceleration[:, 0, 0] < -1).int().argmax()) * seen.dt
    assert 0.7 <= brakes - danger <= 1.1 and not seen.hit.any()


def test_the_regulations_drivers_forget_with_the_episode():
    near = observe((20.0, 0.0, 5.0, 0.0, 0.0, 0))
    driver = policies.load("cc", stage.of([standing(100, 10)]))
    answers = [driver.act(near)[0, 0].item() for _ in range(12)]
    assert answers[0] > -0.1 and answers[-1] < -0.5
    driver.reset(torch.tensor([True]))
    assert driver.act(near)[0, 0].item() == answers[0]
    driver.reset(None)
    assert driver.act(near)[0, 0].item() == answers[0]


@settings(deadline=None, max_examples=2)
@given(st.integers(0, 2**32))
def test_the_rss_driver_survives_a_leader_who_brakes_as_hard_as_one_may(seed):
    """From a safe distance at any speeds, 50 pairs at once."""
    driver, dt = policies.load("rss", stage.of([standing(100, 10)])), 0.1
    draws = torch.rand((3, 50), generator=torch.Generator().manual_seed(seed))
    speed, leader = draws[0] * 40, draws[1] * 40
    gap = rss.longitudinal(speed, leader, rss.AD_RSS) + draws[2] * 30
    one = observe((0.0,) * 6)
    obs = {name: rows.repeat(50, *[1] * (rows.ndim - 1)) for name, rows in one.items()}
    for _ in range(200):
        hardest = torch.minimum(torch.tensor(rss.AD_RSS.brake_max), leader / dt)
        for column, values in ((1, gap + EGO_LENGTH), (3, leader), (5, -hardest)):
            obs["traffic"][:, 0, column] = values
        obs["ego"][:, 0] = speed
        wanted = 10 * driver.act(obs)[:, 0]
        faster, slower = (speed + wanted * dt).clamp(min=0), (leader - hardest * dt).clamp(min=0)
        gap = gap + (leader + slower - speed - faster) / 2 * dt
        speed, leader = faster, slower
        assert (gap > 0).all()
    assert (speed < 0.5).all()


def test_columns_are_read_in_order():
    seen = Surroundings.of(observe((30.0, -3.5, 12.0, 0.7, -1.0, 0)))
    assert seen.present.item() and not seen.person.item() and not seen.in_path.item()
    assert (seen.gap.item(), seen.clearance.item()) == (25.0, 1.5)
    assert seen.approach.item() == pytest.approx(0.7) and seen.own_speed.item() == 20
