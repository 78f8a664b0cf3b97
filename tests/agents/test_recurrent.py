"""The policy with a memory: sequences against a plain loop, what is forgotten when, minibatches, resuming, driving."""

import dataclasses
import signal

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from torch.nn import functional as F

import envs
from agents import checkpoint, export, policies, ranks
from agents.networks import ActorCritic, policy_kwargs, weights
from agents.ppo import PPO
from agents.recurrent import RecurrentActorCritic, RecurrentPPO, Sequences, one_step
from agents.saliency import sees_pictures
from agents.teacher import Teacher
from envs.errors import UserError
from envs.sb3 import SB3VecEnv
from evaluation.recorder import record
from train import ppo

SPACE = spaces.Dict({"state": spaces.Box(-np.inf, np.inf, (3,))})
STEPS, WORLDS, UNITS = 7, 5, 6


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RecurrentActorCritic(SPACE, spaces.Discrete(4), lambda _: 1e-3, **policy_kwargs([UNITS, 8], None))


def sequences() -> Sequences:
    draw = torch.Generator().manual_seed(0)
    seen = {"state": torch.randn(STEPS, WORLDS, 3, generator=draw)}
    starts = torch.rand(STEPS, WORLDS, generator=draw) < 0.3
    return Sequences(seen, torch.randn(2, WORLDS, UNITS, generator=draw), starts)


def by_hand(network, inputs, hidden, cell):
    """One step of one world, by the formulas of Hochreiter and Schmidhuber with a forget gate (Gers et al. 2000)."""
    lstm = network.lstm
    pre = lstm.weight_ih @ inputs + lstm.bias_ih + lstm.weight_hh @ hidden + lstm.bias_hh
    enter, forget, new, leave = pre.split(UNITS)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


@torch.no_grad()
def test_sequences_are_what_a_plain_loop_makes_of_them(network):
    seen = sequences()
    actions = torch.randint(4, (STEPS, WORLDS))
    values, log_prob, entropy = network.evaluate_actions(seen, actions.flatten())
    after = network.remember(seen).state
    for world in range(WORLDS):
        hidden, cell = seen.state[:, world]
        for step in range(STEPS):
            if seen.starts[step, world]:
                hidden, cell = torch.zeros(UNITS), torch.zeros(UNITS)
            hidden, cell = by_hand(network, seen.observations["state"][step, world], hidden, cell)
            latent = network.mlp_extractor.layers(hidden)
            log_p = F.log_softmax(network.action_net(latent), 0)
            row = step * WORLDS + world
            torch.testing.assert_close(values[row], network.value_net(latent))
            torch.testing.assert_close(log_prob[row], log_p[actions[step, world]])
            torch.testing.assert_close(entropy[row], -(log_p.exp() * log_p).sum())
        torch.testing.assert_close(after[:, world], torch.stack([hidden, cell]))


def test_gradients_flow_through_time_and_stop_where_an_episode_starts(network):
    seen = sequences()
    seen.observations["state"].requires_grad_()
    seen.starts[:] = False
    seen.starts[3, 1] = True
    network.remember(seen).outputs.unflatten(0, (STEPS, WORLDS))[-1].sum().backward()
    reached = seen.observations["state"].grad.abs().sum(2) > 0
    assert reached[:, 0].all() and reached[3:, 1].all() and not reached[:3, 1].any()
    assert all(weight.grad.abs().sum() > 0 for weight in network.lstm.parameters())


class Cue:
    """A cue, +1 or -1, at the first of `duration` steps, and nothing after it; at the last step the reward is 1 for the
    action that it called for, else 0. An episode ends there, by its time or for good."""

    single_action_space = spaces.Discrete(2)
    single_observation_space = spaces.Dict({"state": spaces.Box(-1.0, 1.0, (2,), np.float32)})
    device = torch.device("cpu")

    def __init__(self, num_worlds: int, duration: int = 4, seed: int = 0):
        self.num_worlds, self.duration = num_worlds, duration
        self.generator = torch.Generator().manual_seed(seed)
        # Worlds end at different steps.
        self.time, self.cue = torch.arange(num_worlds) % duration, torch.zeros(num_worlds)

    def _observe(self) -> dict[str, torch.Tensor]:
        shown = torch.where(self.time == 0, self.cue, 0.0)
        return {"state": torch.stack([shown, (self.time == self.duration - 1).float()], 1)}

    def reset(self, seed=None):
        self.cue = torch.randint(2, (self.num_worlds,), generator=self.generator) * 2.0 - 1
        return self._observe(), {}

    def step(self, actions):
        done = self.time == self.duration - 1
        reward = torch.where(done & (actions * 2 - 1 == self.cue), 1.0, 0.0)
        final, length = self._observe(), self.time.float() + 1
        self.time = torch.where(done, 0, self.time + 1)
        drawn = torch.randint(2, (self.num_worlds,), generator=self.generator) * 2.0 - 1
        self.cue = torch.where(done, drawn, self.cue)
        info = {"final_obs": final, "_final_obs": done, "episode_return": reward, "episode_length": length}
        info |= {"speed": torch.zeros_like(reward), "crashed": torch.zeros_like(done)}
        return self._observe(), reward, done, torch.zeros_like(done), info

    def get_state(self):
        return {"time": self.time.clone(), "cue": self.cue.clone(), "generator": self.generator.get_state()}

    def set_state(self, state):
        self.time, self.cue = state["time"].clone(), state["cue"].clone()
        self.generator.set_state(state["generator"])
        return self._observe()

    def close(self):
        pass


