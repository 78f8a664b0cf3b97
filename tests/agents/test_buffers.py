"""The device rollout buffer against stable-baselines3's."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer as HostBuffer

from agents.buffers import RolloutBuffer

STEPS, WORLDS = 7, 3


@pytest.fixture
def pair():
    """The same random rollout in our buffer and in stable-baselines3's."""
    rng = np.random.default_rng(0)
    space, actions = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(5)
    ours = RolloutBuffer(STEPS, space, actions, "cpu", gae_lambda=0.9, gamma=0.97, n_envs=WORLDS)
    theirs = HostBuffer(STEPS, space, actions, "cpu", gae_lambda=0.9, gamma=0.97, n_envs=WORLDS)
    starts = np.ones(WORLDS)
    for _ in range(STEPS):
        obs = rng.normal(size=(WORLDS, 4)).astype(np.float32)
        action = rng.integers(5, size=WORLDS)
        reward, value, log_prob = rng.normal(size=(3, WORLDS)).astype(np.float32)
        done = rng.random(WORLDS) < 0.3
        ours.add_decision(torch.tensor(obs), torch.tensor(action), torch.tensor(value), torch.tensor(log_prob))
        ours.add_outcome(torch.tensor(reward), torch.tensor(done))
        theirs.add(obs, action.reshape(-1, 1), reward, starts, torch.tensor(value), torch.tensor(log_prob))
        starts = done
    last_values = torch.tensor(rng.normal(size=WORLDS), dtype=torch.float32)
    ours.compute_returns_and_advantage(last_values)
    theirs.compute_returns_and_advantage(last_values, done)
    return ours, theirs


def test_advantages_equal_stable_baselines3(pair):
    ours, theirs = pair
    assert ours.dones.any()
    np.testing.assert_allclose(ours.advantages, theirs.advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.returns, theirs.returns, rtol=1e-5, atol=1e-6)


def test_advantage_of_one_long_episode_is_the_discounted_sum():
    """With lambda 1 and no values, the advantage is the discounted sum of rewards up to the end of the episode."""
    buffer = RolloutBuffer(4, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", gae_lambda=1.0, gamma=0.5)
    for step, reward in enumerate([1.0, 2.0, 4.0, 8.0]):
        buffer.add_decision(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1), torch.zeros(1))
        buffer.add_outcome(torch.tensor([reward]), torch.tensor([step == 1]))
    buffer.compute_returns_and_advantage(torch.tensor([16.0]))
    assert buffer.advantages.flatten().tolist() == [2.0, 2.0, 12.0, 16.0]


def test_minibatches_visit_every_step_once(pair):
    ours, _ = pair
    batches = list(ours.get(4))
    assert [len(batch.actions) for batch in batches] == [4, 4, 4, 4, 4, 1]
    seen = torch.cat([batch.returns for batch in batches])
    assert sorted(seen.tolist()) == sorted(ours.returns.flatten().tolist())
    for batch in batches:  # rows stay together
        for row in range(len(batch.actions)):
            step, world = (ours.returns == batch.returns[row]).nonzero()[0].tolist()
            assert batch.actions[row] == ours.actions[step, world]
            torch.testing.assert_close(batch.observations[row], ours.observations[step, world])


def test_small_types_are_stored_as_they_come():
    space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (3, 4, 4), np.uint8), "speed": spaces.Box(-np.inf, np.inf, (1,), np.float16)}
    )
    buffer = RolloutBuffer(2, space, spaces.Box(-1, 1, (2,), np.float32), "cpu", n_envs=5)
    assert buffer.observations["camera"].dtype == torch.uint8
    assert buffer.observations["camera"].shape == (2, 5, 3, 4, 4)
    assert buffer.observations["speed"].dtype == torch.float16
    assert buffer.actions.shape == (2, 5, 2)
