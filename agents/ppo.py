"""PPO with everything on the device: stable-baselines3's algorithm and interface, without its copies to the host."""

import contextlib

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional as F

from agents import ranks
from agents.buffers import Minibatch, Observation, RolloutBuffer
from agents.divergence import HINT, Diverged, check_given, rollout
from agents.networks import VectorExtractor
from agents.stepping import episode_ends, stepper, to_device

# The columns of the statistics of a minibatch, and what each is called in a message.
STATISTICS = {
    "policy_gradient_loss": "the policy loss",
    "value_loss": "the value loss",
    "entropy_loss": "the entropy",
    "loss": "the sum of the losses",
    "approx_kl": "the KL divergence from the old policy",
    "clip_fraction": "the clipped fraction",
    "grad_norm": "the gradient",
}


@contextlib.contextmanager
def _unchecked_distributions():
    """Switch off the argument checks of torch.distributions, each of which waits for the device."""
    checked = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(checked)


class PPO(stable_baselines3.PPO):
    """Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), clipped, on the device.

    A drop-in `stable_baselines3.PPO`: the constructor, `learn`, `predict`, callbacks and loggers are its own, and so
    is the arithmetic, with these differences:

    - Over an `envs.sb3.SB3VecEnv` the worlds are stepped in tensors; observations never leave their device. Any other
      VecEnv works too, by NumPy as in stable-baselines3.
    - `target_kl` is looked at once an epoch, at the mean over its minibatches, not once a minibatch.
    - The log is written after the update, so that one row holds a rollout and the update made from it.
    - Statistics stay on the device until they are read, once, after the update. If one is not finite, `train` raises
      `Diverged`.
    - Under `agents.ranks.together` it learns from the worlds of all ranks as if they were its own. Numbers of worlds
      and `batch_size` are those of one rank; steps and statistics are counted over all.
    """

    def _setup_model(self) -> None:
        self.rollout_buffer_class = self.rollout_buffer_class or RolloutBuffer
        super()._setup_model()

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "PPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "PPO":
        """Alternate rollouts and updates for `total_timesteps` steps. Between two rollouts the state is complete:
        `callback.on_rollout_start` is the place to save it."""
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        # A run that goes on logs the same rollouts as one that was never stopped.
        iteration = self.num_timesteps // (self.n_steps * self.n_envs * ranks.count())
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            if not self.collect_rollouts(self.env, callback, self.rollout_buffer, n_rollout_steps=self.n_steps):
                break
            iteration += 1
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train()
            if log_interval is not None and iteration % log_interval == 0:
                self.dump_logs(iteration)
        callback.on_training_end()
        return self

    @_unchecked_distributions()
    @torch.no_grad()
    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with `n_rollout_steps` steps of every world.

        Callbacks find `obs_tensor`, `actions`, `values`, `log_probs`, `new_obs`, `rewards`, `dones` and `infos` in
        `locals`, as in stable-baselines3: tensors over our worlds, where `infos` is their dict of tensors.

        Returns:
            False if a callback ended the training.
        """
        worlds = stepper(env, self.device)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        self._last_obs = to_device(self._last_obs, self.device)
        if self.use_sde:
            self.policy.reset_noise(env.num_envs)
        callback.on_rollout_start()
        ended = []  # what is known of the episodes that ended, a tensor a step
        speed = []

        for step in range(n_rollout_steps):
            if self.use_sde and self.sde_sample_freq > 0 and step % self.sde_sample_freq == 0:
                self.policy.reset_noise(env.num_envs)
            obs_tensor = self._last_obs
            actions, values, log_probs = self._decide(obs_tensor)
            rollout_buffer.add_decision(obs_tensor, actions, values, log_probs)

            new_obs, rewards, terminated, truncated, infos = worlds.step(self._to_bounds(actions))
            dones = terminated | truncated
            self.num_timesteps += env.num_envs * ranks.count()
            callback.update_locals(locals())
            if not callback.on_step():
                return False

            rewards = self._with_timeouts(rewards, truncated & ~terminated, infos["final_obs"])
            rollout_buffer.add_outcome(rewards, dones)
            self._last_obs, self._last_episode_starts = new_obs, dones
            if isinstance(infos.get("host"), list):
                self._update_info_buffer(infos["host"], dones.numpy(force=True))
            else:
                ended.append(episode_ends(infos))
            if "speed" in infos:
                speed.append(infos["speed"].mean())

        # Whatever runs before the next rollout may move the worlds, and with them the tensors that they lent.
        self._last_obs = to_device(self._last_obs, self.device, copy=True)
        self._last_episode_starts = self._last_episode_starts.clone()
        rollout_buffer.compute_returns_and_advantage(self._last_values())
        self._record_episodes(rollout_buffer.dones, ended, speed)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _decide(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions, values and log-probabilities for the observations of N worlds."""
        return self.policy(obs)

    def _last_values(self) -> torch.Tensor:
        """Values of what the worlds show after a rollout. Shape: (N, 1)."""
        return self.policy.predict_values(self._last_obs)

    def _to_bounds(self, actions: torch.Tensor) -> torch.Tensor:
        """The actions as the worlds take them: continuous ones inside their bounds."""
        if not isinstance(self.action_space, spaces.Box):
            return actions
        low, high = (torch.as_tensor(b, device=self.device) for b in (self.action_space.low, self.action_space.high))
        if self.policy.squash_output:
            return low + 0.5 * (actions + 1) * (high - low)
        return torch.clamp(actions, low, high)

    def _with_timeouts(
        self, rewards: torch.Tensor, truncated: torch.Tensor, final_obs: Observation | None
    ) -> torch.Tensor:
        """Rewards, with gamma V(final observation) added where the time ran out: the episode would have gone on.

        On the CPU only those rows are evaluated. Elsewhere all are, because finding them would wait for the device.
        """
        if final_obs is None or (self.device.type == "cpu" and not truncated.any()):
            return rewards
        rows = truncated.nonzero().squeeze(1) if self.device.type == "cpu" else slice(None)
        chosen = {k: v[rows] for k, v in final_obs.items()} if isinstance(final_obs, dict) else final_obs[rows]
        values = self.policy.predict_values(chosen).squeeze(1)
        rewards = rewards.clone()
        rewards[rows] += self.gamma * torch.where(truncated[rows], values, 0.0)
        return rewards

    def _record_episodes(self, dones: torch.Tensor, ended: list, speed: list) -> None:
        """Pass the episodes that ended to the logger: one read for the whole rollout. dones: Shape: (T, N)."""
        if ended:
            names = ended[0].keys()
            dones = ranks.joined(dones, worlds=1)
            every = (torch.stack([step[name] for step in ended]) for name in names)
            columns = torch.stack([ranks.joined(column, worlds=1)[dones] for column in every])
            for row in columns.T.tolist()[-self._stats_window_size :]:
                self.ep_info_buffer.append(dict(zip(names, row, strict=True)))
        if self.ep_info_buffer and "crashed" in self.ep_info_buffer[-1]:
            crashes = [episode["crashed"] for episode in self.ep_info_buffer]
            self.logger.record("rollout/collision_rate", float(np.mean(crashes)))
        if speed:
            self.logger.record("rollout/mean_speed", ranks.joined(torch.stack(speed)).mean().item())

    @_unchecked_distributions()
    def train(self) -> None:
        """Update the policy from the rollout buffer, for `n_epochs` passes or until the KL divergence exceeds 1.5
        `target_kl` over one of them.

        Raises:
            Diverged: a loss or a gradient is not finite.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        clip_range = self.clip_range(self._current_progress_remaining)
        clip_range_vf = None if self.clip_range_vf is None else self.clip_range_vf(self._current_progress_remaining)

        epochs = []  # an epoch's statistics, Shape: (minibatches, len(STATISTICS))
        for _ in range(self.n_epochs):
            minibatches = self.rollout_buffer.get(self.batch_size)
            epochs.append(torch.stack([self._update(batch, clip_range, clip_range_vf) for batch in minibatches]))
            self._n_updates += 1
            if self.target_kl is not None:
                approx_kl = epochs[-1][:, list(STATISTICS).index("approx_kl")].mean()
                if not approx_kl <= 1.5 * self.target_kl:  # so written, NaN stops too
                    break
        self._record_update(epochs, clip_range, clip_range_vf)
        if isinstance(self.policy.features_extractor, VectorExtractor):
            self.policy.features_extractor.update(self.rollout_buffer.flat_observations())

    def _update(self, batch: Minibatch, clip_range: float, clip_range_vf: float | None) -> torch.Tensor:
        """One optimiser step. Returns the statistics, on the device. Shape: (len(STATISTICS),).

        Means are over the minibatch, of which a rank has a part: it adds up its own steps, and the ranks the sums.
        """
        values, log_prob, entropy = self.policy.evaluate_actions(batch.observations, batch.actions)
        values = values.flatten()
        advantages, everyone, size = batch.advantages, batch.all_advantages, len(batch.all_advantages)
        if self.normalize_advantage and size > 1:
            advantages = (advantages - everyone.mean()) / (everyone.std() + 1e-8)

        log_ratio = log_prob - batch.old_log_prob
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        policy_loss = -torch.min(advantages * ratio, advantages * clipped).sum() / size
        if clip_range_vf is not None:
            values = batch.old_values + (values - batch.old_values).clamp(-clip_range_vf, clip_range_vf)
        value_loss = F.mse_loss(values, batch.returns, reduction="sum") / size
        # Where a distribution has no closed form for its entropy, -log p of the actions taken estimates it.
        entropy_loss = (log_prob if entropy is None else -entropy).sum() / size
        loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss

        self.policy.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            approx_kl = (ratio - 1 - log_ratio).sum() / size  # http://joschu.net/blog/kl-approx.html
            clip_fraction = ((ratio - 1).abs() > clip_range).float().sum() / size
            sums = torch.stack([policy_loss, value_loss, entropy_loss, loss, approx_kl, clip_fraction])
            sums = ranks.add_up(self.policy.parameters(), sums)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return torch.cat([sums, grad_norm.detach().reshape(1)])

    def _record_update(self, epochs: list[torch.Tensor], clip_range: float, clip_range_vf: float | None) -> None:
        """Read the statistics of an update, check them and log them under stable-baselines3's names."""
        own = (self.rollout_buffer.returns, self.rollout_buffer.values)
        returns, values = (ranks.joined(tensor, worlds=1) for tensor in own)
        explained = 1 - (returns - values).var() / returns.var()
        statistics = torch.cat(epochs)
        read = torch.cat([statistics.flatten(), explained.reshape(1)]).tolist()
        explained_variance = read.pop()
        table = np.asarray(read).reshape(statistics.shape)
        self._raise_if_diverged(table)

        last_epoch = table[-len(epochs[-1]) :]
        for column, name in enumerate(STATISTICS):
            of_interest = {"approx_kl": last_epoch, "loss": table[-1:]}.get(name, table)
            self.logger.record(f"train/{name}", float(of_interest[:, column].mean()))
        self.logger.record("train/explained_variance", explained_variance)
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", self.policy.log_std.exp().mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)

    def _raise_if_diverged(self, table: np.ndarray) -> None:
        """Raise `Diverged` naming the first statistic that is not finite. table: Shape: (minibatches, statistics)."""
        broken = np.argwhere(~np.isfinite(table))
        if not len(broken):
            return
        check_given(rollout(self.rollout_buffer), self.num_timesteps)
        minibatch, column = broken[0]
        what = f"{list(STATISTICS.values())[column]} became {table[minibatch, column]}"
        raise Diverged(f"{what} in minibatch {minibatch + 1} of the update at step {self.num_timesteps}; {HINT}")

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_episode_starts"]
