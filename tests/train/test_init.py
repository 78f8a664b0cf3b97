"""PPO from a policy that is there already."""

import dataclasses
import json

import pytest
import torch

from agents import checkpoint, policies
from envs.errors import UserError
from train import common, ppo, pqn, settings

SMALL = ppo.Args(
    env="highway-fast",
    observation="state",
    total_steps=128,
    num_worlds=4,
    rollout_steps=8,
    minibatches=2,
    epochs=1,
    hidden=(16, 24),
    device="cpu",
)
TUNED = ppo.Args(env="highway-fast", num_worlds=4, rollout_steps=8, minibatches=2, epochs=1, device="cpu")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def untouched(monkeypatch):
    """PPO that collects and changes nothing, so that a run ends in the weights that it began with."""
    monkeypatch.setattr(ppo.PPO, "train", lambda model: None)


@pytest.mark.parametrize(
    "settings",
    [{"observation": "state"}, {"observation": "camera"}, {"observation": "camera", "encoder": "none"}],
    ids=["state", "frozen encoder", "learned encoder"],
)
def test_a_run_begins_with_the_policy_its_value_and_its_encoder(tmp_path, settings, request):
    first = ppo.train(dataclasses.replace(SMALL, **settings, out=tmp_path / "first"))
    request.getfixturevalue("untouched")
    run = ppo.train(dataclasses.replace(TUNED, total_steps=64, seed=5, init=str(first), out=tmp_path / "run"))
    (a, header), (b, other) = (checkpoint.read(folder / policies.NAME) for folder in (first, run))
    assert a.keys() == b.keys() and [name for name in a if not torch.equal(a[name], b[name])] == []
    assert header == other | {"steps": header["steps"]}
    assert json.loads((run / "config.json").read_text())["args"]["hidden"] == [16, 24]


def test_it_is_resumed_without_the_policy_that_it_began_with(tmp_path):
    first = ppo.train(dataclasses.replace(SMALL, observation="camera", out=tmp_path / "first"))
    settings = {"total_steps": 320, "init": str(first), "checkpoint_every": 3}
    whole = ppo.train(dataclasses.replace(TUNED, **settings, out=tmp_path / "whole"))
    run = tmp_path / "run"

    def killed(model):
        if model.num_timesteps == 160:  # two rollouts after the second checkpoint
            raise RuntimeError("power cut")
        train(model)

    train = ppo.PPO.train
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(ppo.PPO, "train", killed)
        ppo.train(dataclasses.replace(TUNED, **settings, out=run))
    (first / policies.NAME).unlink()
    ppo.train(ppo.Args(resume=run))
    a, b = (checkpoint.read(folder / policies.NAME)[0] for folder in (whole, run))
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "intersection"}, "was trained on 'highway-fast' and cannot drive 'intersection'"),
        ({"hidden": (8, 8)}, "--hidden comes with the policy in"),
        ({"observation": "state", "init": "zoo/highway-ppo"}, "--observation comes with the policy in zoo/highway-ppo"),
        ({"init": "idm"}, "'idm' is none"),
        ({"init": "zoo/highway-pp"}, "did you mean 'zoo/highway-ppo'"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, message):
    first = ppo.train(dataclasses.replace(SMALL, total_steps=32, out=tmp_path / "first"))
    with pytest.raises(UserError) as error:
        ppo.train(dataclasses.replace(TUNED, **({"init": str(first), "out": tmp_path / "run"} | changes)))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_settings_that_suit_the_scenario_give_way_to_the_policy(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "FOLDER", tmp_path)
    (tmp_path / "ppo-highway.json").write_text('{"settings": {"hidden": [8], "epochs": 3}, "why": "a test"}')
    args = ppo.with_init(common.parse(ppo.COMMAND, ["--env", "highway", "--init", "zoo/highway-ppo"]))
    assert (args.hidden, args.epochs, args.encoder) == ((256, 256), 3, "zoo/highway-ppo")


def test_action_values_are_no_policy_to_start_from(tmp_path):
    small = pqn.Args(env="highway-fast", observation="state", total_steps=32, num_worlds=2, rollout_steps=8)
    first = pqn.train(dataclasses.replace(small, minibatches=2, hidden=(8,), device="cpu", out=tmp_path / "first"))
    with pytest.raises(UserError, match="PPO starts from a policy with a critic"):
        ppo.train(dataclasses.replace(TUNED, init=str(first), out=tmp_path / "run"))


def test_an_encoder_is_taken_out_of_a_policy(tmp_path):
    camera = dataclasses.replace(SMALL, observation="camera", total_steps=32)
    first = ppo.train(dataclasses.replace(camera, out=tmp_path / "first"))
    run = ppo.train(dataclasses.replace(camera, seed=3, encoder=str(first), out=tmp_path / "run"))
    a, b = (checkpoint.read(folder / policies.NAME)[0] for folder in (first, run))
    names = [name for name in a if name.startswith("encoder.")]
    assert names and all(torch.equal(a[name], b[name]) for name in names)
    pixels = ppo.train(dataclasses.replace(camera, encoder="none", out=tmp_path / "pixels"))
    learnt = ppo.train(dataclasses.replace(camera, seed=3, encoder=str(pixels), out=tmp_path / "learnt"))
    a, b = (checkpoint.read(folder / policies.NAME)[0] for folder in (pixels, learnt))
    names = [name for name in b if name.startswith("encoder.")]
    assert names and all(torch.equal(a[f"policy.features_extractor.{name}"], b[name]) for name in names)
    assert (
        policies.load(str(learnt), "highway-fast").env_options == policies.load(str(pixels), "highway-fast").env_options
    )
    blind = ppo.train(dataclasses.replace(SMALL, total_steps=32, out=tmp_path / "blind"))
    with pytest.raises(UserError, match="has no encoder: it sees no camera"):
        ppo.train(dataclasses.replace(camera, encoder=str(blind), out=tmp_path / "none"))
