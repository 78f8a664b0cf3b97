"""DAgger: that a student becomes its teacher, in the states that it comes to itself."""

from collections import deque

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from agents import checkpoint
from agents.dagger import DAgger, Dataset, agreement, divergence, draw
from agents.networks import ActorCritic, policy_kwargs
from agents.teacher import DEVIATION, TaughtWorlds, Teacher, make_taught
from envs.errors import UserError
from envs.sb3 import SB3VecEnv

WEIGHTS, BIAS = torch.tensor([4.0, -1.5]), 0.5  # of the linear teachers


class Linear:
    """The probability of pushing right is the logistic function of a linear one of the state."""

    name, env_options = "linear", {"observation": "state"}

    def explain(self, obs):
        right = torch.sigmoid(obs["state"] @ WEIGHTS + BIAS)
        return {"probabilities": torch.stack([1 - right, right], 1)}

    def reset(self, done=None):
        pass


class LinearPush(Linear):
    """Pushes as hard as a linear function of the state says, give or take 0.3."""

    def explain(self, obs):
        mean = (obs["state"] @ WEIGHTS + BIAS).unsqueeze(1) / 4
        return {"mean": mean, "deviation": torch.full_like(mean, 0.3)}


class Always(Linear):
    """One action, whatever happens, and no explanation."""

    def __init__(self, action):
        self.action = action

    def explain(self, obs):
        return None

    def act(self, obs):
        return torch.full((len(obs["state"]), *np.shape(self.action)), 0) + torch.tensor(self.action)


def pushed(balance, num_worlds):
    """Balance worlds whose actions are continuous."""

    class PushWorlds(type(balance(1).worlds)):
        single_action_space = spaces.Box(-1.0, 1.0, (1,))

        def step(self, actions):
            return super().step(actions[:, 0] / 2 + 0.5)

    return PushWorlds(num_worlds)


def student(worlds, teacher, hidden=(), **options):
    taught = TaughtWorlds(worlds, Teacher(teacher, worlds.single_action_space), ["state"])
    usual = {"dataset_size": 4096, "teacher_fraction": 0.3, "n_steps": 16, "batch_size": 64, "seed": 0}
    usual |= {"learning_rate": lambda remaining: 0.05 * remaining, "gamma": 0.9, "n_epochs": 4}
    kwargs = policy_kwargs(list(hidden), None)
    return DAgger(ActorCritic, SB3VecEnv(taught), policy_kwargs=kwargs, device="cpu", **usual | options)


def linear_function(model):
    """Weights and bias of a student without hidden layers, of the state as it is: its inputs are normalised first."""
    extractor, net = model.policy.features_extractor, model.policy.action_net
    weight, bias = net.weight.detach(), net.bias.detach()
    if isinstance(model.action_space, spaces.Discrete):
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    weight = weight[0] * torch.rsqrt(extractor.variance + 1e-6)
    return weight, bias[0] - weight @ extractor.mean


def test_a_linear_student_becomes_its_linear_teacher(balance):
    model = student(balance(32).worlds, Linear(), batch_size=128)
    model.learn(32 * 16 * 24)
    weight, bias = linear_function(model)
    torch.testing.assert_close(weight, WEIGHTS, rtol=0.03, atol=0.03)
    torch.testing.assert_close(bias, torch.tensor(BIAS), rtol=0, atol=0.06)
    obs, advice = model.dataset.sample(2000)
    shown = model.policy.values_and_distributions(obs)[1]
    assert divergence(advice, shown).mean() < 1e-3
    assert agreement(advice, shown).mean() > 0.98


def test_continuous_actions_are_learnt_with_their_deviation(balance):
    model = student(pushed(balance, 32), LinearPush())
    model.learn(32 * 16 * 12)
    weight, bias = linear_function(model)
    torch.testing.assert_close(weight, WEIGHTS / 4, rtol=0.03, atol=0.03)
    torch.testing.assert_close(bias, torch.tensor(BIAS / 4), rtol=0, atol=0.03)
    torch.testing.assert_close(model.policy.log_std.exp(), torch.tensor([0.3]), rtol=0.05, atol=0)


def test_the_critic_learns_the_returns(balance):
    """PPO can go on from a student: at the end its critic explains most of what its returns differ by."""
    model = student(balance(32).worlds, Linear(), hidden=[32], vf_coef=0.5, learning_rate=3e-3)
    model.learn(32 * 16 * 12)
    returns, values = model.rollout_buffer.returns, model.rollout_buffer.values
    assert 1 - (returns - values).var() / returns.var() > 0.6