def model_of(worlds, recurrent=True, hidden=(16,), steps=8, batch=None, **options):
    """PPO over worlds, with and without a memory."""
    env = worlds if isinstance(worlds, SB3VecEnv) else SB3VecEnv(worlds)
    options = {"learning_rate": 1e-2, "n_epochs": 4, "gamma": 0.9, "seed": 0, "device": "cpu"} | options
    kind, network = (RecurrentPPO, RecurrentActorCritic) if recurrent else (PPO, ActorCritic)
    batch = batch or env.num_envs * steps // 2
    return kind(
        network, env, n_steps=steps, batch_size=batch, policy_kwargs=policy_kwargs(list(hidden), None), **options
    )


@pytest.fixture(scope="module")
def learnt():
    """What a policy with a memory and one without have made of the same task."""
    models = {recurrent: model_of(Cue(32), recurrent) for recurrent in (True, False)}
    for model in models.values():
        model.learn(32 * 8 * 20, log_interval=None)
    return models


def test_a_cue_is_remembered_only_by_what_has_a_memory(learnt):
    last = {recurrent: np.mean([episode["r"] for episode in learnt[recurrent].ep_info_buffer]) for recurrent in learnt}
    assert last[True] > 0.95 and 0.3 < last[False] < 0.7


def test_what_is_learnt_from_is_what_was_decided(balance):
    """The minibatches' sequences give back the rollout's own values and log-probabilities, in the second rollout too,
    which begins in the middle of episodes."""
    model = model_of(balance(6, duration=5), steps=8, batch=16)
    seen = []

    def compare(batch, *others):
        values, log_prob, _ = model.policy.evaluate_actions(batch.observations, batch.actions)
        torch.testing.assert_close(values.flatten(), batch.old_values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(log_prob, batch.old_log_prob, rtol=1e-4, atol=1e-5)
        seen.append(batch.observations.starts.shape)
        return torch.zeros(7)

    model._update = compare
    model.learn(2 * 6 * 8, log_interval=None)
    assert seen == [(8, 2)] * 3 * 4 * 2 and model.rollout_buffer.dones.any()


def test_minibatches_are_whole_worlds_and_every_world_once(balance):
    model = model_of(balance(6), steps=4, batch=8)
    model.learn(24, log_interval=None)
    buffer, found = model.rollout_buffer, []
    for batch in buffer.get(8):
        assert batch.observations.starts.shape == (4, 2)
        assert batch.observations.observations["state"].shape == (4, 2, 2)
        found.append(batch.returns.unflatten(0, (4, 2)))
    found = torch.cat(found, 1)
    assert torch.equal(found.sort(1).values, buffer.returns.sort(1).values)
    (whole,) = buffer.get(None)
    assert torch.equal(whole.returns.unflatten(0, (4, 6)).sort(1).values, buffer.returns.sort(1).values)


def test_ranks_share_every_minibatch_world_by_world(balance, monkeypatch):
    model = model_of(balance(6), steps=4, batch=8)
    model.learn(24, log_interval=None)
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "joined", lambda tensor, worlds: torch.cat([tensor, tensor + 100], worlds))
    parts = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        torch.manual_seed(0)  # ranks draw alike
        parts.append(list(model.rollout_buffer.get(8)))
    for ours, theirs in zip(*parts, strict=True):
        assert torch.equal(ours.all_advantages, theirs.all_advantages) and len(ours.all_advantages) == 2 * 8
        together = torch.cat([ours.advantages, theirs.advantages + 100])
        assert torch.equal(together.sort().values, ours.all_advantages.sort().values)


