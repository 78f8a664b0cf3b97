"""PQN: Q-learning from many worlds at once, without a replay buffer and without a target network."""

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional as F

from agents.buffers import Minibatch, Observation, RolloutBuffer
from agents.divergence import rollout
from agents.dqn import STATISTICS, EpisodeEnds, Means, explore, record_crashes
from agents.networks import QPolicy, VectorExtractor
from agents.stepping import stepper, to_device


class PQN(OnPolicyAlgorithm):
    """Parallelised Q-network (Gallici et al. 2024, https://arxiv.org/abs/2407.04811), on the device.

    Short epsilon-greedy rollouts of many worlds; lambda-returns of them under the network as it is; several epochs of
    minibatches towards those returns. Layer normalisation takes the place of the target network. With stable-baselines3
    it shares callbacks, loggers, `predict` and the names of settings; worlds are stepped as in `agents.ppo.PPO`.

    Args:
        policy: "MlpPolicy", "MultiInputPolicy", "CnnPolicy" or a subclass of `QPolicy`.
        env: what to learn in.
        learning_rate: or a function of the remaining progress.
        n_steps: steps of each world in a rollout.
        batch_size: steps of a minibatch.
        n_epochs: passes over a rollout.
        gamma: the discount factor of one step.
        q_lambda: 0 looks up a value after one step, 1 at the end of the rollout or episode.
        exploration_fraction: of the training, over which epsilon falls.
        exploration_initial_eps, exploration_final_eps: epsilon at the start and after that.
        max_grad_norm: of the gradient.
        policy_kwargs: of `QPolicy`; by default layer-normalised, without duelling, learnt by RAdam.
        others: see stable-baselines3's `OnPolicyAlgorithm`.
    """

    policy_aliases = dict.fromkeys(("MlpPolicy", "MultiInputPolicy", "CnnPolicy"), QPolicy)

    def __init__(
        self,
        policy: str | type[QPolicy],
        env: Any,
        learning_rate: float | Schedule = 2.5e-4,
        n_steps: int = 32,
        batch_size: int = 128,
        n_epochs: int = 2,
        gamma: float = 0.99,
        q_lambda: float = 0.65,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.01,
        max_grad_norm: float = 10.0,
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **others: Any,
    ):
        own = {"duelling": False, "layer_norm": True, "target": False, "optimizer_class": torch.optim.RAdam}
        # stable-baselines3 asks for these; they have no meaning here.
        unused = {"ent_coef": 0.0, "vf_coef": 0.0, "use_sde": False, "sde_sample_freq": -1}
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps,
            gamma,
            q_lambda,
            max_grad_norm=max_grad_norm,
            policy_kwargs=own | (policy_kwargs or {}),
            supported_action_spaces=(spaces.Discrete,),
            _init_setup_model=False,
            **unused,
            **others,
        )
        self.batch_size, self.n_epochs = batch_size, n_epochs
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps, self.exploration_final_eps = exploration_initial_eps, exploration_final_eps
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self.rollout_buffer = (self.rollout_buffer_class or RolloutBuffer)(
            self.n_steps,
            self.observation_space,
            self.action_space,
            device=self.device,
            gae_lambda=self.gae_lambda,
            gamma=self.gamma,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        self.policy = self.policy_class(
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)
        self.q_net = self.policy.q_net
        self.exploration_schedule = LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )
        self.exploration_rate = self.exploration_initial_eps
        self.ended = EpisodeEnds(self)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 1,
        tb_log_name: str = "PQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> "PQN":
        """Alternate rollouts and updates for `total_timesteps` steps. Between two rollouts the state is complete:
        `callback.on_rollout_start` is the place to save it."""
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        # A run that goes on logs the same rollouts as one that was never stopped.
        iteration = self.num_timesteps // (self.n_steps * self.n_envs)
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if not self.collect_rollouts(self.env, callback, self.rollout_buffer, n_rollout_steps=self.n_steps):
                break
            iteration += 1
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train()
            if log_interval is not None and iteration % log_interval == 0:
                self.dump_logs(iteration)
        callback.on_training_end()
        return self

    @torch.no_grad()
    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with `n_rollout_steps` steps of every world, and with their lambda-returns.

        Callbacks find the same in `locals` as with `agents.ppo.PPO`.

        Returns:
            False if a callback ended the training.
        """
        worlds = stepper(env, self.device)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        self._last_obs = to_device(self._last_obs, self.device)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)
        callback.on_rollout_start()
        speeds = Means(self.device)

        for _ in range(n_rollout_steps):
            obs_tensor = self._last_obs
            q_values = self.q_net(obs_tensor)
            actions = explore(q_values, self.exploration_rate)
            values = q_values.amax(1)
            rollout_buffer.add_decision(obs_tensor, actions, values, torch.zeros_like(values))

            new_obs, rewards, terminated, truncated, infos = worlds.step(actions)
            dones = terminated | truncated
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False

            rewards = self._with_timeouts(rewards, truncated & ~terminated, infos["final_obs"])
            rollout_buffer.add_outcome(rewards, dones)
            self._last_obs, self._last_episode_starts = new_obs, dones
            self.ended.add(infos, dones)
            if "speed" in infos:
                speeds.add(infos["speed"].mean().reshape(1))

        # Whatever runs before the next rollout may move the worlds, and with them the tensors that they lent.
        self._last_obs = to_device(self._last_obs, self.device, copy=True)
        self._last_episode_starts = self._last_episode_starts.clone()
        # Where values are those of the best actions, what generalised advantages add up to are the lambda-returns.
        rollout_buffer.compute_returns_and_advantage(self.q_net(self._last_obs).amax(1))
        self.ended.read()
        record_crashes(self)
        if (speed := speeds.read()) is not None:
            self.logger.record("rollout/mean_speed", speed[0])
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _with_timeouts(
        self, rewards: torch.Tensor, truncated: torch.Tensor, final_obs: Observation | None
    ) -> torch.Tensor:
        """Rewards, with gamma max Q(final observation) added where the time ran out: the episode would have gone on.

        On the CPU nothing is evaluated unless some time ran out. Elsewhere that would wait for the device.
        """
        if final_obs is None or (self.device.type == "cpu" and not truncated.any()):
            return rewards
        return rewards + self.gamma * torch.where(truncated, self.q_net(final_obs).amax(1), 0.0)

    def train(self) -> None:
        """Draw the network towards the returns in the rollout buffer, for `n_epochs` passes.

        Raises:
            Diverged: the loss, a value or a gradient is not finite.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        updates = Means(self.device)
        for _ in range(self.n_epochs):
            for batch in self.rollout_buffer.get(self.batch_size):
                updates.add(self._update(batch))
            self._n_updates += 1
        updates.watch.check(STATISTICS.values(), self.num_timesteps, rollout(self.rollout_buffer))
        for name, value in zip(STATISTICS, updates.read(), strict=True):
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if isinstance(self.q_net.features_extractor, VectorExtractor):
            self.q_net.features_extractor.update(self.rollout_buffer.flat_observations())

    def _update(self, batch: Minibatch) -> torch.Tensor:
        """One optimiser step. Returns the statistics, on the device. Shape: (len(STATISTICS),)."""
        values = self.q_net(batch.observations).gather(1, batch.actions.unsqueeze(1)).squeeze(1)
        loss = 0.5 * F.mse_loss(values, batch.returns)
        self.policy.optimizer.zero_grad()
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        return torch.stack([loss.detach(), values.detach().mean(), grad_norm])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_episode_starts", "q_net", "ended"]