@pytest.mark.parametrize(("teacher_fraction", "driver"), [(0.0, 0), (1.0, 1)])
def test_the_states_that_are_learnt_from_are_those_of_who_drives(balance, teacher_fraction, driver):
    """A student that always pushes left, a teacher that always pushes right."""
    model = student(balance(8, seed=3).worlds, Always(1), teacher_fraction=teacher_fraction)
    with torch.no_grad():
        model.policy.action_net.bias.copy_(torch.tensor([50.0, -50.0]))
    model.train = lambda: None
    model.learn(8 * 16)

    alone = balance(8, seed=3).worlds
    obs, _ = alone.reset(0)
    states = []
    for _ in range(16):
        states.append(obs["state"].clone())
        obs, *_ = alone.step(torch.full((8,), driver))
    assert torch.equal(model.dataset.observations["state"][:128], torch.cat(states))
    assert (model.dataset.advice[:128] == torch.tensor([0.0, 1.0])).all()


def test_the_share_of_the_teacher_falls_linearly(balance):
    model = student(balance(64).worlds, Always(1), teacher_fraction=0.5)
    with torch.no_grad():
        model.policy.action_net.bias.copy_(torch.tensor([50.0, -50.0]))
    driven = []
    model.train = lambda: driven.append((model.beta, model.rollout_buffer.actions.float().mean().item()))
    model.learn(64 * 16 * 8)
    betas, shares = np.array(driven).T
    np.testing.assert_allclose(betas, [1, 0.75, 0.5, 0.25, 0, 0, 0, 0])
    # 1024 draws each: 5 standard deviations.
    assert (np.abs(shares - betas) <= 5 * np.sqrt(betas * (1 - betas) / 1024)).all()


def test_divergence_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.rand(50, 5, generator=generator).softmax(1) for _ in range(2))
    expected = torch.distributions.kl_divergence(*(torch.distributions.Categorical(probs=x) for x in (p, q)))
    torch.testing.assert_close(divergence(p, q.log()), expected)
    certain = torch.eye(5)[torch.randint(5, (50,), generator=generator)]
    torch.testing.assert_close(divergence(certain, q.log()), -(certain * q.log()).sum(1))

    mean, other = torch.randn(2, 50, 3, generator=generator)
    s, t = torch.rand(2, 50, 3, generator=generator) + 0.1
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, s), normal(other, t)).sum(1)
    torch.testing.assert_close(divergence(torch.stack([mean, s], 1), torch.stack([other, t], 1)), expected)


def test_actions_are_drawn_from_what_is_shown():
    torch.manual_seed(0)
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    counts = torch.bincount(draw(probabilities.log().expand(20_000, 3)), minlength=3) / 20_000
    torch.testing.assert_close(counts, probabilities, rtol=0, atol=0.02)
    actions = draw(torch.tensor([[0.5, -1.0], [0.1, 2.0]]).expand(20_000, 2, 2))
    torch.testing.assert_close(actions.mean(0), torch.tensor([0.5, -1.0]), rtol=0, atol=0.1)
    torch.testing.assert_close(actions.std(0), torch.tensor([0.1, 2.0]), rtol=0.05, atol=0)


@settings(max_examples=30)
@given(size=st.integers(3, 12), batches=st.lists(st.integers(1, 3), min_size=1, max_size=12))
def test_the_newest_steps_are_kept(size, batches):
    dataset = Dataset(size, spaces.Dict({"x": spaces.Box(0, 1, (1,))}), (2,), torch.device("cpu"))
    expected, count = deque(maxlen=size), 0
    for batch in batches:
        rows = torch.arange(count, count + batch).float()
        dataset.add({"x": rows.unsqueeze(1)}, rows.unsqueeze(1).expand(batch, 2))
        expected.extend(rows.tolist())
        count += batch
    obs, advice = dataset.sample(400)
    assert torch.equal(obs["x"].expand(400, 2), advice)
    assert set(obs["x"].flatten().tolist()) <= set(expected) and len(dataset) == len(expected)
    kept = dataset.get_state()["observations"]["x"].flatten().tolist()
    assert sorted(kept) == sorted(expected)


def test_restored_it_goes_on_bit_for_bit(balance, tmp_path):
    path = tmp_path / checkpoint.NAME
    whole = student(balance(8).worlds, Linear(), dataset_size=300)
    saves = checkpoint.Checkpoints(lambda: None, every=1)

    def save():  # the state before the fifth rollout
        if saves.rollouts == 4:
            checkpoint.save(path, whole, {"dataset": whole.dataset.get_state()})

    saves.save = save
    whole.learn(8 * 16 * 8, saves)
    resumed = student(balance(8).worlds, Linear(), dataset_size=300, seed=9)
    resumed.dataset.set_state(checkpoint.restore(path, resumed)["dataset"])
    resumed.learn(8 * 16 * 4, reset_num_timesteps=False)
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name
    assert whole.beta == resumed.beta == 0
    assert torch.equal(whole.dataset.advice, resumed.dataset.advice)