def test_timeouts_and_the_end_of_a_rollout_are_valued_with_the_memory(balance):
    """In a rollout that begins in the middle of episodes, against a loop over its steps."""
    model = model_of(balance(4, duration=3), steps=8)
    model.policy.value_net.weight.data.normal_(0, 1)  # not the small one that a critic begins with
    raw, told = [], []
    step = model.env.worlds.step

    def watched(actions):
        out = step(actions)
        raw.append(out[1].clone())
        told.append((out[2] | out[3], out[3] & ~out[2], out[4]["final_obs"]["state"].clone()))
        return out

    model.env.worlds.step = watched
    model.learn(32, log_interval=None)
    model.train = lambda: None  # the second rollout's memory begins with the first one's end
    begun = model.state.clone()
    starts = torch.as_tensor(model._last_episode_starts).clone()
    raw.clear(), told.clear()
    model.learn(32, log_interval=None, reset_num_timesteps=False)
    buffer, state, timeouts = model.rollout_buffer, begun, 0
    with torch.no_grad():
        for step, (reward, (done, truncated, final)) in enumerate(zip(raw, told, strict=True)):
            memory = model.policy.remember(one_step({"state": buffer.observations["state"][step]}, state, starts))
            state, starts = memory.state, done
            never = torch.zeros(4, dtype=torch.bool)
            value = model.policy.predict_values(one_step({"state": final}, state, never)).squeeze(1)
            expected = torch.where(truncated, reward + 0.9 * value, reward)
            torch.testing.assert_close(buffer.rewards[step], expected)
            timeouts += int(truncated.sum())
        last = model.policy.predict_values(one_step(model._last_obs, state, starts)).squeeze(1)
    assert timeouts > 4
    going_on = 0.9 * (~buffer.dones[-1]).float()
    torch.testing.assert_close(buffer.advantages[-1], buffer.rewards[-1] + going_on * last - buffer.values[-1])


def test_predict_hands_on_its_state_and_forgets_at_episode_starts(network):
    """The contract of sb3-contrib's documentation: the state goes round, episode starts reset it."""
    rng = np.random.default_rng(0)
    obs = [{"state": rng.normal(size=(WORLDS, 3)).astype(np.float32)} for _ in range(3)]
    never, always = np.zeros(WORLDS, bool), np.ones(WORLDS, bool)
    _, first = network.predict(obs[0], None, always, deterministic=True)
    _, second = network.predict(obs[1], first, never, deterministic=True)
    assert [part.shape for part in second] == [(WORLDS, UNITS)] * 2
    _, fresh = network.predict(obs[1], None, never, deterministic=True)
    _, forgotten = network.predict(obs[1], first, always, deterministic=True)
    np.testing.assert_array_equal(fresh, forgotten)
    assert np.abs(np.subtract(fresh, second)).max() > 1e-3
    some = np.arange(WORLDS) == 2
    _, mixed = network.predict(obs[1], first, some, deterministic=True)
    np.testing.assert_allclose(mixed[0], np.where(some[:, None], fresh[0], second[0]), rtol=1e-6)
    alone, state = network.predict({"state": obs[0]["state"][0]}, None, None, deterministic=True)
    assert alone.shape == () and state[0].shape == (1, UNITS)
    np.testing.assert_allclose(state[0][0], first[0][0], rtol=1e-5)


def test_stable_baselines3_evaluates_it_with_its_memory(learnt):
    mean, _ = evaluate_policy(learnt[True], SB3VecEnv(Cue(8, seed=5)), n_eval_episodes=200, warn=False)
    assert mean >= 0.95


def test_a_run_that_was_saved_ends_in_the_same_bits(tmp_path):
    whole = model_of(Cue(8), steps=6)
    whole.learn(8 * 6 * 4, log_interval=None)
    first = model_of(Cue(8), steps=6)
    first.learn(8 * 6 * 2, log_interval=None)
    checkpoint.save(tmp_path / checkpoint.NAME, first, first.get_state())
    second = model_of(Cue(8, seed=9), steps=6, seed=9)
    second.set_state(checkpoint.restore(tmp_path / checkpoint.NAME, second))
    second.learn(8 * 6 * 2, log_interval=None, reset_num_timesteps=False)
    assert torch.equal(second.state, whole.state) and whole.state.abs().sum() > 0
    ours, theirs = weights(second.policy), weights(whole.policy)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_minibatches_of_parts_of_worlds_are_refused(balance):
    with pytest.raises(UserError, match="12 steps is not of whole worlds, which have 8"):
        model_of(balance(6), steps=8, batch=12)


# --- the command, and driving -----------------------------------------------------------------------------------------

SMALL = ppo.Args(
    env="highway-fast",
    observation="state",
    policy="lstm",
    total_steps=256,
    num_worlds=8,
    rollout_steps=8,
    minibatches=2,
    epochs=2,
    hidden=(16, 8),
    checkpoint_every=1,
    device="cpu",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ppo.train(dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("lstm") / "run"))


