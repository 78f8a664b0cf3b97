"""The rollout buffer of on-policy algorithms, on the device of the worlds."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.common.utils import get_device

from agents import ranks

Observation = torch.Tensor | dict[str, torch.Tensor]


class Minibatch(NamedTuple):
    """A random part of a rollout, B steps; the fields of stable-baselines3's `RolloutBufferSamples`, and one more."""

    observations: Observation  # Shape: (B, *observation)
    actions: torch.Tensor  # Shape: (B,) int64 for discrete actions, else (B, *action)
    old_values: torch.Tensor  # Shape: (B,)
    old_log_prob: torch.Tensor  # Shape: (B,)
    advantages: torch.Tensor  # Shape: (B,)
    returns: torch.Tensor  # Shape: (B,)
    all_advantages: torch.Tensor  # of the whole minibatch, of which this may be one rank's part. Shape: (M,)


def torch_dtype(space: spaces.Space) -> torch.dtype:
    """The dtype in which a space's values are stored: its own, with float64 narrowed to float32."""
    dtype = getattr(torch, str(space.dtype))
    return torch.float32 if dtype == torch.float64 else dtype


def bytes_of(space: spaces.Space) -> int:
    """Memory of one stored observation, in bytes."""
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return sum(math.prod(get_obs_shape(part)) * torch_dtype(part).itemsize for part in parts)


def _zeros(space: spaces.Space, lead: tuple[int, ...], device: torch.device) -> Observation:
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part, lead, device) for key, part in space.spaces.items()}
    return torch.zeros(lead + get_obs_shape(space), dtype=torch_dtype(space), device=device)


def _map(function, observation: Observation) -> Observation:
    if isinstance(observation, dict):
        return {key: function(value) for key, value in observation.items()}
    return function(observation)


class RolloutBuffer:
    """T steps of N worlds under one policy, allocated once and overwritten by every rollout.

    A step is written in two halves: `add_decision` before the worlds move (their observation tensors are
    overwritten when they do) and `add_outcome` after. The arguments of the constructor are those of
    stable-baselines3's `RolloutBuffer`, whose numbers `compute_returns_and_advantage` reproduces.

    Args:
        buffer_size: T, steps a rollout.
        observation_space: of one world.
        action_space: of one world.
        device: where everything is kept.
        gae_lambda: the lambda of generalised advantage estimation.
        gamma: the discount factor of one step.
        n_envs: N, worlds.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        gae_lambda: float = 0.95,
        gamma: float = 0.99,
        n_envs: int = 1,
    ):
        self.buffer_size, self.n_envs = buffer_size, n_envs
        self.device = get_device(device)
        self.gae_lambda, self.gamma = gae_lambda, gamma
        self.pos = 0  # the step that is written next
        lead = (buffer_size, n_envs)
        self.observations = _zeros(observation_space, lead, self.device)  # Shape: (T, N, *observation)
        action_shape = () if isinstance(action_space, spaces.Discrete) else (get_action_dim(action_space),)
        # Shape: (T, N) for discrete actions, else (T, N, A)
        self.actions = torch.zeros(lead + action_shape, dtype=torch_dtype(action_space), device=self.device)
        self.rewards = torch.zeros(lead, device=self.device)  # Shape: (T, N), timeouts bootstrapped
        self.dones = torch.zeros(lead, dtype=torch.bool, device=self.device)  # Shape: (T, N), True where step t ended
        self.values = torch.zeros(lead, device=self.device)  # Shape: (T, N)
        self.log_probs = torch.zeros(lead, device=self.device)  # Shape: (T, N)
        self.advantages = torch.zeros(lead, device=self.device)  # Shape: (T, N)
        self.returns = torch.zeros(lead, device=self.device)  # Shape: (T, N), targets of the value function

    def reset(self) -> None:
        """Begin a rollout; the previous one is overwritten step by step."""
        self.pos = 0

    def add_decision(
        self, obs: Observation, actions: torch.Tensor, values: torch.Tensor, log_probs: torch.Tensor
    ) -> None:
        """Write what the policy saw and chose at the current step.

        Args:
            obs: Shape: (N, *observation).
            actions: Shape: (N,) or (N, A).
            values: Shape: (N,) or (N, 1).
            log_probs: of the actions. Shape: (N,).
        """
        if isinstance(self.observations, dict):
            for key, stored in self.observations.items():
                stored[self.pos].copy_(obs[key])
        else:
            self.observations[self.pos].copy_(obs.reshape(self.observations.shape[1:]))
        self.actions[self.pos].copy_(actions.reshape(self.actions.shape[1:]))
        self.values[self.pos].copy_(values.flatten())
        self.log_probs[self.pos].copy_(log_probs.flatten())

    def add_outcome(self, rewards: torch.Tensor, dones: torch.Tensor) -> None:
        """Write what came of it, and go on to the next step.

        Args:
            rewards: a truncated step's reward includes gamma times the value of its final observation. Shape: (N,).
            dones: True where the step ended an episode, for whichever reason. Shape: (N,).
        """
        self.rewards[self.pos].copy_(rewards)
        self.dones[self.pos].copy_(dones)
        self.pos += 1

    def compute_returns_and_advantage(self, last_values: torch.Tensor) -> None:
        """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).

        delta_t = r_t + gamma V_{t+1} (1 - done_t) - V_t;  A_t = delta_t + gamma lambda (1 - done_t) A_{t+1};  the
        returns are A_t + V_t.

        Args:
            last_values: of the observations after the last step. Shape: (N,) or (N, 1).
        """
        going_on = self.gamma * (~self.dones).float()
        next_values = torch.cat([self.values[1:], last_values.reshape(1, -1)])
        deltas = self.rewards + going_on * next_values - self.values
        decay = self.gae_lambda * going_on
        advantage = torch.zeros_like(deltas[0])
        for step in reversed(range(self.buffer_size)):
            advantage = torch.addcmul(deltas[step], decay[step], advantage)
            self.advantages[step] = advantage
        torch.add(self.advantages, self.values, out=self.returns)

    def flat_observations(self) -> Observation:
        """Every observation of the rollout, without a copy. Shape: (T * N, *observation)."""
        return _map(lambda tensor: tensor.flatten(0, 1), self.observations)

    def get(self, batch_size: int | None = None) -> Iterator[Minibatch]:
        """The rollout in a new random order, in parts of `batch_size` steps (all at once if None).

        Index i of the order is step i // N of world i % N. The order is of the rollouts of all ranks, see
        `agents.ranks`, and each gets its own steps of minibatches that are as many times larger.
        """
        steps = self.buffer_size * self.n_envs
        order = torch.randperm(steps * ranks.count(), device=self.device)
        size = (batch_size or steps) * ranks.count()
        advantages = ranks.joined(self.advantages, worlds=1).flatten()
        flat = [self.actions, self.values, self.log_probs, self.advantages, self.returns]
        flat = [tensor.flatten(0, 1) for tensor in flat]
        observations = self.flat_observations()
        for part, rows in zip(order.split(size), ranks.own_steps(order, self.n_envs, size), strict=True):
            seen = _map(lambda tensor, rows=rows: tensor.index_select(0, rows), observations)
            yield Minibatch(seen, *(tensor.index_select(0, rows) for tensor in flat), advantages[part])
