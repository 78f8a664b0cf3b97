"""Drivers without weights, to compare with."""

from typing import Any

import torch


class RandomDriver:
    """Any action, equally often. The same seed gives the same sequence.

    Args:
        actions: how many there are.
        device: where its actions are wanted.
        seed: of its random numbers.
    """

    name = "random"

    def __init__(self, actions: int, device: torch.device | str = "cpu", seed: int = 0):
        self.actions = actions
        self.env_options: dict[str, Any] = {"observation": "state"}
        self.generator = torch.Generator(device).manual_seed(seed)

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Shape: (N,) int64."""
        count = len(next(iter(obs.values())))
        return torch.randint(self.actions, (count,), generator=self.generator, device=self.generator.device)

    def explain(self, obs: dict[str, torch.Tensor]) -> None:
        """It has nothing to explain."""

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""


class IDMDriver:
    """The worlds' own car following and lane changing (IDM and MOBIL) at the ego's wheel; its actions are not used."""

    name = "idm"

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = device
        self.env_options: dict[str, Any] = {"observation": "state", "ego": "idm"}

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Zeros. Shape: (N,) int64."""
        return torch.zeros(len(next(iter(obs.values()))), dtype=torch.int64, device=self.device)

    def explain(self, obs: dict[str, torch.Tensor]) -> None:
        """Its laws have no probabilities and no value."""

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""
