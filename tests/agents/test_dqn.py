"""DQN: its losses against numbers worked out by hand, its update against stable-baselines3's, and what it learns."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from agents import checkpoint
from agents.dqn import DQN, explore, pick, quantile_loss, td_loss
from agents.networks import QPolicy, VectorExtractor, q_network
from agents.ppo import Diverged
from agents.replay import Batch
from envs.errors import UserError
from envs.sb3 import SB3VecEnv

SETTINGS = {"buffer_size": 2000, "learning_starts": 64, "batch_size": 32, "train_freq": 2, "seed": 3, "device": "cpu"}
VECTORS = {"features_extractor_class": VectorExtractor, "net_arch": [32, 32]}
PLAIN = {"double": False, "duelling": False, "n_steps": 1}


class Chain:
    """Five states in a row: action 1 goes right, 0 left. The last one pays 1 and ends the episode; after `duration`
    steps anywhere else the time is up. Episodes begin in any of the first four."""

    single_action_space = spaces.Discrete(2)
    single_observation_space = spaces.Dict({"state": spaces.Box(0.0, 1.0, (5,), np.float32)})
    device = torch.device("cpu")

    def __init__(self, num_worlds: int, duration: int = 2):
        self.num_worlds, self.duration = num_worlds, duration

    def _begin(self, rows):
        self.place = torch.where(rows, torch.randint(4, (self.num_worlds,)), self.place)
        self.time = torch.where(rows, 0, self.time)

    def _seen(self):
        return {"state": torch.eye(5)[self.place]}

    def reset(self, seed=None):
        self.place = self.time = torch.zeros(self.num_worlds, dtype=torch.int64)
        self._begin(torch.ones(self.num_worlds, dtype=torch.bool))
        return self._seen(), {}

    def step(self, actions):
        self.place, self.time = (self.place + 2 * actions - 1).clamp(min=0), self.time + 1
        terminated, truncated = self.place == 4, self.time == self.duration
        final = self._seen()
        self._begin(terminated | truncated)
        info = {"final_obs": final, "episode_return": terminated.float(), "episode_length": self.time}
        return self._seen(), terminated.float(), terminated, truncated, info

    def close(self):
        pass


def chain_values(gamma: float) -> torch.Tensor:
    """Value of left and right in each of the four states: gamma to the number of steps before the paying one."""
    steps = torch.arange(3, -1, -1.0)
    left = gamma ** (1 + torch.tensor([3.0, 3.0, 2.0, 1.0]))
    return torch.stack([left, gamma**steps], 1)


@pytest.mark.parametrize(
    "options",
    [{}, PLAIN, {"n_steps": 1, "quantiles": 8}, {"n_steps": 1, "prioritised": True}],
    ids=["default", "plain", "quantile", "prioritised"],
)
def test_learns_the_values_of_a_chain(options):
    """Episodes last two steps: who took a timeout for an end would find the first two states worthless."""
    kwargs = {"net_arch": [32], "optimizer_kwargs": {"fused": True}}
    settings = SETTINGS | {"train_freq": 4, "gradient_steps": 8, "batch_size": 64, "gamma": 0.8}
    model = DQN(
        "MultiInputPolicy", SB3VecEnv(Chain(16)), learning_rate=lambda remaining: 1e-2 * remaining,
        policy_kwargs=kwargs, target_update_interval=200, exploration_final_eps=0.5, **(settings | options),
    )  # fmt: skip
    model.learn(5000)
    with torch.no_grad():
        values = model.q_net({"state": torch.eye(5)[:4]})
    expected = chain_values(0.8)
    # Three steps of a behaviour that is half random count against the values, by less the further left.
    tolerance = 0.02 if options.get("n_steps") == 1 else 0.15
    torch.testing.assert_close(values, expected, atol=tolerance, rtol=0.0)
    assert (values.argmax(1) == 1).all()


def test_targets_by_hand():
    """Double Q-learning chooses by the online network and looks up the target network's value."""
    batch = Batch(None, None, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.9, 0.5, 0.0]), "seen", None, None)
    online = torch.tensor([[1.0, 2.0], [5.0, 4.0], [0.0, 1.0]])
    target = torch.tensor([[30.0, 10.0], [20.0, 40.0], [7.0, 7.0]])
    model = SimpleNamespace(double=True, q_net=lambda obs: online)
    model.q_net_target = SimpleNamespace(quantiles=lambda obs: target.unsqueeze(2))
    assert DQN.targets(model, batch).squeeze(1).tolist() == [1 + 0.9 * 10, 2 + 0.5 * 20, 3]
    model.double = False
    assert DQN.targets(model, batch).squeeze(1).tolist() == [1 + 0.9 * 30, 2 + 0.5 * 40, 3]


