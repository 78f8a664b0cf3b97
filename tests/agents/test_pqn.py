"""PQN: its returns against a loop over their definition, and what it learns."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from agents import checkpoint
from agents.networks import QPolicy, VectorExtractor
from agents.ppo import Diverged
from agents.pqn import PQN

SETTINGS = {"n_steps": 16, "batch_size": 32, "n_epochs": 3, "gamma": 0.95, "seed": 3, "device": "cpu"}
VECTORS = {"features_extractor_class": VectorExtractor, "net_arch": [32, 32]}


def rolled(env, **settings):
    """A model with one rollout in its buffer, and what each step of the worlds gave."""
    model = PQN("MultiInputPolicy", env, **(SETTINGS | settings))
    given = []
    step = env.worlds.step

    def watched(actions):
        obs, reward, terminated, truncated, info = step(actions)
        final = {name: tensor.clone() for name, tensor in info["final_obs"].items()}
        given.append((obs["state"].clone(), reward.clone(), terminated.clone(), truncated.clone(), final["state"]))
        return obs, reward, terminated, truncated, info

    env.worlds.step = watched
    _, callback = model._setup_learn(1000)
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    return model, given


@pytest.mark.parametrize("q_lambda", [0.0, 0.65, 1.0])
def test_returns_equal_a_loop_over_their_definition(balance, q_lambda):
    """G_t = r_t + gamma ((1 - lambda) max Q(s_t+1) + lambda G_t+1), up to the end of the episode or rollout; where an
    episode ended, max Q of what it saw last if the time ran out, else nothing."""
    model, given = rolled(balance(6, duration=5), q_lambda=q_lambda)

    def best(obs):
        with torch.no_grad():
            return model.q_net({"state": obs.unsqueeze(0)}).max().item()

    for world in range(6):
        after = best(given[-1][0][world])
        for t in reversed(range(len(given))):
            obs, reward, terminated, truncated, final = (part[world] for part in given[t])
            if terminated:
                after = reward.item()
            elif truncated:
                after = reward.item() + 0.95 * best(final)
            else:
                after = reward.item() + 0.95 * ((1 - q_lambda) * best(obs) + q_lambda * after)
            assert model.rollout_buffer.returns[t, world].item() == pytest.approx(after, rel=1e-4, abs=1e-5)
    ends = torch.stack([step[2] for step in given]), torch.stack([step[3] & ~step[2] for step in given])
    assert all(kind.any() for kind in ends)


def test_update_draws_values_to_the_returns(balance):
    """One full-batch step of gradient descent, against torch's own gradient of the loss."""
    kwargs = {"net_arch": [16], "optimizer_class": torch.optim.SGD}
    model, _ = rolled(balance(6), batch_size=96, n_epochs=1, policy_kwargs=kwargs, learning_rate=0.1, max_grad_norm=1e9)
    buffer = model.rollout_buffer
    before = [parameter.detach().clone() for parameter in model.q_net.parameters()]
    values = model.q_net({"state": buffer.observations["state"].flatten(0, 1)})
    chosen = values.gather(1, buffer.actions.flatten().unsqueeze(1)).squeeze(1)
    loss = ((chosen - buffer.returns.flatten()) ** 2).mean() / 2
    gradients = torch.autograd.grad(loss, list(model.q_net.parameters()))
    model.train()
    for old, gradient, new in zip(before, gradients, model.q_net.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    assert model.logger.name_to_value["train/td_loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_hidden_layers_are_normalised_and_there_is_no_target(balance):
    model = PQN("MultiInputPolicy", balance(4), **SETTINGS)
    norms = [layer for layer in model.q_net.modules() if isinstance(layer, torch.nn.LayerNorm)]
    assert len(norms) == 2 and model.policy.q_net_target is None


def test_learns_to_balance(balance):
    model = PQN(
        QPolicy, balance(32), policy_kwargs=dict(VECTORS), learning_rate=lambda remaining: 1e-2 * remaining,
        exploration_fraction=0.5, exploration_final_eps=0.1, **(SETTINGS | {"batch_size": 64, "q_lambda": 0.9}),
    )  # fmt: skip
    model.learn(16_000)
    obs, _ = model.env.worlds.reset(seed=1)
    totals, ended = [], 0
    for _ in range(48):
        obs, _, terminated, truncated, info = model.env.worlds.step(model.q_net(obs).argmax(1))
        totals += info["episode_return"][terminated | truncated].tolist()
        ended += int(terminated.sum())
    # Standing still in the middle would give 12; noise of 0.1 a step and a push of 0.15 leave about 10.
    assert np.mean(totals) > 9 and ended < 0.05 * len(totals)


def test_epsilon_falls_with_progress(balance):
    model = PQN("MultiInputPolicy", balance(4), exploration_fraction=0.5, exploration_final_eps=0.1, **SETTINGS)
    rates = []

    class Watch(checkpoint.BaseCallback):
        def _on_rollout_end(self):
            rates.append(self.model.exploration_rate)

        def _on_step(self):
            return True

    model.learn(4 * 16 * 8, Watch())
    assert rates == pytest.approx([1.0, 0.775, 0.55, 0.325, 0.1, 0.1, 0.1, 0.1])


def test_restored_training_goes_on_bit_for_bit(balance, tmp_path):
    def make(seed):
        return PQN(
            QPolicy, balance(8), policy_kwargs=dict(VECTORS), learning_rate=lambda remaining: 1e-2 * remaining,
            **(SETTINGS | {"n_steps": 8, "seed": seed}),
        )  # fmt: skip

    path, whole = tmp_path / checkpoint.NAME, make(0)
    saves = checkpoint.Checkpoints(lambda: saves.rollouts == 3 and checkpoint.save(path, whole), every=1)
    whole.learn(8 * 8 * 6, saves)
    resumed = make(99)
    checkpoint.restore(path, resumed)
    resumed.learn(8 * 8 * 6 - 192, reset_num_timesteps=False)
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name
    assert list(resumed.ep_info_buffer) == list(whole.ep_info_buffer)


def test_cartpole_with_callbacks_and_evaluation():
    """A VecEnv that is not ours, under stable-baselines3's own tools."""
    env = make_vec_env("CartPole-v1", n_envs=16, seed=0)
    evaluation = EvalCallback(make_vec_env("CartPole-v1", n_envs=2), eval_freq=500, n_eval_episodes=4, verbose=0)
    settings = SETTINGS | {"batch_size": 64, "n_epochs": 6, "gamma": 0.98, "q_lambda": 0.9}
    settings |= {"learning_rate": lambda remaining: 3e-3 * remaining, "exploration_fraction": 0.3}
    model = PQN("MlpPolicy", env, **settings)
    model.learn(12_000, callback=evaluation)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", n_envs=2, seed=9), n_eval_episodes=10)
    assert mean > 80  # a random policy's is 22


def test_saves_and_loads_as_stable_baselines3_does(balance, tmp_path):
    model = PQN("MultiInputPolicy", balance(4), **SETTINGS)
    model.learn(64)
    model.save(tmp_path / "model")
    again = PQN.load(tmp_path / "model", env=balance(4))
    obs = {"state": np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)}
    np.testing.assert_array_equal(model.predict(obs)[0], again.predict(obs)[0])
    again.learn(64, reset_num_timesteps=False)
    assert again.num_timesteps == 128


def test_divergence_is_reported_by_name(balance):
    model, _ = rolled(balance(6))
    model.rollout_buffer.returns[3, 2] = float("nan")
    with pytest.raises(Diverged, match="the loss became nan before step 96"):
        model.train()
