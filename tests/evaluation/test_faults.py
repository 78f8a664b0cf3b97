"""Faults of policies and simulators, on fake worlds in which it is known what every episode gives."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from evaluation.faults import rolled
from evaluation.metrics import METRICS
from evaluation.parts import measured

COUNT = 20
# The fixture gives a class, which is as good for one example as for many.
EXAMPLES = settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def worlds_type(make_worlds):
    """Fake worlds that say which episode each one lives."""

    class Numbered(make_worlds):
        single_action_space, ego = spaces.Discrete(5), "policy"

        def _seen(self, obs):
            return obs | {"episode": self.first + torch.arange(self.num_worlds)}

        def reset(self, seed, first_world):
            obs, info = super().reset(seed, first_world)
            self.first_episode, self.taken = first_world, []
            return self._seen(obs), info

        def step(self, actions, on_frame=lambda: None):
            self.taken.append(actions)
            obs, *rest = super().step(actions, on_frame)
            return self._seen(obs), *rest

    return Numbered


class Straight:
    """Drives on, except that `fault(actions, episodes, step)` may say something else."""

    name, env_options = "straight", {}

    def __init__(self, fault=lambda actions, episodes, step: actions):
        self.fault, self.calls = fault, 0

    def act(self, obs):
        self.calls += 1
        self.step += 1
        return self.fault(torch.full((len(obs["episode"]),), 3), obs["episode"], self.step - 1)

    def reset(self, done=None):
        if done is None:
            self.step = 0


def part(worlds_type, policy, count=COUNT):
    return measured(worlds_type, policy, "fake", seed=0, first=0, count=count)


def same(a, b, episodes) -> bool:
    return all(
        np.array_equal(a.values[name][episodes], b.values[name][episodes], equal_nan=True)
        and np.array_equal(a.valid[name][episodes], b.valid[name][episodes])
        for name in METRICS
    )


@EXAMPLES
@given(st.sets(st.integers(0, COUNT - 1)), st.integers(0, 2))
def test_a_policy_that_raises_loses_these_episodes_and_no_other(worlds_type, bad, when):
    def fault(actions, episodes, step):
        if step == when and any(int(episode) in bad for episode in episodes):
            raise ValueError("I cannot\ndrive this")
        return actions

    found, wanted = part(worlds_type, Straight(fault)), part(worlds_type, Straight())
    assert found.status == ["policy raised" if k in bad else "ok" for k in range(COUNT)]
    assert found.errors == ["ValueError: I cannot drive this" if k in bad else "" for k in range(COUNT)]
    assert same(found, wanted, [k for k in range(COUNT) if k not in bad])
    assert not any(valid[sorted(bad)].any() for valid in found.valid.values())


def test_a_policy_that_raises_everywhere_takes_one_step_an_attempt(worlds_type):
    def fault(actions, episodes, step):
        raise RuntimeError

    policy = Straight(fault)
    assert part(worlds_type, policy).status == ["policy raised"] * COUNT
    assert policy.calls == 2 * COUNT - 1


@EXAMPLES
@given(st.sets(st.integers(0, COUNT - 1)), st.sampled_from([math.nan, math.inf]), st.integers(0, 3))
def test_worlds_without_numbers_are_driven_on_idle(worlds_type, bad, nothing, when):
    def fault(actions, episodes, step):
        actions = actions.float()
        if step == when:
            actions[[int(k) in bad for k in episodes]] = nothing
        return actions

    (block,) = rolled(worlds_type, Straight(fault), 0, COUNT, seed=0)
    assert block.faults == {k: ("not finite", f"the policy returned {nothing:g}") for k in bad}
    assert block.lost == set()
    taken = block.trajectory.actions
    for world in range(COUNT):
        for step in range(int(block.trajectory.steps[world])):
            assert taken[step, world] == (1 if world in bad and step >= when else 3)
    found, wanted = part(worlds_type, Straight(fault)), part(worlds_type, Straight())
    assert same(found, wanted, slice(None))  # these worlds do not listen


def test_a_fault_in_the_next_life_of_a_world_is_none(worlds_type):
    def fault(actions, episodes, step):
        return actions.double() * torch.where((episodes == 0) & torch.tensor(step >= 4), math.nan, 1.0)

    (block,) = rolled(worlds_type, Straight(fault), 0, COUNT, seed=0)
    assert block.trajectory.steps[0] == 4 and block.faults == {}


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (lambda n: torch.ones(n + 1, dtype=torch.int64), "shape (2,), where (1,) is right"),
        (lambda n: np.ones((n, 2)), "shape (1, 2), where (1,) is right"),
        (lambda n: "left", "returned a str, no array of actions"),
        (lambda n: None, "returned a NoneType"),
    ],
)
def test_what_is_no_batch_of_actions(worlds_type, returned, says):
    found = part(worlds_type, Straight(lambda actions, episodes, step: returned(len(actions))), count=3)
    assert found.status == ["policy raised"] * 3 and all(says in error for error in found.errors)


@pytest.mark.parametrize("action", [5, -1, 0.5])
def test_actions_that_do_not_exist(worlds_type, action):
    def fault(actions, episodes, step):
        return torch.where(episodes == 2, torch.tensor(action), actions)

    found = part(worlds_type, Straight(fault))
    assert found.status == ["policy raised" if k == 2 else "ok" for k in range(COUNT)]
    assert found.errors[2] == f"the policy returned {action:g}; actions are 0 to 4"
    assert not found.valid["collision"][2] and found.valid["collision"].sum() == COUNT - 1


def test_lists_and_arrays_are_actions(worlds_type):
    wanted = part(worlds_type, Straight())
    for kind in (list, np.asarray, lambda actions: actions.to(torch.int32)):
        found = part(worlds_type, Straight(lambda actions, episodes, step, kind=kind: kind(actions)))
        assert set(found.status) == {"ok"} and same(found, wanted, slice(None))


def test_a_simulator_that_fails(worlds_type):
    class Failing(worlds_type):
        def step(self, actions, on_frame=lambda: None):
            if self.first_episode <= 7 < self.first_episode + self.num_worlds:
                raise RuntimeError("kernel launch failed")
            result = super().step(actions, on_frame)
            if self.first_episode <= 11 < self.first_episode + self.num_worlds:
                self.state.speed[11 - self.first_episode, 1] = math.nan  # and from the next step on its place
            return result

    found, wanted = part(Failing, Straight()), part(worlds_type, Straight())
    broken = {7: "RuntimeError: kernel launch failed", 11: "the x of vehicle 1 is nan at 1.20 s"}
    assert found.status == ["simulator failed" if k in broken else "ok" for k in range(COUNT)]
    assert all(broken.get(k, "") in found.errors[k] for k in range(COUNT))
    assert same(found, wanted, [k for k in range(COUNT) if k not in broken])
    assert not any(valid[[7, 11]].any() for valid in found.valid.values())


def test_what_no_episode_is_to_blame_for_ends_it(worlds_type):
    def fault(actions, episodes, step):
        raise UserError("these worlds have no camera")

    with pytest.raises(UserError, match="no camera"):
        part(worlds_type, Straight(fault))