def test_targets_of_quantiles_are_those_of_the_action_with_the_best_mean():
    quantiles = torch.tensor([[[0.0, 10.0], [4.0, 4.0]]])  # one state, two actions, two quantiles
    batch = Batch(None, None, torch.tensor([1.0]), torch.tensor([0.5]), "seen", None, None)
    model = SimpleNamespace(double=False, q_net_target=SimpleNamespace(quantiles=lambda obs: quantiles))
    assert DQN.targets(model, batch).tolist() == [[1.0, 6.0]]


def test_duelling_adds_what_is_better_than_the_mean():
    space = spaces.Dict({"a": spaces.Box(-1, 1, (2,))})
    network = q_network(space, spaces.Discrete(3), [4], None, {"duelling": True, "quantiles": 2, "layer_norm": False})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.state_value[-1].bias.copy_(torch.tensor([5.0, -5.0]))
        network.advantages[-1].bias.copy_(torch.tensor([1.0, 0.0, 2.0, 0.0, 6.0, 3.0]))  # two quantiles an action
        obs = {"a": torch.zeros(1, 2)}
        assert network.quantiles(obs).tolist() == [[[3.0, -6.0], [4.0, -6.0], [8.0, -3.0]]]
        assert network(obs).tolist() == [[-1.5, -1.0, 2.5]]


def test_td_loss_by_hand():
    losses, errors = td_loss(torch.tensor([[1.0], [1.0], [0.0]]), torch.tensor([[1.5], [-2.0], [0.0]]))
    assert losses.tolist() == [0.125, 2.5, 0.0] and errors.tolist() == [0.5, 3.0, 0.0]


def test_quantile_loss_by_hand():
    """tau is 1/4 and 3/4. Against the target 2, quantile 0 is 2 short: 1/4 (2 - 1/2); quantile 2.5 is 1/2 too high:
    (1 - 3/4) 1/8."""
    losses, errors = quantile_loss(torch.tensor([[0.0, 2.5]]), torch.tensor([[2.0, 2.0]]))
    assert losses.item() == pytest.approx(0.25 * 1.5 + 0.25 * 0.125)
    assert errors.item() == pytest.approx((2 + 0.5) / 2)


def test_quantile_loss_against_loops():
    rng = np.random.default_rng(0)
    quantiles, targets = rng.normal(size=(2, 4, 5)) * 2
    expected = np.zeros(4)
    for b in range(4):
        for i in range(5):
            for j in range(5):
                u = targets[b, j] - quantiles[b, i]
                huber = 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5
                expected[b] += abs((i + 0.5) / 5 - (u < 0)) * huber / 5
    losses, _ = quantile_loss(torch.tensor(quantiles), torch.tensor(targets))
    np.testing.assert_allclose(losses, expected)


def test_quantile_regression_finds_quantiles():
    """Of a coin that pays 0 or 10 and a third side that pays 4."""
    quantiles = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.SGD([quantiles], lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        quantile_loss(quantiles, torch.tensor([[0.0, 4.0, 10.0]]))[0].sum().backward()
        optimizer.step()
    # The Huber loss rounds the corner of the absolute value off by at most 1.
    torch.testing.assert_close(quantiles.detach(), torch.tensor([[0.0, 4.0, 10.0]]), atol=1.0, rtol=0.0)


def test_the_quantiles_of_the_actions_taken_are_picked():
    values = torch.arange(12.0).reshape(2, 3, 2)
    assert pick(values, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_exploration_is_a_share_of_the_worlds():
    values = torch.tensor([[1.0, 3.0, 2.0, 0.0]]).expand(20_000, 4)
    assert (explore(values, 0.0) == 1).all()
    shares = torch.bincount(explore(values, 0.4), minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.7, 0.1, 0.1]), atol=0.015, rtol=0.0)