def test_the_command_stops_and_goes_on_to_the_same_weights(run, tmp_path, monkeypatch):
    stopped = dataclasses.replace(SMALL, out=tmp_path / "run")
    collect = RecurrentPPO.collect_rollouts

    def collected(model, *others, **named):
        done = collect(model, *others, **named)
        if model.num_timesteps == 128:
            signal.raise_signal(signal.SIGTERM)
        return done

    monkeypatch.setattr(RecurrentPPO, "collect_rollouts", collected)
    with pytest.raises(checkpoint.Interrupted):
        ppo.train(stopped)
    monkeypatch.undo()
    ppo.train(ppo.Args(resume=tmp_path / "run"))
    ours, _ = checkpoint.read(tmp_path / "run" / checkpoint.NAME)
    theirs, _ = checkpoint.read(run / checkpoint.NAME)
    assert ours.keys() == theirs.keys() and "more.state" in ours
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_it_drives_each_world_with_its_own_memory(run):
    policy = policies.load(str(run), "highway-fast")
    network = policy.network
    draw = torch.Generator().manual_seed(0)
    seen = [{"state": torch.randn(4, 5, 5, generator=draw)} for _ in range(6)]
    done = torch.rand(6, 4, generator=draw) < 0.3
    starts = torch.cat([torch.zeros(1, 4, dtype=torch.bool), done[:-1]])
    stacked = {"state": torch.stack([obs["state"] for obs in seen])}
    with torch.no_grad():
        values, log_p = network.values_and_log_probabilities(Sequences(stacked, network.first_state(4), starts))
    for attempt in range(2):
        policy.reset(None)
        for step, obs in enumerate(seen):
            rows = slice(4 * step, 4 * step + 4)
            for _ in range(1 + attempt):  # asking for reasons changes nothing
                explained = policy.explain(obs)
            torch.testing.assert_close(explained["value"], values[rows].squeeze(1))
            torch.testing.assert_close(explained["probabilities"], log_p[rows].exp())
            assert torch.equal(policy.act(obs), log_p[rows].argmax(1))
            policy.reset(done[step])
    with pytest.raises(UserError, match="remembers 4 worlds, and was shown 3"):
        policy.act({"state": torch.zeros(3, 5, 5)})


def test_evaluation_drives_alike_however_many_worlds_there_are(run):
    policy = policies.load(str(run), "highway-fast")

    def recorded(count, first):
        worlds = envs.make_vec("highway-fast", count, device="cpu", **policy.env_options)
        trajectory = record(worlds, policy, seed=3, first=first)
        worlds.close()
        return trajectory

    together = recorded(3, 0)
    alone = recorded(1, 2)
    steps = int(alone.steps[0])
    assert int(together.steps[2]) == steps
    assert torch.equal(together.actions[:steps, 2], alone.actions[:steps, 0])
    torch.testing.assert_close(together.rewards[:steps, 2], alone.rewards[:steps, 0])


def test_as_a_teacher_it_remembers_what_it_saw(run):
    policy, alone = (policies.load(str(run), "highway-fast") for _ in range(2))
    teacher = Teacher(policy, spaces.Discrete(5))
    for _ in range(3):
        obs = {"state": torch.randn(2, 5, 5)}
        torch.testing.assert_close(teacher.advise(obs), alone.explain(obs)["probabilities"])
        alone.act(obs)


def test_what_needs_one_observation_alone_refuses_it(run, tmp_path):
    policy = policies.load(str(run), "highway-fast")
    with pytest.raises(UserError, match="cannot be exported"):
        export.export(export.Args(str(run), tmp_path / "policy.onnx"))
    assert not sees_pictures(policy) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_worlds": 9, "minibatches": 2}, "--num-worlds 9 cannot be cut into 2 equal --minibatches"),
        ({"hidden": ()}, "--policy lstm needs --hidden"),
        ({"policy": "lst"}, "did you mean 'lstm'"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        ppo.train(dataclasses.replace(SMALL, **({"out": tmp_path / "run"} | changes)))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [{"env": "lane-keeping"}, {"observation": "camera"}, {"observation": "camera", "encoder": "none"}],
    ids=["steering", "frozen encoder", "pixels"],
)
def test_every_kind_of_input_and_of_action(tmp_path, changes):
    small = dataclasses.replace(SMALL, total_steps=32, num_worlds=4, rollout_steps=4)
    run = ppo.train(dataclasses.replace(small, **changes, out=tmp_path / "run"))
    scenario = changes.get("env", SMALL.env)
    policy = policies.load(str(run), scenario)
    worlds = envs.make_vec(scenario, 3, device="cpu", **policy.env_options)
    obs, _ = worlds.reset()
    first = {name: tensor.clone() for name, tensor in policy.explain(obs).items()}
    obs, *_ = worlds.step(policy.act(obs))
    assert policy.explain(obs)["value"].shape == (3,) and not torch.equal(policy.explain(obs)["value"], first["value"])
    worlds.close()
