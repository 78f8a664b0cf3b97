"""PPO against stable-baselines3's own, and what stable-baselines3's tools expect of it."""

import copy

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from agents.networks import ActorCritic, VectorExtractor
from agents.ppo import PPO, Diverged

SETTINGS = {"n_steps": 16, "batch_size": 32, "n_epochs": 3, "gamma": 0.95, "seed": 3, "device": "cpu"}
VECTORS = {"features_extractor_class": VectorExtractor, "net_arch": [64, 64]}


def collected(algorithm, env, **settings):
    """A model with one rollout in its buffer."""
    model = algorithm("MultiInputPolicy", env, **(SETTINGS | settings))
    _, callback = model._setup_learn(1000)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model


def copy_rollout(ours: PPO, theirs: stable_baselines3.PPO) -> None:
    """Put our rollout into stable-baselines3's buffer."""
    source, target = ours.rollout_buffer, theirs.rollout_buffer
    target.reset()
    target.observations = {key: value.numpy().copy() for key, value in source.observations.items()}
    target.actions = source.actions.numpy()[..., None].copy()
    for name in ("rewards", "values", "log_probs", "advantages", "returns"):
        setattr(target, name, getattr(source, name).numpy().copy())
    target.pos, target.full = target.buffer_size, True


@pytest.mark.parametrize("clip_range_vf", [None, 0.1])
def test_update_equals_stable_baselines3(balance, monkeypatch, clip_range_vf):
    """From the same weights, rollout and permutations, one call of `train` ends in the same weights."""
    settings = {"ent_coef": 0.01, "clip_range_vf": clip_range_vf, "learning_rate": 3e-3}
    ours = collected(PPO, balance(6), **settings)
    theirs = stable_baselines3.PPO("MultiInputPolicy", balance(6), **(SETTINGS | settings))
    theirs._setup_learn(1000)
    theirs.policy.load_state_dict(copy.deepcopy(ours.policy.state_dict()))
    copy_rollout(ours, theirs)

    worlds, steps = 6, SETTINGS["n_steps"]
    rng = np.random.default_rng(0)
    orders = [rng.permutation(worlds * steps) for _ in range(SETTINGS["n_epochs"])]
    # stable-baselines3 numbers the steps of a rollout world by world, we step by step.
    ours_of_theirs = [(order % steps) * worlds + order // steps for order in orders]
    theirs_next, ours_next = iter(orders), iter(ours_of_theirs)
    monkeypatch.setattr(np.random, "permutation", lambda size: next(theirs_next))
    monkeypatch.setattr(torch, "randperm", lambda size, device: torch.as_tensor(next(ours_next)))

    before = copy.deepcopy(ours.policy.state_dict())
    ours.train()
    theirs.train()
    for name, tensor in theirs.policy.state_dict().items():
        torch.testing.assert_close(ours.policy.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(before[name], tensor) for name, tensor in ours.policy.state_dict().items())
    for name in ("policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction", "loss"):
        logged = theirs.logger.name_to_value[f"train/{name}"]
        assert ours.logger.name_to_value[f"train/{name}"] == pytest.approx(logged, rel=1e-3, abs=1e-6)
    # stable-baselines3 flattens its buffer while it trains, so compare with the definition.
    returns, values = ours.rollout_buffer.returns.numpy(), ours.rollout_buffer.values.numpy()
    explained = 1 - np.var(returns - values) / np.var(returns)
    assert ours.logger.name_to_value["train/explained_variance"] == pytest.approx(explained, rel=1e-4)


class Plain(VecEnvWrapper):
    """A wrapper, behind which PPO must not reach for the worlds."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


@pytest.mark.parametrize("wrap", [lambda env: env, Plain], ids=["tensors", "arrays"])
def test_rollout_equals_stable_baselines3(balance, wrap):
    """With the same weights and random numbers, the buffers hold the same rollout, timeouts bootstrapped."""
    theirs = collected(stable_baselines3.PPO, balance(6))
    ours = collected(PPO, wrap(balance(6)))
    for name in ("rewards", "values", "log_probs", "advantages", "returns"):
        numbers = getattr(theirs.rollout_buffer, name)
        np.testing.assert_allclose(getattr(ours.rollout_buffer, name), numbers, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(ours.rollout_buffer.actions, theirs.rollout_buffer.actions[..., 0])
    finished = [episode["r"] for episode in theirs.ep_info_buffer]
    assert [episode["r"] for episode in ours.ep_info_buffer] == pytest.approx(finished)
    assert ours.rollout_buffer.dones.any()


def test_timeouts_are_bootstrapped_and_crashes_are_not(balance):
    model = PPO("MultiInputPolicy", balance(4), **SETTINGS)
    rewards = torch.tensor([1.0, 1.0, 1.0, 1.0])
    final_obs = {"state": torch.randn(4, 2)}
    truncated = torch.tensor([False, True, False, True])
    with torch.no_grad():
        values = model.policy.predict_values(final_obs).squeeze(1)
        bootstrapped = model._with_timeouts(rewards, truncated, final_obs)
    torch.testing.assert_close(bootstrapped, rewards + 0.95 * values * truncated)


def test_our_network_scores_actions_as_its_distribution(balance):
    model = PPO(ActorCritic, balance(4), policy_kwargs=VECTORS, **SETTINGS)
    obs = {"state": torch.randn(50, 2)}
    actions = torch.randint(2, (50,))
    values, log_prob, entropy = model.policy.evaluate_actions(obs, actions)
    distribution = model.policy.get_distribution(obs)
    torch.testing.assert_close(log_prob, distribution.log_prob(actions))
    torch.testing.assert_close(entropy, distribution.entropy())
    torch.testing.assert_close(values, model.policy.predict_values(obs))


def test_sampling_follows_the_probabilities(balance):
    model = PPO(ActorCritic, balance(4), policy_kwargs=VECTORS, **SETTINGS)
    with torch.no_grad():
        model.policy.action_net.bias.copy_(torch.tensor([1.0, 0.0]))
    obs = {"state": torch.zeros(20_000, 2)}
    with torch.no_grad():
        actions, _, log_prob = model.policy(obs)
        greedy, _, _ = model.policy(obs, deterministic=True)
        probability = model.policy.get_distribution(obs).distribution.probs[0, 1].item()
    # Four standard deviations of a binomial proportion.
    assert actions.float().mean().item() == pytest.approx(probability, abs=4 * (0.25 / 20_000) ** 0.5)
    torch.testing.assert_close(log_prob.exp()[actions == 1][0].item(), probability)
    assert (greedy == 0).all()


def test_learns_to_balance(balance):
    settings = SETTINGS | {"batch_size": 128, "learning_rate": 3e-3}
    model = PPO(ActorCritic, balance(32), policy_kwargs=VECTORS, **settings)
    model.learn(20_000)
    # Standing still in the middle would give 12; noise of 0.1 a step and a push of 0.15 leave about 10.
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) > 9
    assert np.mean([episode["crashed"] for episode in model.ep_info_buffer]) < 0.02


def test_cartpole_with_callbacks_and_evaluation(tmp_path):
    """A VecEnv that is not ours, under stable-baselines3's own tools."""
    env = make_vec_env("CartPole-v1", n_envs=8, seed=0)
    evaluation = EvalCallback(make_vec_env("CartPole-v1", n_envs=2), eval_freq=500, n_eval_episodes=4, verbose=0)
    settings = SETTINGS | {"n_steps": 64, "batch_size": 256, "n_epochs": 8, "learning_rate": 3e-3, "gamma": 0.98}
    model = PPO("MlpPolicy", env, tensorboard_log=str(tmp_path), **settings)
    model.learn(12_000, callback=evaluation)
    assert evaluation.n_calls == 12_288 / 8
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", n_envs=2, seed=9), n_eval_episodes=10)
    assert mean > 80  # a random policy's is 22
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_continuous_actions_stay_inside_their_bounds():
    env = DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")] * 2)
    model = PPO("MlpPolicy", env, policy_kwargs={"log_std_init": 2.0}, **SETTINGS)
    taken = []
    step = env.step_async
    env.step_async = lambda actions: (taken.append(actions), step(actions))
    model.learn(32)
    assert np.abs(taken).max() == 2.0  # of torque, Pendulum's bound
    assert model.rollout_buffer.actions.abs().max() > 2.0  # what was sampled is what is learnt from


def test_saves_and_loads_as_stable_baselines3_does(balance, tmp_path):
    model = PPO("MultiInputPolicy", balance(4), **SETTINGS)
    model.learn(64)
    model.save(tmp_path / "model")
    again = PPO.load(tmp_path / "model", env=balance(4))
    obs = {"state": np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)}
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], again.predict(obs, deterministic=True)[0])
    again.learn(64, reset_num_timesteps=False)
    assert again.num_timesteps == 128


def test_divergence_is_reported_by_name(balance):
    model = collected(PPO, balance(6))
    model.rollout_buffer.returns[3, 2] = float("nan")
    with pytest.raises(Diverged, match=r"the value loss became nan in minibatch \d of the update at step 96"):
        model.train()
    model = collected(PPO, balance(6))
    model.rollout_buffer.rewards[0, 0] = float("inf")
    model.rollout_buffer.compute_returns_and_advantage(torch.zeros(6))
    with pytest.raises(Diverged, match="a reward of the rollout is not finite"):
        model.train()


def test_stops_early_when_the_policy_has_moved_too_far(balance):
    model = collected(PPO, balance(6), target_kl=1e-7, n_epochs=5, learning_rate=1e-2)
    model.train()
    assert model._n_updates == 1


def test_a_callback_can_end_the_training(balance):
    class After(BaseCallback):
        def _on_step(self):
            return self.n_calls < 20

    model = PPO("MultiInputPolicy", balance(4), **SETTINGS)
    model.learn(10_000, callback=After())
    assert model.num_timesteps == 80
