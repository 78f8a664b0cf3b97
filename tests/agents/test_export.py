"""Policies as ONNX models: that they decide as the policies do, and that nothing else is ever written."""

import hashlib
import importlib.util
import json

import numpy as np
import onnx
import onnx.reference
import pytest
import torch

import envs
from agents import export, policies
from agents.drivers import action_space
from agents.networks import ActorCritic, policy_kwargs, q_network
from agents.portable import OnnxPolicy, Portable, greedy, to_onnx
from envs.errors import UserError
from envs.sensors.rig import SURROUND
from evaluation.recorder import HELD_OUT_SEED, record
from perception import encoders


@pytest.fixture(autouse=True)
def quiet():
    """torch.export's own warnings are not about what is exported."""
    with export.quiet():
        yield


def policy_of(scenario, observation, folder, encoder=None, values=False):
    """A run directory with an untrained policy, whose vectors have been normalised by what they look like."""
    worlds = envs.make_vec(scenario, 8, device="cpu", observation=observation)
    obs, _ = worlds.reset(seed=0)
    shapes = {name: list(space.shape) for name, space in worlds.single_observation_space.items()}
    options = {"observation": observation} | ({"frames": 2} if observation == "camera" else {})
    header = {"scenario": scenario, "family": worlds.scenario.family, "env_options": options, "observation": shapes}
    header |= {"hidden": [24, 16], "learned_encoder": None, "encoder": None}
    space, actions = worlds.single_observation_space, action_space(worlds.scenario)
    header["actions"] = policies.describe_actions(actions)
    frozen = None
    if encoder == "frozen":
        frozen = encoders.build("small", *space["camera"].shape)
        header["encoder"] = {"encoder": "small", "in_channels": 6, "height": 64, "width": 96}
        obs = policies.features.encode(frozen, obs)
        space = policies.features.space(frozen, 1)
    elif encoder == "learned":
        header["learned_encoder"] = "small"  # of the camera's pictures, or of those from above
    torch.manual_seed(1)
    if values:
        header["action_values"] = {"duelling": True, "quantiles": 4, "layer_norm": True}
        network = q_network(space, actions, header["hidden"], header["learned_encoder"], header["action_values"])
    else:
        kwargs = policy_kwargs(header["hidden"], header["learned_encoder"])
        network = ActorCritic(space, actions, lambda _: 0.0, **kwargs)
        for parameter in network.parameters():  # not the small ones that a policy begins with
            torch.nn.init.normal_(parameter, 0, 0.3)
    if encoder != "learned":
        network.features_extractor.update(obs)
    worlds.close()
    policies.save(folder / policies.NAME, network, frozen, header)
    return str(folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The shipped policy's model, and what was told about it."""
    out = tmp_path_factory.mktemp("onnx") / "policy.onnx"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    told = export.export(export.Args("zoo/highway-ppo", out))
    torch.set_num_threads(threads)
    return out, told


@pytest.fixture(scope="module")
def state_model(tmp_path_factory):
    """A run directory, and the model of its policy."""
    run = policy_of("highway-fast", "state", tmp_path_factory.mktemp("run"))
    with export.quiet():
        return run, to_onnx(policies.load(run, "highway-fast"))


def observations(policy, count):
    worlds = envs.make_vec(policy.header["scenario"], count, device="cpu", **policy.env_options)
    obs, _ = worlds.reset(seed=5)
    obs = {name: tensor.clone() for name, tensor in obs.items()}
    worlds.close()
    return obs


def test_another_runtime_finds_the_policys_probabilities(exported):
    """onnx's own reference evaluator, in NumPy."""
    policy = policies.load("zoo/highway-ppo")
    obs = observations(policy, 2)
    given = {name: tensor.numpy() for name, tensor in obs.items()}
    logits, value = onnx.reference.ReferenceEvaluator(str(exported[0])).run(None, given)
    with encoders.single_precision():
        explained = policy.explain(obs)
    np.testing.assert_allclose(np.exp(logits), explained["probabilities"], atol=2e-3)
    np.testing.assert_allclose(value, explained["value"], atol=5e-3)


def test_any_number_of_worlds(exported):
    policy = policies.load("zoo/highway-ppo")
    model = OnnxPolicy(str(exported[0]), policy.env_options, "model")
    obs = observations(policy, 5)
    together = model.explain(obs)
    assert together["logits"].shape == (5, 5) and together["value"].shape == (5,)
    torch.testing.assert_close(together["logits"].exp().sum(1), torch.ones(5))
    for count in (1, 2):
        alone = model.explain({name: tensor[:count] for name, tensor in obs.items()})
        torch.testing.assert_close(alone["logits"], together["logits"][:count], rtol=0, atol=5e-3)
    assert torch.equal(model.act(obs), together["logits"].argmax(1))


def test_what_driving_needs_is_in_the_model(exported):
    out, told = exported
    known = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    source = (policies.ZOO / "highway-ppo" / policies.NAME).read_bytes()
    assert known["source_sha256"] == hashlib.sha256(source).hexdigest()
    assert known["scenario"] == "highway" and known["normalisation"].startswith("inside the model")
    assert json.loads(known["rig"]) == encoders.describe(SURROUND) and json.loads(known["frames"]) == 2
    assert json.loads(known["actions"]) == ["LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER"]
    assert json.loads(known["inputs"])["camera"] == {"dtype": "uint8", "shape": ["N", 6, 64, 96]}
    found = json.loads(known["parity"])
    assert found["observations"] == 1024 and found["difference"] <= export.TOLERANCE and found["same_actions"] > 0.999
    assert "equal greedy actions 100.00%" in told[0] and str(out) in told[-1]


@pytest.mark.parametrize(
    ("scenario", "observation", "encoder", "values"),
    [
        ("highway-fast", "state", None, False),
        ("highway-fast", "camera", "frozen", False),
        ("highway-fast", "camera", "learned", False),
        ("highway-fast", "bev", "learned", False),
        ("parking", "state", None, False),
        ("racetrack", "camera", "learned", False),
        ("highway-fast", "state", None, True),
        ("highway-fast", "camera", "frozen", True),
        ("highway-fast", "camera", "learned", True),
    ],
)
def test_what_is_exported_is_the_policy(tmp_path, scenario, observation, encoder, values):
    policy = policies.load(policy_of(scenario, observation, tmp_path, encoder, values), scenario)
    portable = Portable(policy)
    obs = observations(policy, 6)
    with torch.no_grad(), encoders.single_precision():
        found = portable(*(obs[name] for name in portable.inputs))
        expected, actions = export.reference(policy, obs), policy.act(obs)
    found = dict(zip(portable.outputs, found, strict=True))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(greedy(found), actions, rtol=0, atol=2e-3)


def test_throttle_and_steering(tmp_path):
    """Their means may leave the bounds, the actions may not."""
    policy = policies.load(policy_of("parking", "state", tmp_path), "parking")
    model = to_onnx(policy)
    driver = OnnxPolicy(model.SerializeToString(), policy.env_options, "model")
    obs = observations(policy, 7)
    torch.testing.assert_close(driver.act(obs), policy.act(obs), rtol=0, atol=1e-4)
    assert driver.inputs == ["achieved_goal", "desired_goal", "observation"]
    assert driver.explain(obs)["deviation"].shape == (7, 2)
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(known["actions"]) == ["throttle", "steering"] and "rig" not in known
    assert json.loads(known["action_ranges"])["throttle"] == [-5.0, 5.0]


def test_a_model_that_decides_otherwise_is_not_written(state_model, tmp_path, monkeypatch):
    run, model = state_model
    other = policies.load(run, "highway-fast")
    other.network.action_net.bias += torch.tensor([0.0, 0.0, 0.1, 0.0, 0.0])
    monkeypatch.setattr(export, "load", lambda spec: other)
    monkeypatch.setattr(export, "to_onnx", lambda policy: model)
    with pytest.raises(UserError, match="differ from the policy's by up to 0.* more than --tolerance 0.005"):
        export.export(export.Args(run, tmp_path / "policy.onnx"))
    assert list(tmp_path.iterdir()) == []


def test_8_bits_are_smaller_and_their_cost_is_told(state_model, tmp_path, monkeypatch):
    run, model = state_model
    monkeypatch.setattr(export, "to_onnx", lambda policy: model)
    out = tmp_path / "int8.onnx"
    told = export.export(export.Args(run, out, int8=True, episodes=6))
    made = onnx.load(out)
    assert "MatMulInteger" in {node.op_type for node in made.graph.node}
    known = {entry.key: entry.value for entry in made.metadata_props}
    assert known["quantisation"].startswith("weights of dense layers in int8")
    assert told[1].startswith("in 8 bits: 1,024 observations")

    # The return that is told is that of the same episodes in evaluation.
    policy = policies.load(run, "highway-fast")
    model = OnnxPolicy(str(out), policy.env_options, "int8", alone=True)
    monkeypatch.setattr(export, "BLOCK", 4)
    found = export.drive(model, "highway-fast", 6)
    worlds = envs.make_vec("highway-fast", 6, device="cpu", **policy.env_options)
    seen = record(worlds, model, HELD_OUT_SEED)
    worlds.close()
    counts = torch.arange(len(seen.rewards))[:, None] < seen.steps
    np.testing.assert_allclose(found["return"], (seen.rewards * counts).sum(0), rtol=1e-4)
    assert f"return {found['return'].mean():.2f} in 8 bits" in told[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "zoo/highway-pp"}, "did you mean 'zoo/highway-ppo'"),
        ({"policy": "idm"}, "'idm' has no network to export"),
        ({"policy": "careful+late"}, "'careful+late' has no network to export"),
        ({"policy": "{folder}"}, "policy.safetensors is missing"),
        ({"out": "{folder}/there.onnx"}, "there.onnx exists: choose another --out"),
        ({"out": "{folder}/nowhere/policy.onnx"}, "there is no folder"),
        ({"tolerance": 0.0}, "--tolerance must be positive"),
        ({"episodes": 1}, "--episodes must be at least 2"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, message):
    (tmp_path / "there.onnx").write_text("mine")
    given = {"policy": "zoo/highway-ppo", "out": "{folder}/policy.onnx"} | changes
    given = {name: v.format(folder=tmp_path) if isinstance(v, str) else v for name, v in given.items()}
    with pytest.raises(UserError) as error:
        export.export(export.Args(**given | {"out": type(tmp_path)(given["out"])}))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "mine"


@pytest.mark.parametrize("package", export.PACKAGES)
def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(UserError) as error:
        export.export(export.Args("zoo/highway-ppo", tmp_path / "policy.onnx"))
    assert str(error.value) == f'exporting needs the package {package}: pip install "lanewise[onnx]"'
