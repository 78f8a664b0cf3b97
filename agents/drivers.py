"""Drivers without weights, to compare with."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from envs.errors import UserError
from envs.scenarios import Scenario


def action_space(scenario: Scenario) -> spaces.Space:
    """The actions that one world of a scenario takes from a policy."""
    offered, agents = scenario.actions, () if scenario.agents == 1 else (scenario.agents,)
    if not offered.names:
        return spaces.Box(-1.0, 1.0, (*agents, offered.size), np.float32)
    if agents:
        return spaces.MultiDiscrete([len(offered.names)] * scenario.agents)
    return spaces.Discrete(len(offered.names))


class RandomDriver:
    """Any action, equally often. The same seed gives the same sequence.

    Args:
        actions: the space of one world's actions: Discrete, MultiDiscrete with equal sizes, or Box from -1 to 1.
        device: where its actions are wanted.
        seed: of its random numbers.
    """

    name = "random"

    def __init__(self, actions: spaces.Space, device: torch.device | str = "cpu", seed: int = 0):
        self.actions = actions
        self.env_options: dict[str, Any] = {"observation": "state"}
        self.generator = torch.Generator(device).manual_seed(seed)

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Shape: (N,) int64, of several agents (N, A); of continuous actions (N, ..., K) float32."""
        shape = (len(next(iter(obs.values()))), *self.actions.shape)
        options = {"generator": self.generator, "device": self.generator.device}
        if isinstance(self.actions, spaces.Box):
            return 2 * torch.rand(shape, **options) - 1
        count = self.actions.n if isinstance(self.actions, spaces.Discrete) else self.actions.nvec[0]
        return torch.randint(int(count), shape, **options)

    def explain(self, obs: dict[str, torch.Tensor]) -> None:
        """It has nothing to explain."""

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""


class IDMDriver:
    """The worlds' own car following and lane changing (IDM and MOBIL) at the ego's wheel; its actions are not used.

    Args:
        scenario: what it is to drive.
        device: where its actions are wanted.

    Raises:
        UserError: a scenario in which nobody drives along lanes.
    """

    name = "idm"

    def __init__(self, scenario: Scenario, device: torch.device | str = "cpu"):
        if not drives_itself(scenario):
            raise UserError(
                f"'idm' cannot drive '{scenario.name}': it follows lanes, which this scenario has no use for"
            )
        self.actions, self.device = action_space(scenario), device
        self.env_options: dict[str, Any] = {"observation": "state", "ego": "idm"}

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Zeros. Shape: that of the scenario's actions, int64 or float32."""
        shape = (len(next(iter(obs.values()))), *self.actions.shape)
        dtype = torch.float32 if isinstance(self.actions, spaces.Box) else torch.int64
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def explain(self, obs: dict[str, torch.Tensor]) -> None:
        """Its laws have no probabilities and no value."""

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""


def drives_itself(scenario: Scenario) -> bool:
    """Whether IDM can drive a scenario's ego: where it is known which lane everybody is on."""
    return scenario.uses_lanes
