"""DAgger: a student that drives, and learns what its teacher would have done in the states that it came to."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional as F

from agents.buffers import Minibatch, RolloutBuffer, torch_dtype
from agents.divergence import Watch, rollout
from agents.networks import ActorCritic, VectorExtractor
from agents.ppo import PPO

Tensors = dict[str, torch.Tensor]
# What is known of an update, and what each is called in a message.
STATISTICS = {"imitation_loss": "the imitation loss", "value_loss": "the value loss", "grad_norm": "the gradient"}


# --- distributions ----------------------------------------------------------------------------------------------------
# A teacher's advice is what `agents.teacher.Teacher` says, what a student shows is what
# `ActorCritic.values_and_distributions` says: of the same form, but for the logarithms of its probabilities.


def divergence(advice: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's distributions from the teacher's. Shape: (N,).

    Of meta-actions it is the cross-entropy less the teacher's own entropy; of continuous actions that of independent
    normal distributions, log(t / s) + (s^2 + (m - n)^2) / (2 t^2) - 1/2, the teacher's mean and deviation being m and
    s, the student's n and t.
    """
    if advice.ndim == 2:
        return (torch.special.xlogy(advice, advice) - advice * shown).sum(1)
    (m, s), (n, t) = advice.unbind(1), shown.unbind(1)
    return ((t / s).log() + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5).sum(1)


def draw(shown: torch.Tensor) -> torch.Tensor:
    """Actions from the student's distributions. Shape: (N,) int64 or (N, K)."""
    if shown.ndim == 2:
        return (shown - torch.empty_like(shown).exponential_().log()).argmax(1)
    mean, deviation = shown.unbind(1)
    return mean + deviation * torch.randn_like(mean)


def most_probable(distributions: torch.Tensor) -> torch.Tensor:
    """Of advice or of what a student shows. Shape: (N,) int64 or (N, K)."""
    return distributions.argmax(1) if distributions.ndim == 2 else distributions[:, 0]