def test_update_equals_stable_baselines3(balance, monkeypatch):
    """Without the extras, from the same weights and batches, five updates end in the same weights."""
    kwargs = {"net_arch": [16, 16]}
    ours = DQN("MultiInputPolicy", balance(4), policy_kwargs=dict(kwargs), learning_rate=1e-2, **(SETTINGS | PLAIN))
    ours.learn(64)
    theirs = stable_baselines3.DQN("MultiInputPolicy", balance(4), policy_kwargs=kwargs, learning_rate=1e-2, **SETTINGS)
    theirs._setup_learn(100)
    for mine, other in ((ours.q_net, theirs.q_net), (ours.q_net_target, theirs.q_net_target)):
        for parameter, copied in zip(mine.parameters(), other.parameters(), strict=True):
            copied.data.copy_(parameter)
    batches = [ours.replay_buffer.sample(32) for _ in range(5)]
    assert any((batch.discounts == 0).any() for batch in batches)
    for_them = iter(batches)

    def sample(batch_size, env):
        b = next(for_them)
        column = {name: tensor.unsqueeze(1) for name, tensor in b._asdict().items() if isinstance(tensor, torch.Tensor)}
        return SimpleNamespace(
            observations=b.observations, next_observations=b.next_observations, actions=column["actions"],
            rewards=column["returns"], dones=(column["discounts"] == 0).float(), discounts=None,
        )  # fmt: skip

    monkeypatch.setattr(theirs.replay_buffer, "sample", sample)
    mine = iter(batches)
    monkeypatch.setattr(ours.replay_buffer, "sample", lambda batch_size: next(mine))
    before = copy.deepcopy(ours.policy.state_dict())
    ours.train(5, 32)
    theirs.train(5, 32)
    for parameter, other in zip(ours.q_net.parameters(), theirs.q_net.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(before[name], tensor) for name, tensor in ours.policy.state_dict().items())


def test_prioritised_draws_are_weighed_and_their_errors_kept(balance):
    model = DQN("MultiInputPolicy", balance(4), prioritised=True, beta=0.4, **SETTINGS)
    asked, kept = [], []
    model.learn(200)
    sample, update = model.replay_buffer.sample, model.replay_buffer.update_priorities
    model.replay_buffer.sample = lambda size, beta: asked.append(beta) or sample(size, beta)
    model.replay_buffer.update_priorities = lambda rows, errors: kept.append(errors) or update(rows, errors)
    model._current_progress_remaining = 0.5
    model.train(2, 32)
    assert asked == [pytest.approx(0.7)] * 2
    assert [len(errors) for errors in kept] == [32, 32] and all((errors >= 0).all() for errors in kept)


def test_both_networks_scale_observations_alike(balance):
    model = DQN(QPolicy, balance(4), policy_kwargs=dict(VECTORS), **SETTINGS)
    model.learn(400)
    online, target = model.q_net.features_extractor, model.q_net_target.features_extractor
    assert online.count == target.count == 400
    assert torch.equal(online.mean, target.mean) and torch.equal(online.variance, target.variance)


def model_of(balance, seed=0, **options):
    return DQN(
        QPolicy, balance(4), policy_kwargs=VECTORS | {"optimizer_kwargs": {"fused": True}},
        learning_rate=lambda remaining: 1e-2 * remaining, target_update_interval=40, gradient_steps=2,
        **(SETTINGS | {"buffer_size": 200, "seed": seed} | options),
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"prioritised": True, "quantiles": 4}], ids=["default", "prioritised"])
def test_restored_training_goes_on_bit_for_bit(balance, tmp_path, options):
    """Stopped between two rows of the log, before and after the replay has gone round."""
    whole, paths = model_of(balance, **options), {}
    saves = checkpoint.Checkpoints(lambda: None, every=1)

    def save():
        if saves.rollouts in (5, 31):
            paths[saves.rollouts] = tmp_path / f"{saves.rollouts}.safetensors"
            checkpoint.save(paths[saves.rollouts], whole, whole.get_state())

    saves.save = save
    rows = []
    whole.learn(400, [saves, Rows(rows)], log_interval=7)
    for path in paths.values():
        resumed, more = model_of(balance, seed=99, **options), []
        resumed.set_state(checkpoint.restore(path, resumed))
        resumed.learn(400 - resumed.num_timesteps, Rows(more), log_interval=7, reset_num_timesteps=False)
        assert resumed._n_updates == whole._n_updates
        for name, tensor in whole.policy.state_dict().items():
            assert torch.equal(tensor, resumed.policy.state_dict()[name]), name
        assert list(resumed.ep_info_buffer) == list(whole.ep_info_buffer)
        assert more and more == rows[-len(more) :]
    assert len(paths) == 2


