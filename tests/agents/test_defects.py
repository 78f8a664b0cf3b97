"""Defects do what they say, and nothing else."""

import pytest
import torch

import envs
from agents import defects, policies
from envs.errors import UserError
from envs.scenarios import stage
from envs.scenarios.stage import Case
from evaluation.recorder import record

STEP = 0.1


class Scripted:
    """Plays a list of throttles."""

    name, step = "scripted", STEP
    env_options = {"observation": "state"}

    def __init__(self, *throttles):
        self.throttles = iter(throttles)
        self.holds = []

    def throttle(self, acceleration, speed):
        return torch.maximum(acceleration, -speed / STEP) / 10

    def act(self, obs):
        self.holds.append(obs["ego"][0, 6].item())
        return torch.tensor([[next(self.throttles), 0.2]])

    def reset(self, done=None):
        pass


def ego(speed=20.0, hold=0.0):
    return {"ego": torch.tensor([[speed, 0.0, 20.0, 0.0, 0.0, 0.0, hold, 30.0]])}


def played(defect, count, **options):
    return [round(defect.act(ego(**options))[0, 0].item(), 3) for _ in range(count)]


def test_late_brakes_come_on_and_go_off_late():
    wanted = [0.1, -0.3, -0.4, 0.2, 0.2, 0.2, 0.2, 0.2]
    late = defects.Late(Scripted(*wanted), 0.3)
    assert played(late, 8) == [0.1, 0, 0, 0.2, -0.3, -0.4, 0.2, 0.2]
    late = defects.Late(Scripted(-1.0, -1.0, 0.5, 0.5), 0.1)
    played(late, 2)
    late.reset(torch.tensor([True]))
    assert played(late, 1) == [0.5]


def test_late_brakes_stop_at_a_standstill():
    late = defects.Late(Scripted(-1.0, 0.0), 0.1)
    late.act(ego())
    assert late.act(ego(speed=0.2))[0, 0].item() == pytest.approx(-0.2)


def test_amber_is_ignored_for_as_long_as_it_lasts():
    driver = Scripted(*[0.0] * 50)
    ignoring = defects.IgnoresAmber(driver, 0.5)
    played(ignoring, 2)
    played(ignoring, 8, hold=2.0)
    assert driver.holds == [0] * 2 + [0] * 5 + [2.0] * 3
    ignoring.reset(torch.tensor([True]))
    played(ignoring, 1, hold=2.0)
    assert driver.holds[-1] == 0
    # Who waits at it does not start on amber.
    played(defects.IgnoresAmber(driver, 0.5), 1, hold=2.0, speed=0.0)
    assert driver.holds[-1] == 2.0


@pytest.mark.parametrize("metres", [0.5, -0.5])
def test_drifting_keeps_beside_the_middle_at_any_speed(metres):
    cases = [Case(f"test/0-{k}", "test", "road", 50.0, 3.5, 0.0, v, v) for k, v in enumerate((2.0, 8.0, 30.0))]
    staged = stage.of(cases)
    driver = defects.Drifting(policies.load("careful", staged), metres)
    worlds = envs.make_vec(staged, len(cases), device="cpu", **driver.env_options)
    seen = record(worlds, driver, seed=0)
    worlds.close()
    settled = seen.y[200:, :, 0] - 3.5
    torch.testing.assert_close(settled, torch.full_like(settled, metres), atol=0.03, rtol=0)


def test_defects_by_name():
    staged = stage.of([Case("test/0-0", "test", "road", 50.0, 3.5, 0.0, 10.0, 10.0)])
    both = policies.load("careful+late+drifting", staged)
    assert both.name == "careful+late+drifting"
    assert isinstance(both, defects.Drifting) and isinstance(both.driver, defects.Late)
    assert both.env_options == both.driver.driver.env_options
    assert isinstance(policies.load("rss+ignores-amber", staged), defects.IgnoresAmber)
    with pytest.raises(UserError, match="drifting"):
        policies.load("careful+driftin", staged)
