"""Rewards for training that differ from the scenario's own."""

from typing import Any

import torch

from agents import ranks
from agents.wrapped import Wrapped


class Penalty(Wrapped):
    """Worlds whose reward is lowered in some steps; `info["episode_return"]` stays the scenario's own.

    Args:
        worlds: `envs.api.VecWorlds`, or a wrapper of it.
        penalty: taken off the reward.
    """

    def __init__(self, worlds, penalty: float):
        super().__init__(worlds)
        self.penalty = penalty


class CrashPenalty(Penalty):
    """Worlds whose reward is lowered in the step in which the ego crashes.

    highway-env's reward forgives crashes: at 30 m/s it pays 0.93 to 1 a step, at 20 m/s 0.67 to 0.73, and a crash costs
    no more than what is left of the episode. `info["episode_return"]` stays the scenario's own.
    """

    def step(
        self, actions: torch.Tensor, **options: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """See VecWorlds; only the reward differs."""
        obs, reward, terminated, truncated, info = self.worlds.step(actions, **options)
        return obs, reward - self.penalty * info["crashed"].to(reward.dtype), terminated, truncated, info


class RedLightPenalty(Penalty):
    """Worlds whose reward is lowered in the step in which the ego runs a red light. `info["episode_return"]` stays the
    scenario's own. A light that is run in an episode's last step counts only in the scenario's own reward.
    """

    def step(
        self, actions: torch.Tensor, **options: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """See VecWorlds; only the reward differs."""
        before = self.worlds.state.red_lights.clone()
        obs, reward, terminated, truncated, info = self.worlds.step(actions, **options)
        ran = self.worlds.state.red_lights > before  # a new episode begins at 0
        return obs, reward - self.penalty * ran.to(reward.dtype), terminated, truncated, info


class NormalisedReward(Wrapped):
    """Worlds whose reward is in units of the standard deviation of the discounted return so far, within +-10.

    The arithmetic is that of stable-baselines3's `VecNormalize`, on the device, over the worlds of all ranks (see
    `agents.ranks`). `info["episode_return"]` stays the scenario's own.

    Args:
        worlds: `envs.api.VecWorlds`, or a wrapper of it.
        gamma: the discount of one step.
    """

    CLIP, EPSILON = 10.0, 1e-8

    def __init__(self, worlds, gamma: float):
        super().__init__(worlds)
        self.gamma = gamma
        double = {"dtype": torch.float64, "device": worlds.device}
        self.returns = torch.zeros(worlds.num_worlds, **double)  # what has come so far, the latest undiscounted
        # A little to begin with, as VecNormalize has it.
        self.count, self.mean, self.variance = (torch.full((1,), number, **double) for number in (1e-4, 0.0, 1.0))

    def reset(self, seed: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """See VecWorlds; what was learnt about returns is kept."""
        self.returns.zero_()
        return self.worlds.reset(seed)

    def step(
        self, actions: torch.Tensor, **options: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """See VecWorlds; only the reward differs."""
        obs, reward, terminated, truncated, info = self.worlds.step(actions, **options)
        self.returns = self.gamma * self.returns + reward
        self._take_in(self.returns.unsqueeze(1))
        scaled = (reward / (self.variance + self.EPSILON).sqrt()).clamp(-self.CLIP, self.CLIP)
        self.returns = self.returns.masked_fill(terminated | truncated, 0.0)
        return obs, scaled.to(reward.dtype), terminated, truncated, info

    def _take_in(self, rows: torch.Tensor) -> None:
        """Chan et al. 1979, parallel variance. Shape: (N, 1)."""
        more, mean, variance = ranks.moments(rows)
        total, difference = self.count + more, mean - self.mean
        share = more / total
        self.mean = self.mean + share * difference
        self.variance = self.variance + share * (variance - self.variance + difference**2 * (1 - share))
        self.count = total

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        names = ("returns", "count", "mean", "variance")
        return {"worlds": self.worlds.get_state()} | {name: getattr(self, name) for name in names}

    def set_state(self, state: dict[str, Any]) -> Any:
        """Undo `get_state`."""
        for name in ("returns", "count", "mean", "variance"):
            setattr(self, name, state[name].to(self.device))
        return self.worlds.set_state(state["worlds"])
