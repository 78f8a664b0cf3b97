"""DQN with everything on the device: stable-baselines3's algorithm and interface, without its copies to the host."""

from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import MaybeCallback, RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional as F

from agents.divergence import Watch
from agents.networks import QPolicy, VectorExtractor
from agents.replay import Batch, PrioritisedReplayBuffer, ReplayBuffer
from agents.stepping import episode_ends, stepper, to_device
from envs.errors import UserError

# What is known of an update, and what each is called in a message.
STATISTICS = {"td_loss": "the loss", "q_values": "the mean action value", "grad_norm": "the gradient"}
STEPS_UNREAD = 256  # steps whose episode ends are kept on the device at most


class DQN(stable_baselines3.DQN):
    """Deep Q-learning (Mnih et al. 2015, https://doi.org/10.1038/nature14236) with what came after it, on the device.

    A drop-in `stable_baselines3.DQN`: `learn`, `predict`, callbacks and loggers are its own, and so are the names of
    the settings. Differences:

    - Over an `envs.sb3.SB3VecEnv` the worlds are stepped in tensors; observations never leave their device. Any other
      VecEnv works too, by NumPy as in stable-baselines3.
    - Policies are `QPolicy`, under every one of stable-baselines3's names.
    - Each world explores by itself; in stable-baselines3 one draw decides for all of them.
    - `train_freq` counts steps; episodes cannot be counted without waiting for the device.
    - `log_interval` counts rollouts, and the log is written after the update.
    - Statistics stay on the device until they are read for the log. If one is not finite, `learn` raises `Diverged`.

    Args:
        policy: "MlpPolicy", "MultiInputPolicy", "CnnPolicy" or a subclass of `QPolicy`.
        env: what to learn in.
        double: the online network chooses the action whose target value counts (van Hasselt et al. 2016,
            https://arxiv.org/abs/1509.06461).
        duelling: see `QNetwork`.
        n_steps: rewards summed before a value is looked up (Sutton 1988).
        quantiles: above 1, learn so many quantiles of the return by quantile regression (Dabney et al. 2018,
            https://arxiv.org/abs/1710.10044).
        prioritised: see `PrioritisedReplayBuffer`.
        beta: of the prioritised draw, at the start; it rises linearly to 1 with progress.
        others: see stable-baselines3's `DQN`.

    Raises:
        UserError: `train_freq` in episodes, a replay that is too small, or fewer than 1 step or quantile.
    """

    policy_aliases = dict.fromkeys(("MlpPolicy", "MultiInputPolicy", "CnnPolicy"), QPolicy)

    def __init__(
        self,
        policy: str | type[QPolicy],
        env: Any,
        *,
        double: bool = True,
        duelling: bool = True,
        n_steps: int = 3,
        quantiles: int = 1,
        prioritised: bool = False,
        beta: float = 0.4,
        policy_kwargs: dict[str, Any] | None = None,
        **others: Any,
    ):
        self.double, self.prioritised, self.beta = double, prioritised, beta
        if min(n_steps, quantiles) < 1:
            raise UserError(f"n_steps and quantiles must be at least 1, not {n_steps} and {quantiles}")
        policy_kwargs = {"duelling": duelling, "quantiles": quantiles} | (policy_kwargs or {})
        super().__init__(policy, env, n_steps=n_steps, policy_kwargs=policy_kwargs, **others)

    def _setup_model(self) -> None:
        if self.replay_buffer_class is None:
            self.replay_buffer_class = PrioritisedReplayBuffer if self.prioritised else ReplayBuffer
        self.replay_buffer_kwargs = {"n_steps": self.n_steps, "gamma": self.gamma} | self.replay_buffer_kwargs
        n_steps, self.n_steps = self.n_steps, 1  # stable-baselines3 would warn that our buffer ignores it
        super()._setup_model()
        self.n_steps = n_steps
        if self.train_freq.unit != TrainFrequencyUnit.STEP:
            raise UserError("train_freq counts steps here: give a number, not episodes")
        self.updates = Means(self.device)  # Shape of each: (len(STATISTICS),)
        self.speeds = Means(self.device)
        self.ended = EpisodeEnds(self)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:
            self.replay_buffer.cut(None if self._last_obs is None else to_device(self._last_obs, self.device))
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 100,
        tb_log_name: str = "DQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "DQN":
        """Alternate rollouts of `train_freq` steps and updates for `total_timesteps` steps, with a row of the log every
        `log_interval` rollouts and after the last. Between two rollouts the state is complete:
        `callback.on_rollout_start` is the place to save it."""
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            rollout = self.collect_rollouts(
                self.env, callback, self.train_freq, self.replay_buffer, learning_starts=self.learning_starts
            )
            if not rollout.continue_training:
                break
            gradient_steps = self.gradient_steps if self.gradient_steps >= 0 else rollout.episode_timesteps
            if self.num_timesteps > self.learning_starts and self.replay_buffer.ready and gradient_steps:
                self.train(gradient_steps, self.batch_size)
            rollouts = self._n_calls // self.train_freq.frequency
            if log_interval and (rollouts % log_interval == 0 or self.num_timesteps >= total_timesteps):
                self._record()
                self.dump_logs()
        callback.on_training_end()
        return self

    @torch.no_grad()
    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Add `train_freq` steps of every world to the replay. Random actions before step `learning_starts`.

        Callbacks find `actions`, `new_obs`, `rewards`, `dones` and `infos` in `locals`, as in stable-baselines3:
        tensors over our worlds, where `infos` is their dict of tensors.
        """
        worlds = stepper(env, self.device)
        self.policy.set_training_mode(False)
        self._last_obs = to_device(self._last_obs, self.device)
        callback.on_rollout_start()
        for step in range(train_freq.frequency):
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
            epsilon = 1.0 if self.num_timesteps < learning_starts else self.exploration_rate
            actions = explore(self.q_net(self._last_obs), epsilon)
            replay_buffer.add_decision(self._last_obs, actions)

            new_obs, rewards, terminated, truncated, infos = worlds.step(actions)
            dones = terminated | truncated
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return RolloutReturn((step + 1) * env.num_envs, 0, continue_training=False)

            replay_buffer.add_outcome(rewards, terminated, truncated, infos["final_obs"])
            self._last_obs = new_obs
            self.ended.add(infos, dones)
            if "speed" in infos:
                self.speeds.add(infos["speed"].mean().reshape(1))
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            self._on_step()

        # Whatever runs before the next rollout may move the worlds, and with them the tensors that they lent.
        self._last_obs = to_device(self._last_obs, self.device, copy=True)
        self._take_in(replay_buffer, train_freq.frequency)
        callback.on_rollout_end()
        return RolloutReturn(train_freq.frequency * env.num_envs, 0, continue_training=True)

    def _take_in(self, replay_buffer: ReplayBuffer, slots: int) -> None:
        """Bring the running statistics of observations up to date, the same ones in both networks."""
        extractors = (self.q_net.features_extractor, self.q_net_target.features_extractor)
        if isinstance(extractors[0], VectorExtractor):
            seen = replay_buffer.newest(slots)
            for extractor in extractors:
                extractor.update(seen)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Make `gradient_steps` steps of the optimiser, each from `batch_size` steps of the replay."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        for _ in range(gradient_steps):
            if self.prioritised:
                beta = 1.0 - (1.0 - self.beta) * max(self._current_progress_remaining, 0.0)
                batch = self.replay_buffer.sample(batch_size, beta)
            else:
                batch = self.replay_buffer.sample(batch_size)
            self.updates.add(self._update(batch))
        self._n_updates += gradient_steps

    def _update(self, batch: Batch) -> torch.Tensor:
        """One optimiser step. Returns the statistics, on the device. Shape: (len(STATISTICS),)."""
        returns = pick(self.q_net.quantiles(batch.observations), batch.actions)
        losses, errors = (td_loss if returns.shape[1] == 1 else quantile_loss)(returns, self.targets(batch))
        loss = (batch.weights * losses).mean()

        self.policy.optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        if self.prioritised:
            self.replay_buffer.update_priorities(batch.rows, errors)
        return torch.stack([loss.detach(), returns.detach().mean(), grad_norm])

    @torch.no_grad()
    def targets(self, batch: Batch) -> torch.Tensor:
        """What the quantiles of the actions' returns are drawn to. Shape: (B, Q)."""
        following = self.q_net_target.quantiles(batch.next_observations)
        judged = self.q_net(batch.next_observations) if self.double else following.mean(2)
        best = pick(following, judged.argmax(1))
        return batch.returns.unsqueeze(1) + batch.discounts.unsqueeze(1) * best

    def _record(self) -> None:
        """Read what happened since the last row of the log, check it and pass it to the logger."""
        self._raise_if_diverged()
        self.ended.read()
        record_crashes(self)
        if (speed := self.speeds.read()) is not None:
            self.logger.record("rollout/mean_speed", speed[0])
        if (means := self.updates.read()) is not None:
            for name, value in zip(STATISTICS, means, strict=True):
                self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _raise_if_diverged(self) -> None:
        """Raise `Diverged` naming what broke in the updates since the last row of the log."""
        replay = self.replay_buffer
        given = {"an observation of the replay": replay.observations, "a reward of the replay": replay.rewards}
        self.updates.watch.check(STATISTICS.values(), self.num_timesteps, given)

    def get_state(self) -> dict[str, Any]:
        """What `agents.checkpoint.save` does not know of, between two rollouts: the replay, and what the log is still
        to say.

        Raises:
            Diverged: an update since the last row of the log broke; a checkpoint would keep what came of it.
        """
        self._raise_if_diverged()
        self.ended.read()
        return {
            "replay": self.replay_buffer.get_state(),
            "calls": self._n_calls,
            "updates": self.updates.get_state(),
            "speeds": self.speeds.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`."""
        self.replay_buffer.set_state(state["replay"])
        self._n_calls = state["calls"]
        self.updates.set_state(state["updates"])
        self.speeds.set_state(state["speeds"])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_episode_starts", "updates", "speeds", "ended"]


def explore(values: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The best actions, and with probability `epsilon` random ones. values: Shape: (N, A). Returns shape (N,)."""
    actions = values.argmax(1)
    chance = torch.randint(values.shape[1], actions.shape, device=actions.device)
    return torch.where(torch.rand(actions.shape, device=actions.device) < epsilon, chance, actions)


def pick(values: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The quantiles of one action a row. values: Shape: (B, A, Q); actions: Shape: (B,). Returns shape (B, Q)."""
    return values.gather(1, actions.view(-1, 1, 1).expand(-1, 1, values.shape[2])).squeeze(1)


def td_loss(values: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Huber loss of values, and how wrong they were. All shapes: (B, 1) in, (B,) out."""
    losses = F.smooth_l1_loss(values, targets, reduction="none").squeeze(1)
    return losses, (targets - values).detach().abs().squeeze(1)


def quantile_loss(quantiles: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantile Huber loss (Dabney et al. 2018, equation 10), and how wrong the quantiles were.

    Every target weighs on every quantile theta_i: by tau_i where it lies above, 1 - tau_i where below, with tau_i the
    middle of the i-th of Q equal parts of 0..1. The sum over quantiles, the mean over targets.

    Args:
        quantiles: Shape: (B, Q).
        targets: Shape: (B, Q).

    Returns:
        losses and mean absolute errors over all pairs. Shape of each: (B,).
    """
    count = quantiles.shape[1]
    middles = (torch.arange(count, device=quantiles.device) + 0.5) / count
    errors = targets.unsqueeze(1) - quantiles.unsqueeze(2)  # Shape: (B, quantiles, targets)
    huber = torch.where(errors.abs() <= 1, 0.5 * errors**2, errors.abs() - 0.5)
    asymmetry = (middles.view(1, -1, 1) - (errors.detach() < 0).float()).abs()
    return (asymmetry * huber).mean(2).sum(1), errors.detach().abs().mean((1, 2))


class Means:
    """Means of numbers that come up on the device, read seldom."""

    def __init__(self, device: torch.device):
        self.device = device
        self.total: torch.Tensor | None = None
        self.count = 0
        self.watch = Watch()

    def add(self, numbers: torch.Tensor) -> None:
        """One more of each. Shape: (K,)."""
        self.total = numbers.clone() if self.total is None else self.total + numbers
        self.count += 1
        self.watch.add(numbers)

    def read(self) -> list[float] | None:
        """The means since the last reading, K of them; None if there was nothing."""
        if self.total is None:
            return None
        means = (self.total / self.count).tolist()
        self.total, self.count, self.watch = None, 0, Watch()
        return means

    def get_state(self) -> dict[str, Any]:
        """What has not been read."""
        return {"total": self.total, "count": self.count}

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`."""
        self.count = state["count"]
        self.total = None if state["total"] is None else state["total"].to(self.device)


class EpisodeEnds:
    """Passes the episodes that end to a model's `ep_info_buffer`, read from the device seldom.

    Args:
        model: whose episodes they are.
    """

    def __init__(self, model: BaseAlgorithm):
        self.model = model
        self.steps: list[tuple[dict[str, torch.Tensor], torch.Tensor]] = []

    def add(self, infos: dict[str, Any], dones: torch.Tensor) -> None:
        """Keep what is known of the episodes that ended in this step. dones: Shape: (N,)."""
        if isinstance(infos.get("host"), list):
            self.model._update_info_buffer(infos["host"], dones.numpy(force=True))
            return
        self.steps.append((episode_ends(infos), dones.clone()))
        if len(self.steps) == STEPS_UNREAD:
            self.read()

    def read(self) -> None:
        """Wait for the device and pass everything on."""
        if not self.steps:
            return
        names = self.steps[0][0].keys()
        dones = torch.stack([done for _, done in self.steps])
        columns = torch.stack([torch.stack([known[name] for known, _ in self.steps])[dones] for name in names])
        self.model.ep_info_buffer.extend(dict(zip(names, row, strict=True)) for row in columns.T.tolist())
        self.steps.clear()


def record_crashes(model: BaseAlgorithm) -> None:
    """Log the share of the last episodes that ended in a crash, where that is known."""
    if model.ep_info_buffer and "crashed" in model.ep_info_buffer[-1]:
        crashes = [episode["crashed"] for episode in model.ep_info_buffer]
        model.logger.record("rollout/collision_rate", float(np.mean(crashes)))
