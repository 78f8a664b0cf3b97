"""RSS's proper response, and policies behind it."""

import pytest
import torch

import envs
from agents import policies, rss, shield
from agents.drivers import RandomDriver, action_space
from agents.shield import Shield, Surroundings, respond
from envs.errors import UserError
from envs.scenarios import stage
from envs.scenarios.stage import Actor, Case
from evaluation.recorder import record


def response(*others, speed=20.0, sideways=0.0, p=rss.R157):
    """To others as (along, across, speed along, speed across, kind)."""
    rows = [(1.0, x, y, v, u, 0.0, 5.0, 2.0, kind, 0.0) for x, y, v, u, kind in others]
    ego = (speed, 0.0, 20.0, 0.0, sideways, 0.0, 0.0, 30.0)
    obs = {"surroundings": torch.tensor([rows]), "ego": torch.tensor([ego])}
    return respond(Surroundings.of(obs), p)


def braking(*others, **options):
    return response(*others, **options).braking.item()


def test_braking_begins_at_the_safe_distance():
    # Both at 20 m/s: 15 + .84375 + 22.25^2 / 12 - 400 / 12 m between bumpers, 5 m more between centres.
    safe = 15 + 0.84375 + 22.25**2 / 12 - 400 / 12
    assert braking((safe + 5.01, 0.0, 20.0, 0.0, 0)) == 0
    assert braking((safe + 4.99, 0.0, 20.0, 0.0, 0)) == rss.R157.brake_min
    assert braking((-safe - 4.0, 0.0, 20.0, 0.0, 0)) == 0  # its duty, not ours
    # As hard as it takes, up to the hardest.
    assert braking((45.0, 0.0, 0.0, 0.0, 0), p=rss.AD_RSS) == pytest.approx(400 / 80)
    assert braking((10.0, 0.0, 0.0, 0.0, 0), p=rss.AD_RSS) == rss.AD_RSS.brake_max


def test_beside_us_only_those_count_who_come_near():
    assert braking((20.0, 4.0, 10.0, 0.0, 0), p=rss.AD_RSS) == 0
    assert braking((20.0, 4.0, 10.0, -1.0, 0), p=rss.AD_RSS) > 0
    assert braking((20.0, 4.0, 10.0, 1.0, 0), p=rss.AD_RSS) == 0
    assert braking((20.0, 4.0, 10.0, 0.0, 0), sideways=1.0, p=rss.AD_RSS) > 0
    # A person who walks towards our way, and one who walks along it.
    assert braking((20.0, 3.5, 0.0, -1.4, 1), p=rss.AD_RSS) > 0
    assert braking((20.0, 3.5, 1.4, 0.0, 1), p=rss.AD_RSS) == 0


def test_oncoming_traffic_is_met_earlier():
    far = rss.opposite(torch.tensor(20.0), torch.tensor(15.0), rss.R157).item()
    assert braking((far + 4.9, 0.0, -15.0, 0.0, 0)) > 0
    assert braking((far + 5.1, 0.0, -15.0, 0.0, 0)) == 0
    assert braking((30.0, -3.5, -15.0, 0.0, 0), p=rss.AD_RSS) == 0


def test_cross_traffic_counts_when_it_can_no_longer_stop():
    # From 10 m/s with 4 m/s2 in 12.5 m, beside half the widths and the margin.
    assert braking((25.0, -2 - 12.5 - 0.2, 0.0, 10.0, 0), p=rss.AD_RSS) == 0
    assert braking((25.0, -2 - 12.5 + 0.0, 0.0, 10.0, 0), p=rss.AD_RSS) > 0


def test_sideways_motion_towards_danger_is_barred():
    beside = response((2.0, 2.2, 20.0, 0.0, 0))
    assert beside.right.item() and not beside.left.item()
    assert beside.change_right.item() and not beside.change_left.item()
    behind = response((-12.0, -4.0, 25.0, 0.0, 0))
    assert behind.change_left.item() and not behind.left.item() and behind.braking.item() == 0
    assert not response((-80.0, -4.0, 25.0, 0.0, 0)).change_left.item()
    ahead = response((15.0, 0.0, 20.0, 0.0, 0))
    assert not (ahead.change_left.item() or ahead.change_right.item())


