"""PPO with a memory: an LSTM between the features and the hidden layers, learnt in whole sequences of whole worlds.

The meaning of states and episode starts is that of sb3-contrib's RecurrentPPO (https://sb3-contrib.readthedocs.io),
with one LSTM for actor and critic, as they share their hidden layers too.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from agents import ranks
from agents.buffers import Minibatch, Observation, RolloutBuffer
from agents.networks import ActorCritic, Trunk
from agents.ppo import PPO
from envs.errors import UserError


class Sequences(NamedTuple):
    """What N worlds saw in T steps, and what was remembered of them before."""

    observations: Observation  # Shape: (T, N, *observation)
    state: torch.Tensor  # hidden and cell before the first step. Shape: (2, N, units)
    starts: torch.Tensor  # True where a step is the first of an episode: all before it is forgotten. Shape: (T, N)


class Memory(NamedTuple):
    """What an LSTM makes of `Sequences`."""

    outputs: torch.Tensor  # step after step. Shape: (T * N, units)
    state: torch.Tensor  # after the last step. Shape: (2, N, units)


class RecurrentActorCritic(ActorCritic):
    """An actor-critic with an LSTM (Hochreiter and Schmidhuber 1997) after its features; `net_arch` has its units,
    then those of the hidden layers.

    Every method of `ActorCritic` that takes observations takes `Sequences` here, and answers for their T * N steps, or
    the `Memory` of them, so that a step that is asked twice is remembered once.
    """

    def _build_mlp_extractor(self) -> None:
        units, *hidden = self.net_arch
        self.lstm = nn.LSTMCell(self.features_dim, units)
        for name, weight in self.lstm.named_parameters():
            if name.startswith("weight"):
                nn.init.orthogonal_(weight)
            else:
                nn.init.zeros_(weight)
        # It begins by keeping what it knows (Jozefowicz et al. 2015, An empirical exploration of recurrent networks).
        nn.init.ones_(self.lstm.bias_hh[units : 2 * units])
        self.mlp_extractor = Trunk(units, hidden, self.activation_fn)

    def first_state(self, worlds: int) -> torch.Tensor:
        """What is remembered at the start of an episode. Shape: (2, worlds, units)."""
        return torch.zeros(2, worlds, self.lstm.hidden_size, device=self.device)

    def remember(self, seen: Sequences) -> Memory:
        """Run through sequences."""
        flat = {name: x.flatten(0, 1) for name, x in _named(seen.observations).items()}
        features = self.features_extractor(flat if isinstance(seen.observations, dict) else flat[""])
        state, outputs = seen.state.unbind(), []
        for inputs, start in zip(features.unflatten(0, seen.starts.shape), seen.starts.unsqueeze(2), strict=True):
            hidden, cell = (part.masked_fill(start, 0.0) for part in state)
            state = self.lstm(inputs, (hidden, cell))
            outputs.append(state[0])
        return Memory(torch.cat(outputs), torch.stack(state))

    def extract_features(
        self, obs: Sequences | Memory, features_extractor: BaseFeaturesExtractor | None = None
    ) -> torch.Tensor:
        """What the LSTM says after each step. Shape: (T * N, units)."""
        return (obs if isinstance(obs, Memory) else self.remember(obs)).outputs

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Actions, and the state to be handed to the next call; see stable-baselines3's `predict`.

        Args:
            observation: of N worlds, or of one.
            state: what the last call gave, hidden and cell, (N, units) each; None to begin.
            episode_start: where the state is forgotten first. Shape: (N,).
            deterministic: the most probable actions.
        """
        self.set_training_mode(False)
        obs, vectorized = self.obs_to_tensor(observation)
        count = len(next(iter(_named(obs).values())))
        starts = torch.zeros(count, dtype=torch.bool, device=self.device)
        if episode_start is not None:
            starts = torch.as_tensor(episode_start, dtype=torch.bool, device=self.device).reshape(count)
        before = self.first_state(count)
        if state is not None:
            before = torch.stack([torch.as_tensor(part, device=self.device) for part in state])
        with torch.no_grad():
            memory = self.remember(one_step(obs, before, starts))
            actions = self.forward(memory, deterministic)[0].cpu().numpy()
        if isinstance(self.action_space, spaces.Box):
            actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return actions if vectorized else actions[0], tuple(memory.state.cpu().numpy())


def _named(observation: Observation) -> dict[str, torch.Tensor]:
    """An observation as a dict, "" for the name of one that is none."""
    return observation if isinstance(observation, dict) else {"": observation}