class Rows(BaseCallback):
    """Keeps what is written to the log, but for the time it took."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def _on_training_start(self):
        dump = self.logger.dump
        self.logger.dump = lambda step: (
            self.rows.append({k: v for k, v in self.logger.name_to_value.items() if not k.startswith("time/")}),
            dump(step),
        )

    def _on_step(self):
        return True


def test_cartpole_with_callbacks_and_evaluation(tmp_path):
    """A VecEnv that is not ours, under stable-baselines3's own tools."""
    env = make_vec_env("CartPole-v1", n_envs=8, seed=0)
    evaluation = EvalCallback(make_vec_env("CartPole-v1", n_envs=2), eval_freq=500, n_eval_episodes=4, verbose=0)
    settings = SETTINGS | {"buffer_size": 20_000, "learning_starts": 500, "train_freq": 16, "batch_size": 64}
    settings |= {"policy_kwargs": {"optimizer_kwargs": {"fused": True}}, "gamma": 0.98}
    model = DQN(
        "MlpPolicy", env, tensorboard_log=str(tmp_path), learning_rate=lambda remaining: 3e-3 * remaining,
        gradient_steps=24, target_update_interval=400, exploration_fraction=0.3, **settings,
    )  # fmt: skip
    model.learn(8000, callback=evaluation, log_interval=10)
    assert evaluation.n_calls == 63 * 16
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", n_envs=2, seed=9), n_eval_episodes=10)
    assert mean > 80  # a random policy's is 22
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_saves_and_loads_as_stable_baselines3_does(balance, tmp_path):
    model = DQN("MultiInputPolicy", balance(4), quantiles=3, **SETTINGS)
    model.learn(128)
    model.save(tmp_path / "model")
    again = DQN.load(tmp_path / "model", env=balance(4))
    obs = {"state": np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)}
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], again.predict(obs, deterministic=True)[0])
    assert again.q_net.outputs == (2, 3)
    again.learn(64, reset_num_timesteps=False)
    assert again.num_timesteps == 192


def test_learning_again_does_not_join_two_episodes(balance):
    model = DQN("MultiInputPolicy", balance(4), **SETTINGS)
    model.learn(40)
    last = model._last_obs["state"].clone()
    model.learn(40)
    batch = model.replay_buffer.at(torch.arange(36, 40))
    going_on = batch.discounts > 0
    assert going_on.any()
    timed_out = model.replay_buffer.timed_out[36:40] & (model.replay_buffer.final[36:40] > 0)
    assert (timed_out == going_on).all()
    torch.testing.assert_close(batch.next_observations["state"][going_on], last[going_on])


def test_divergence_is_reported_by_name(balance):
    model = DQN("MultiInputPolicy", balance(4), **SETTINGS)
    model.learn(64)
    model.replay_buffer.rewards.fill_(float("nan"))
    with pytest.raises(Diverged, match="a reward of the replay is not finite at step"):
        model.learn(200, reset_num_timesteps=False)


def test_a_callback_can_end_the_training(balance):
    class After(BaseCallback):
        def _on_step(self):
            return self.n_calls < 21

    model = DQN("MultiInputPolicy", balance(4), **SETTINGS)
    model.learn(10_000, callback=After())
    assert model.num_timesteps == 84


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_freq": (1, "episode")}, "train_freq counts steps"),
        ({"n_steps": 0}, "n_steps and quantiles must be at least 1"),
        ({"buffer_size": 8}, "too small"),
    ],
)
def test_impossible_settings_are_named(balance, options, message):
    with pytest.raises(UserError, match=message):
        DQN("MultiInputPolicy", balance(4), **(SETTINGS | options))
