"""The transformer over vehicles: what it must not depend on, what it must, and that it trains, drives and exports."""

import dataclasses

import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from agents import export, policies
from agents.entities import EntityExtractor
from agents.portable import OnnxPolicy, to_onnx
from envs.errors import UserError
from train import distill, dqn, ppo, pqn

ROWS, COLUMNS = 6, 5
SPACE = spaces.Dict({"state": spaces.Box(-1, 1, (ROWS, COLUMNS)), "route": spaces.Box(-1, 1, (3,))})
SMALL = {"env": "highway-fast", "observation": "state", "policy": "entities", "num_worlds": 4, "device": "cpu"}
SMALL |= {"total_steps": 64, "rollout_steps": 8, "hidden": (16,)}


def observed(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random vehicles, the ego's row present whatever it says."""
    draw = torch.Generator().manual_seed(seed)
    state = torch.randn(count, ROWS, COLUMNS, generator=draw)
    state[:, :, 0] = (torch.rand(count, ROWS, generator=draw) < 0.6).float()
    state[:, 0, 0] = 1.0
    return {"state": state, "route": torch.randn(count, 3, generator=draw)}


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    made = EntityExtractor(SPACE, width=16)
    made.update(observed(200, seed=1))
    return made


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(1, ROWS)), seed=st.integers(0, 1000))
def test_the_order_of_the_others_does_not_matter(extractor, order, seed):
    obs = observed(4, seed)
    permuted = obs | {"state": obs["state"][:, [0, *order]]}
    torch.testing.assert_close(extractor(permuted), extractor(obs), rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), value=st.floats(-1e6, 1e6, width=32))
def test_what_stands_in_empty_rows_does_not_matter(extractor, seed, value):
    obs = observed(4, seed)
    filled = obs["state"].clone()
    filled[:, :, 1:] = torch.where(filled[:, :, :1] == 0, value, filled[:, :, 1:])
    assert torch.equal(extractor(obs | {"state": filled}), extractor(obs))


def test_it_knows_the_ego_from_the_others_and_sees_all_that_are_there(extractor):
    obs = observed(50)
    obs["state"][:, :, 0] = 1.0
    before = extractor(obs)
    swapped = extractor(obs | {"state": obs["state"][:, [1, 0, *range(2, ROWS)]]})
    assert ((swapped - before).abs().amax(1) > 1e-3).all()
    for row in range(ROWS):
        moved = obs["state"].clone()
        moved[:, row, 1] += 1.0
        assert ((extractor(obs | {"state": moved}) - before).abs().amax(1) > 1e-4).all()
    assert ((extractor(obs | {"route": obs["route"] + 1}) - before).abs().amax(1) > 1e-4).all()


def test_alone_on_the_road(extractor):
    obs = observed(8)
    obs["state"][:, 1:, 0] = 0.0
    alone = extractor(obs)
    single = EntityExtractor(spaces.Dict(SPACE.spaces | {"state": spaces.Box(-1, 1, (1, COLUMNS))}), width=16)
    single.load_state_dict(extractor.state_dict())
    torch.testing.assert_close(alone, single(obs | {"state": obs["state"][:, :1]}))


def test_statistics_are_those_of_the_vehicles_that_are_there():
    extractor, parts = EntityExtractor(SPACE, width=8), [observed(300, seed) for seed in range(3)]
    for part in parts:
        extractor.update(part)
    states = torch.cat([part["state"] for part in parts])
    there = states[states[:, :, 0] == 1]
    torch.testing.assert_close(extractor.mean, there.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(extractor.variance, there.var(0, correction=0), rtol=1e-4, atol=1e-4)
    routes = torch.cat([part["route"] for part in parts])
    torch.testing.assert_close(extractor.beside.mean, routes.mean(0), rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_weight_and_no_empty_row(extractor):
    obs = observed(16)
    obs["state"].requires_grad_()
    extractor.zero_grad()
    extractor(obs).square().mul(torch.linspace(-1, 1, 16)).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in extractor.parameters())
    slopes, there = obs["state"].grad[:, :, 1:].abs().sum(2), obs["state"][:, :, 0] == 1
    assert (slopes[there] > 0).all() and (slopes[~there] == 0).all()


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (ppo, ppo.Args(**SMALL, minibatches=2)),
        (dqn, dqn.Args(**SMALL, learning_starts=16, buffer_size=2000, batch_size=16)),
        (pqn, pqn.Args(**SMALL, minibatches=2)),
    ],
)
def test_what_was_trained_drives(tmp_path, command, args):
    run = command.train(dataclasses.replace(args, out=tmp_path / "run"))
    policy = policies.load(str(run), args.env)
    assert isinstance(policy.network.features_extractor, EntityExtractor)
    worlds = envs.make_vec(args.env, 5, device="cpu", seed=3, **policy.env_options)
    obs, _ = worlds.reset()
    obs, *_ = worlds.step(policy.act(obs))
    reordered = {name: x[:, [0, *reversed(range(1, x.shape[1]))]] if x.ndim == 3 else x for name, x in obs.items()}
    explained = policy.explain(obs)
    for name, shown in policy.explain(reordered).items():
        torch.testing.assert_close(shown, explained[name], rtol=1e-4, atol=1e-5)
    worlds.close()


def test_it_is_exported(tmp_path):
    args = ppo.Args(**SMALL, minibatches=2, out=tmp_path / "run")
    policy = policies.load(str(ppo.train(args)), args.env)
    with export.quiet():
        model = OnnxPolicy(to_onnx(policy).SerializeToString(), policy.env_options, "exported")
    obs = {"state": observed(7)["state"][:, :5]}
    torch.testing.assert_close(
        model.explain(obs)["logits"], policy.explain(obs)["probabilities"].log(), rtol=1e-3, atol=1e-4
    )


def test_ppo_goes_on_from_a_student_that_sees_vehicles(tmp_path):
    small = {name: value for name, value in SMALL.items() if name != "rollout_steps"}
    teacher = ppo.train(ppo.Args(**SMALL, minibatches=2, out=tmp_path / "teacher"))
    student = distill.train(distill.Args(**small, teacher=str(teacher), rollout_steps=8, out=tmp_path / "student"))
    args = ppo.Args(env="highway-fast", init=str(student), num_worlds=4, device="cpu")
    assert ppo.with_init(args).policy == "entities" and ppo.with_init(args).observation == "state"
    model, _ = ppo.build(ppo.with_init(args))
    ppo.start(model, ppo.with_init(args))
    learnt = policies.load(str(student), "highway-fast").network
    assert torch.equal(model.policy.features_extractor.ego.weight, learnt.features_extractor.ego.weight)
    model.env.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "entitys"}, "did you mean 'entities'"),
        ({"observation": "camera"}, "it needs --observation state, not camera"),
        ({"observation": "bev"}, "it needs --observation state, not bev"),
        ({"env": "racetrack"}, "the state of 'racetrack' is none"),
        ({"env": "lane-keeping"}, "the state of 'lane-keeping' is none"),
        ({"env": "parking"}, "the state of 'parking' is none"),
        ({"env": "two-way"}, "the state of 'two-way' is none"),
    ],
)
def test_what_lists_no_vehicles_is_refused_and_leaves_nothing(tmp_path, changes, message):
    args = ppo.Args(**(SMALL | {"minibatches": 2, "out": tmp_path / "run"} | changes))
    with pytest.raises(UserError) as error:
        ppo.train(args)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