# --- teachers and the worlds that they watch --------------------------------------------------------------------------


class StateReader(Always):
    """Goes faster where the state of the worlds says that the ego is slow, else slower."""

    name = "reader"

    def __init__(self, env_options=None):
        self.env_options = env_options or {"observation": "state"}

    def act(self, obs):
        return torch.where(obs["state"][:, 0, 3] < 0.3, 3, 4)


def test_a_student_sees_its_part_and_the_teacher_the_same_state():
    taught = make_taught(StateReader(), "highway-fast", observation="camera", num_worlds=5, device="cpu", seed=4)
    plain = envs.make_vec("highway-fast", 5, device="cpu", seed=4)
    state = envs.make_vec("highway-fast", 5, device="cpu", seed=4, observation="state")
    assert taught.single_observation_space == plain.single_observation_space
    obs, seen, known = (worlds.reset()[0] for worlds in (taught, plain, state))
    actions, ended = torch.tensor([0, 1, 2, 3, 3]), 0
    for _ in range(12):
        assert obs.keys() == {"camera", "speed"} and all(torch.equal(obs[name], seen[name]) for name in obs)
        assert torch.equal(taught.advise().argmax(1), StateReader().act(known))
        obs, reward, terminated, truncated, info = taught.step(actions)
        seen, other_reward, *_, other = plain.step(actions)
        known = state.step(actions)[0]
        assert torch.equal(reward, other_reward)
        rows = terminated | truncated
        ended += int(rows.sum())
        assert info["final_obs"].keys() == {"camera", "speed"}
        assert torch.equal(info["final_obs"]["camera"][rows], other["final_obs"]["camera"][rows])
    assert ended
    for worlds in (taught, plain, state):
        worlds.close()


@pytest.mark.parametrize(
    ("teacher", "space", "told"),
    [
        (Linear(), spaces.Discrete(5), "acts by numbers of shape [2] where these worlds take [5]"),
        (LinearPush(), spaces.Box(-1, 1, (2,)), "acts by numbers of shape [2, 1] where these worlds take [2, 2]"),
        (Always(7), spaces.Discrete(5), "does not choose among the 5 meta-actions of these worlds"),
        (Always([0.5, 0.5]), spaces.Discrete(5), "does not choose among the 5 meta-actions of these worlds"),
        (Always([0.5]), spaces.Box(-1, 1, (2,)), "acts by numbers of shape [2, 1] where these worlds take [2, 2]"),
    ],
)
def test_a_teacher_of_other_actions_is_one_clear_line(teacher, space, told):
    with pytest.raises(UserError) as error:
        Teacher(teacher, space).advise({"state": torch.rand(4, 2)})
    assert told in str(error.value) and "\n" not in str(error.value)


def test_actions_alone_are_advice():
    obs = {"state": torch.rand(3, 2)}
    assert torch.equal(Teacher(Always(2), spaces.Discrete(4)).advise(obs), torch.eye(4)[[2, 2, 2]])
    advice = Teacher(Always([0.5, -0.5]), spaces.Box(-1, 1, (2,))).advise(obs)
    assert torch.equal(advice, torch.tensor([[0.5, -0.5], [DEVIATION, DEVIATION]]).expand(3, 2, 2))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"observation": "camera", "frames": 4}, "needs worlds with frames=4, the student 2"),
        ({"observation": "camera", "rig": "front"}, "needs worlds with rig='front', the student 'surround'"),
        ({"observation": "state", "ego": "continuous"}, "needs worlds with ego='continuous', the student 'policy'"),
    ],
)
def test_worlds_that_cannot_be_as_both_need_them(options, told):
    with pytest.raises(UserError) as error:
        make_taught(StateReader(options), "highway-fast", observation="camera", frames=2, num_worlds=2, device="cpu")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_student_without_a_camera_does_not_mind_the_teachers():
    teacher = StateReader({"observation": "camera", "frames": 4, "rig": "front"})
    taught = make_taught(teacher, "highway-fast", observation="state", num_worlds=2, device="cpu")
    obs, _ = taught.reset()
    assert obs.keys() == {"state"} and taught.worlds.single_observation_space["camera"].shape[0] == 12
    taught.close()