def one_step(obs: Observation, state: torch.Tensor, starts: torch.Tensor) -> Sequences:
    """One step of N worlds as sequences. Shapes: (N, *observation), (2, N, units), (N,)."""
    first = {name: x.unsqueeze(0) for name, x in _named(obs).items()}
    return Sequences(first if isinstance(obs, dict) else first[""], state, starts.unsqueeze(0))


class RecurrentRolloutBuffer(RolloutBuffer):
    """A rollout that is learnt from in sequences as long as it is, of whole worlds, from the state they began in."""

    def begin(self, state: torch.Tensor, starts: torch.Tensor) -> None:
        """Write in what state a rollout begins.

        Args:
            state: before its first step. Shape: (2, N, units).
            starts: where that step is the first of an episode. Shape: (N,).
        """
        self.first_state, self.first_starts = state, starts

    def get(self, batch_size: int | None = None) -> Iterator[Minibatch]:
        """The worlds in a new random order, in parts of `batch_size` steps (all at once if None): as many worlds as
        have so many. Observations are `Sequences`, all else is flat, step after step."""
        starts = torch.cat([self.first_starts.unsqueeze(0), self.dones[:-1]])
        worlds = self.n_envs if batch_size is None else batch_size // self.buffer_size
        order = torch.randperm(self.n_envs * ranks.count(), device=self.device)
        advantages = ranks.joined(self.advantages, worlds=1)
        flat = (self.actions, self.values, self.log_probs, self.advantages, self.returns)
        size = worlds * ranks.count()
        for part, own in zip(order.split(size), ranks.own_steps(order, self.n_envs, size), strict=True):
            seen = {name: x.index_select(1, own) for name, x in _named(self.observations).items()}
            yield Minibatch(
                Sequences(
                    seen if isinstance(self.observations, dict) else seen[""],
                    self.first_state.index_select(1, own),
                    starts.index_select(1, own),
                ),
                *(tensor.index_select(1, own).flatten(0, 1) for tensor in flat),
                advantages.index_select(1, part).flatten(),
            )


class RecurrentPPO(PPO):
    """`agents.ppo.PPO` with a memory. `policy` is `RecurrentActorCritic`; `batch_size` a multiple of `n_steps`, the
    length of the sequences through which gradients flow back.

    Attributes:
        state: what is remembered of the worlds, before it is forgotten where an episode ended. Shape: (2, N, units).

    Raises:
        UserError: minibatches that are not of whole worlds.
    """

    def _setup_model(self) -> None:
        self.rollout_buffer_class = self.rollout_buffer_class or RecurrentRolloutBuffer
        super()._setup_model()
        if self.batch_size % self.n_steps:
            raise UserError(
                f"a minibatch of {self.batch_size} steps is not of whole worlds, which have {self.n_steps} each"
            )
        self.state = self.policy.first_state(self.n_envs)

    def _decide(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        starts = self._starts()
        if self.rollout_buffer.pos == 0:
            self.rollout_buffer.begin(self.state, starts)
        memory = self.policy.remember(one_step(obs, self.state, starts))
        self.state = memory.state
        return self.policy(memory)

    def _starts(self) -> torch.Tensor:
        """Where the worlds are at the start of an episode. Shape: (N,) bool."""
        return torch.as_tensor(self._last_episode_starts, dtype=torch.bool, device=self.device)

    def _last_values(self) -> torch.Tensor:
        return self.policy.predict_values(one_step(self._last_obs, self.state, self._starts()))

    def _with_timeouts(
        self, rewards: torch.Tensor, truncated: torch.Tensor, final_obs: Observation | None
    ) -> torch.Tensor:
        """See `PPO`; the final observation is seen with the memory of its episode."""
        if final_obs is None or (self.device.type == "cpu" and not truncated.any()):
            return rewards
        seen = one_step(final_obs, self.state, torch.zeros_like(truncated))
        values = self.policy.predict_values(seen).squeeze(1)
        return rewards + self.gamma * torch.where(truncated, values, 0.0)

    def get_state(self) -> dict[str, Any]:
        """What `agents.checkpoint.save` does not know: what is remembered of the worlds of all ranks."""
        return {"state": ranks.joined(self.state, worlds=1)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`."""
        self.state = state["state"][:, ranks.rank() * self.n_envs :][:, : self.n_envs].to(self.device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "state"]
