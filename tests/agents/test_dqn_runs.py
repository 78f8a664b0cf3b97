"""A whole training of ours is one of stable-baselines3's: given the same random draws, both end in the same weights.

Its draws and ours come from different generators. Here both take theirs from one, who explores and how as well as what
is learnt from; nothing else is replaced. `pytest -m slow` does it with the settings and steps of `benchmarks.agents`.
"""

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import agents.dqn
from agents.dqn import DQN
from benchmarks.agents import DQN_SETTINGS, PLAIN

# The replay is full before the end; episodes end by falling and by their time.
SETTINGS = {
    "learning_rate": lambda remaining: 3e-3 * remaining,
    "buffer_size": 1200,
    "learning_starts": 200,
    "batch_size": 16,
    "train_freq": 8,
    "gradient_steps": 6,
    "target_update_interval": 64,
    "exploration_fraction": 0.5,
    "exploration_final_eps": 0.1,
    "policy_kwargs": {"net_arch": [32, 32]},
}


class Draws:
    """What both draw: who explores and how, and which steps are learnt from."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(11)

    def explore(self, values: torch.Tensor, epsilon: float) -> torch.Tensor:
        at_random = torch.rand(len(values), generator=self.generator) < epsilon
        chance = torch.randint(values.shape[1], (len(values),), generator=self.generator)
        return torch.where(at_random, chance, values.argmax(1))

    def rows(self, count: int, drawable: int, oldest: int, rows: int) -> torch.Tensor:
        return (torch.randint(drawable, (count,), generator=self.generator) + oldest) % rows


class Theirs(stable_baselines3.DQN):
    """stable-baselines3's, whose draws are handed in."""

    draws: Draws

    def _sample_action(self, learning_starts, action_noise=None, n_envs=1):
        epsilon = 1.0 if self.num_timesteps < learning_starts else self.exploration_rate
        with torch.no_grad():
            actions = self.draws.explore(self.q_net(torch.as_tensor(self._last_obs)), epsilon).numpy()
        return actions, actions


class TheirReplay(ReplayBuffer):
    """Draws what ours would: all but the newest step of each environment."""

    draws: Draws

    def sample(self, batch_size, env=None):
        slots = self.buffer_size if self.full else self.pos
        oldest = self.pos * self.n_envs if self.full else 0
        rows = self.draws.rows(batch_size, (slots - 1) * self.n_envs, oldest, self.buffer_size * self.n_envs)
        self.environments = (rows % self.n_envs).numpy()
        return self._get_samples((rows // self.n_envs).numpy(), env)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learnt(monkeypatch, settings, environments, steps):
    """Ours and theirs after so many steps with the same draws, and the weights that both began with."""
    settings = settings | {"seed": 5, "device": "cpu"}
    ours = DQN("MlpPolicy", environments(), **PLAIN, **settings | {"policy_kwargs": dict(settings["policy_kwargs"])})
    theirs = Theirs("MlpPolicy", environments(), replay_buffer_class=TheirReplay, **settings)
    for mine, other in ((ours.q_net, theirs.q_net), (ours.q_net_target, theirs.q_net_target)):
        for parameter, copied in zip(mine.parameters(), other.parameters(), strict=True):
            copied.data.copy_(parameter)
    begun = [parameter.detach().clone() for parameter in ours.q_net.parameters()]

    draws, replay = Draws(), ours.replay_buffer
    with monkeypatch.context() as patched:
        patched.setattr(agents.dqn, "explore", draws.explore)
        patched.setattr(
            replay, "sample", lambda count: replay.at(draws.rows(count, replay.drawable, replay._oldest, replay.rows))
        )
        ours.learn(steps)

    theirs.draws = theirs.replay_buffer.draws = Draws()
    randint, batch = np.random.randint, (settings["batch_size"],)
    with monkeypatch.context() as patched:
        patched.setattr(
            np.random,
            "randint",
            lambda low, high=None, size=None: (
                theirs.replay_buffer.environments if size == batch else randint(low, high, size)
            ),
        )
        theirs.learn(steps)
    return ours, theirs, begun


def same_weights(ours, theirs, begun):
    for mine, other, first in zip(ours.q_net.parameters(), theirs.q_net.parameters(), begun, strict=True):
        assert torch.equal(mine, other)
        assert (mine - first).abs().max() > 1e-2


def test_the_same_draws_end_in_the_same_weights(monkeypatch, one_thread):
    def environments():
        return make_vec_env(lambda: gymnasium.make("CartPole-v1", max_episode_steps=12), 4, seed=5)

    ours, theirs, begun = learnt(monkeypatch, SETTINGS, environments, 2400)
    replay = ours.replay_buffer
    assert replay.full and replay.timed_out.any() and replay.terminated.any()
    assert ours._n_updates == theirs._n_updates > 400
    same_weights(ours, theirs, begun)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_benchmarks_run_too(monkeypatch, one_thread):
    ours, theirs, begun = learnt(monkeypatch, DQN_SETTINGS, lambda: make_vec_env("CartPole-v1", 8, seed=5), 100_000)
    assert ours._n_updates == theirs._n_updates == 24_832
    same_weights(ours, theirs, begun)
    returns = [evaluate_policy(model, make_vec_env("CartPole-v1", 8, seed=1005), 50)[0] for model in (ours, theirs)]
    assert returns[0] == returns[1]
