"""A small batched world with the interface of envs.api.VecWorlds."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.sb3 import SB3VecEnv


class BalanceWorlds:
    """A point on a line: action 1 pushes it right, 0 left, and noise either way. Beyond +-1 it falls (terminated);
    after `duration` steps the time is up (truncated). Reward 1 - |x|. Its tensors are overwritten by every step."""

    single_action_space = spaces.Discrete(2)

    def __init__(self, num_worlds: int, duration: int = 12, seed: int = 0):
        self.num_worlds, self.duration, self.device = num_worlds, duration, torch.device("cpu")
        self.single_observation_space = spaces.Dict({"state": spaces.Box(-np.inf, np.inf, (2,), np.float32)})
        self.generator = torch.Generator().manual_seed(seed)
        self.x = torch.zeros(num_worlds)
        self.time = torch.zeros(num_worlds)
        self.total = torch.zeros(num_worlds)
        self.obs = {"state": torch.zeros(num_worlds, 2)}
        self.final_obs = {"state": torch.zeros(num_worlds, 2)}
        self.reward = torch.zeros(num_worlds)

    def _begin(self, rows: torch.Tensor) -> None:
        draws = torch.rand(self.num_worlds, generator=self.generator) - 0.5
        self.x[rows], self.time[rows], self.total[rows] = draws[rows], 0.0, 0.0

    def _write(self, obs: dict[str, torch.Tensor]) -> None:
        obs["state"].copy_(torch.stack([self.x, self.time / self.duration], 1))

    def reset(self, seed=None):
        if seed is not None:
            self.generator.manual_seed(seed)
        self._begin(torch.ones(self.num_worlds, dtype=torch.bool))
        self._write(self.obs)
        return self.obs, {}

    def step(self, actions):
        noise = torch.randn(self.num_worlds, generator=self.generator)
        self.x += 0.3 * (actions.float() - 0.5) + 0.1 * noise
        self.time += 1
        self.reward.copy_(1 - self.x.abs())
        self.total += self.reward
        terminated, truncated = self.x.abs() > 1, self.time >= self.duration
        self._write(self.final_obs)
        info = {
            "final_obs": self.final_obs,
            "_final_obs": terminated | truncated,
            "episode_return": self.total.clone(),
            "episode_length": self.time.clone(),
            "crashed": terminated,
            "speed": self.x.abs(),
        }
        self._begin(terminated | truncated)
        self._write(self.obs)
        return self.obs, self.reward, terminated, truncated, info

    def get_state(self):
        state = {name: getattr(self, name).clone() for name in ("x", "time", "total")}
        return state | {"generator": self.generator.get_state()}

    def set_state(self, state):
        for name in ("x", "time", "total"):
            getattr(self, name).copy_(state[name])
        self.generator.set_state(state["generator"])
        self._write(self.obs)
        return self.obs

    def close(self):
        pass


@pytest.fixture
def balance():
    """balance(N, **options): a VecEnv over N balance worlds, which PPO steps in tensors."""
    return lambda num_worlds, **options: SB3VecEnv(BalanceWorlds(num_worlds, **options))


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads gain nothing on networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
