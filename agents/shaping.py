"""Rewards for training that differ from the scenario's own."""

from typing import Any

import torch


class CrashPenalty:
    """Worlds whose reward is lowered in the step in which the ego crashes.

    highway-env's reward forgives crashes: at 30 m/s it pays 0.93 to 1 a step, at 20 m/s 0.67 to 0.73, and a crash costs
    no more than what is left of the episode. `info["episode_return"]` stays the scenario's own.

    Args:
        worlds: `envs.api.VecWorlds`, or a wrapper of it.
        penalty: taken off the reward.
    """

    def __init__(self, worlds, penalty: float):
        self.worlds, self.penalty = worlds, penalty

    def __getattr__(self, name: str) -> Any:
        if name == "worlds":  # not set yet: a copy
            raise AttributeError(name)
        return getattr(self.worlds, name)

    def step(
        self, actions: torch.Tensor, **options: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """See VecWorlds; only the reward differs."""
        obs, reward, terminated, truncated, info = self.worlds.step(actions, **options)
        return obs, reward - self.penalty * info["crashed"].to(reward.dtype), terminated, truncated, info