class Always:
    """One action for ever."""

    name, env_options = "always", {"observation": "state"}

    def __init__(self, action):
        self.action = action

    def act(self, obs):
        return self.action.expand(len(next(iter(obs.values()))), *self.action.shape).clone()

    def explain(self, obs):
        return None

    def reset(self, done=None):
        pass


FASTER, IDLE, SLOWER = (torch.tensor(k) for k in (3, 1, 4))


def run(policy, scenario, count, seed=1_000_000):
    worlds = envs.make_vec(scenario, count, device="cpu", **policy.env_options)
    try:
        return record(worlds, policy, seed)
    finally:
        worlds.close()


@pytest.mark.parametrize("name", ["random", "faster"])
def test_a_reckless_policy_no_longer_crashes_into_others(name):
    def make():
        if name == "faster":
            return Always(FASTER)
        return RandomDriver(action_space(envs.scenarios.get("highway-fast")))

    bare = run(make(), "highway-fast", 12)
    shielded = Shield(make())
    saved = run(shielded, "highway-fast", 12)
    assert bare.hit.sum() >= 6 and saved.hit.sum() <= 1
    assert ((shielded.interventions > 0) & (shielded.interventions <= 1)).all()


def test_nothing_changes_where_nothing_is_in_the_way():
    empty = stage.of([Case("test/0-0", "test", "road", 50.0, 3.5, 0.0, 10.0, 10.0, duration=5.0)])
    for shape in (torch.tensor([0.1, 0.0]), torch.tensor([-0.05, 0.01])):
        bare, shielded = Always(shape), Shield(Always(shape))
        assert torch.equal(run(bare, empty, 1).x, run(shielded, empty, 1).x)
        assert shielded.interventions.item() == 0


def staged(gap, speed, like=None, leader=0.0):
    car = Actor("scripted", 50.0 + 5 + gap, 3.5, speed=leader)
    return stage.of(
        [Case("test/0-0", "test", "road", 50.0, 3.5, 0.0, speed, speed, actors=(car,), duration=14.0)], like
    )


@pytest.mark.parametrize("like", [None, "highway"])
def test_it_stops_for_a_standing_car_and_stays_there(like):
    scenario = staged(60, 15.0, like and envs.scenarios.get(like))
    blind = FASTER if like else torch.tensor([0.2, 0.0])
    assert run(Always(blind), scenario, 1).hit.all()
    seen = run(Shield(Always(blind)), scenario, 1)
    assert not seen.hit.any()
    last = int(seen.frames[0]) - 1
    assert abs(seen.speed[last, 0, 0]) < 0.7 and seen.x[last, 0, 0] < 110 and seen.speed[..., 0].min() > -0.05


def test_the_policy_gets_its_own_target_speed_back():
    """Behind somebody who drives away there is danger for a while only."""
    scenario = staged(20, 20.0, envs.scenarios.get("highway"), leader=30.0)
    worlds = envs.make_vec(scenario, 1, device="cpu", observation="state")
    driver = Shield(Always(IDLE))
    obs, _ = worlds.reset(seed=0)
    driver.reset(None)
    driver.on_frame(worlds)
    target, targets = worlds.state.target_speed[0, 0].item(), []

    def on_frame():
        driver.on_frame(worlds)
        targets.append(worlds.state.target_speed[0, 0].item())

    for _ in range(8):
        obs, *_ = worlds.step(driver.act(obs), on_frame=on_frame)
        driver.reset(torch.tensor([False]))
    worlds.close()
    assert min(targets) < target and targets[-1] == target == 20
    assert 0 < driver.interventions.item() < 1


def test_what_cannot_be_shielded():
    with pytest.raises(UserError, match="actions"):
        Shield(policies.load("idm", "highway"))
    with pytest.raises(RuntimeError, match="on_frame"):
        Shield(Always(IDLE)).act({"state": torch.zeros(1, 5, 5)})
    with pytest.raises(UserError, match="rss"):
        shield.around(Always(IDLE), "rsss")
    worlds = envs.make_vec("roundabout", 1, device="cpu", observation="state")
    with pytest.raises(UserError, match="staged"):
        Shield(Always(IDLE)).on_frame(worlds)
    worlds.close()
    assert shield.around(Always(IDLE), "rss-r157").parameters == rss.R157