def agreement(advice: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """1 where both find the same meta-action the most probable, else 0; of continuous actions 1 less the mean distance
    of their means, within the bounds, as a share of the range. Shape: (N,)."""
    a, b = most_probable(advice), most_probable(shown)
    return (a == b).float() if advice.ndim == 2 else 1 - (a.clamp(-1, 1) - b.clamp(-1, 1)).abs().mean(1) / 2


# --- the aggregated dataset -------------------------------------------------------------------------------------------


class Dataset:
    """What the student has seen, with the teacher's advice; the newest steps, allocated once.

    Args:
        size: how many steps are kept.
        space: of the student's observations.
        advice: shape of one step's advice.
        device: where they are kept.
    """

    def __init__(self, size: int, space: spaces.Dict, advice: tuple[int, ...], device: torch.device):
        self.size, self.device = size, device
        self.observations = {
            name: torch.zeros((size, *get_obs_shape(part)), dtype=torch_dtype(part), device=device)
            for name, part in space.items()
        }
        self.advice = torch.zeros((size, *advice), device=device)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.size)

    def add(self, obs: Tensors, advice: torch.Tensor) -> None:
        """Keep N more steps, N being at most `size`, in place of the oldest."""
        rows = torch.arange(self.added, self.added + len(advice), device=self.device) % self.size
        for name, stored in self.observations.items():
            stored[rows] = obs[name]
        self.advice[rows] = advice
        self.added += len(advice)

    def sample(self, count: int) -> tuple[Tensors, torch.Tensor]:
        """Observations and advice of so many steps, each drawn from all with equal probability."""
        rows = torch.randint(len(self), (count,), device=self.device)
        return {name: kept[rows] for name, kept in self.observations.items()}, self.advice[rows]

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        kept = {name: tensor[: len(self)] for name, tensor in self.observations.items()}
        return {"observations": kept, "advice": self.advice[: len(self)], "added": self.added}

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`, in a dataset of the same size."""
        self.added = state["added"]
        for name, kept in state["observations"].items():
            self.observations[name][: len(self)] = kept.to(self.device)
        self.advice[: len(self)] = state["advice"].to(self.device)


# --- the algorithm ----------------------------------------------------------------------------------------------------


class DAgger(PPO):
    """Dataset aggregation (Ross, Gordon and Bagnell 2011, https://arxiv.org/abs/1011.0686), in batched worlds.

    In every step each world is driven by the teacher's most probable action with probability beta, else by an action
    drawn from the student's distribution; beta falls linearly. The teacher's advice on every state is kept, and the
    student drawn to it, on all that is kept, by the Kullback-Leibler divergence. Its critic learns the returns of the
    newest rollout, as PPO's does, so that PPO can go on from it. Rollouts, callbacks and loggers are PPO's.

    Args:
        policy: `ActorCritic`.
        env: `envs.sb3.SB3VecEnv` over `agents.teacher.TaughtWorlds`, with wrappers or without.
        dataset_size: steps that are learnt from; beyond them the oldest are dropped.
        teacher_fraction: of the training, over which beta falls from 1 to 0; 0 leaves all driving to the student.
        others: of PPO; `clip_range`, `ent_coef` and `target_kl` have no meaning here.
    """

    def __init__(
        self, policy: type[ActorCritic], env: VecEnv, *, dataset_size: int, teacher_fraction: float, **others: Any
    ):
        self.dataset_size, self.teacher_fraction = dataset_size, teacher_fraction
        self.beta = 1.0
        super().__init__(policy, env, **others)

    def _setup_model(self) -> None:
        super()._setup_model()
        space = self.action_space
        advice = (int(space.n),) if isinstance(space, spaces.Discrete) else (2, *space.shape)
        self.dataset = Dataset(self.dataset_size, self.observation_space, advice, self.device)
        self._agreed: list[torch.Tensor] = []

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """See `PPO.collect_rollouts`; the dataset grows by the rollout."""
        done = self.num_timesteps / self._total_timesteps
        self.beta = max(0.0, 1.0 - done / self.teacher_fraction) if self.teacher_fraction else 0.0
        self._agreed = []
        if not super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps):
            return False
        self.logger.record("rollout/teacher_share", self.beta)
        self.logger.record("rollout/agreement", torch.stack(self._agreed).mean().item())
        return True

    def _decide(self, obs: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `PPO._decide`; nobody asks for the log-probabilities, which are zeros."""
        advice = self.env.worlds.advise()
        values, shown = self.policy.values_and_distributions(obs)
        self.dataset.add(obs, advice)
        self._agreed.append(agreement(advice, shown).mean())
        by_teacher = torch.rand(len(advice), device=self.device) < self.beta
        actions, told = draw(shown), most_probable(advice)
        if actions.ndim == 2:
            by_teacher = by_teacher.unsqueeze(1)
        return torch.where(by_teacher, told, actions), values, torch.zeros(len(advice), device=self.device)

    def train(self) -> None:
        """Draw the student to its teacher and its critic to the returns, for `n_epochs` passes over the rollout.

        Raises:
            Diverged: a loss or a gradient is not finite.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        updates, watch = [], Watch()
        for _ in range(self.n_epochs):
            for batch in self.rollout_buffer.get(self.batch_size):
                updates.append(self._learn(batch))
                watch.add(updates[-1])
            self._n_updates += 1
        given = rollout(self.rollout_buffer) | {"the teacher's advice": self.dataset.advice}
        watch.check(STATISTICS.values(), self.num_timesteps, given)
        returns, values = self.rollout_buffer.returns, self.rollout_buffer.values
        explained = 1 - (returns - values).var() / returns.var()
        *means, explained = torch.cat([torch.stack(updates).mean(0), explained.reshape(1)]).tolist()
        for name, value in zip(STATISTICS, means, strict=True):
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/explained_variance", explained)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if isinstance(self.policy.features_extractor, VectorExtractor):
            self.policy.features_extractor.update(self.rollout_buffer.flat_observations())

    def _learn(self, batch: Minibatch) -> torch.Tensor:
        """One optimiser step, from a part of the rollout and as many steps of the dataset. Returns the statistics, on
        the device. Shape: (len(STATISTICS),)."""
        obs, advice = self.dataset.sample(len(batch.returns))
        imitation_loss = divergence(advice, self.policy.values_and_distributions(obs)[1]).mean()
        value_loss = F.mse_loss(self.policy.predict_values(batch.observations).flatten(), batch.returns)
        self.policy.optimizer.zero_grad()
        (imitation_loss + self.vf_coef * value_loss).backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return torch.stack([imitation_loss, value_loss, grad_norm]).detach()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "dataset", "_agreed"]
