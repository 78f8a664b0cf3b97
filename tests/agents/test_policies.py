"""Policies by name, from a run directory and from the zoo."""

import dataclasses
import json

import pytest
import torch
from gymnasium import spaces

import envs
from agents import policies
from agents.drivers import action_space
from agents.features import encode
from agents.networks import ActorCritic, policy_kwargs, q_network
from envs.errors import UserError
from perception import encoders

HEADER = {
    "scenario": "highway",
    "family": "highway",
    "env_options": {"observation": "state"},
    "actions": 5,
    "observation": {"state": [5, 5]},
    "hidden": [16, 16],
    "learned_encoder": None,
    "encoder": None,
}
CAMERA = HEADER | {
    "env_options": {"observation": "camera", "frames": 2},
    "observation": {"camera": [6, 32, 48], "speed": [1]},
}


def network(header, space):
    return ActorCritic(
        space, spaces.Discrete(5), lambda _: 1e-3, **policy_kwargs(header["hidden"], header["learned_encoder"])
    )


@pytest.fixture
def run(tmp_path):
    """A run directory with an untrained policy for state observations, and its network."""
    net = network(HEADER, spaces.Dict({"state": spaces.Box(-1, 1, (5, 5))}))
    net.features_extractor.update({"state": torch.rand(100, 5, 5)})
    policies.save(tmp_path / policies.NAME, net, None, HEADER)
    return tmp_path, net


def test_a_run_acts_as_its_network(run):
    folder, net = run
    policy = policies.load(str(folder), "highway")
    assert policy.env_options == {"observation": "state"} and policy.name == str(folder)
    obs = {"state": torch.rand(50, 5, 5)}
    with torch.no_grad():
        distribution = net.get_distribution(obs).distribution
        values = net.predict_values(obs).squeeze(1)
    explained = policy.explain(obs)
    torch.testing.assert_close(explained["probabilities"], distribution.probs)
    torch.testing.assert_close(explained["value"], values)
    assert torch.equal(policy.act(obs), distribution.probs.argmax(1))
    policy.reset(torch.ones(50, dtype=torch.bool))


@pytest.mark.parametrize("beside", [{}, {"route": 7}])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_camera_policy_carries_its_encoder_and_is_told_what_worlds_tell(tmp_path, frozen, beside):
    obs = {"camera": torch.randint(0, 256, (9, 6, 32, 48), dtype=torch.uint8), "speed": torch.rand(9, 1)}
    obs |= {name: torch.rand(9, size) for name, size in beside.items()}
    camera = CAMERA | {"observation": CAMERA["observation"] | {name: [size] for name, size in beside.items()}}
    encoder = encoders.build("small", 6, 32, 48) if frozen else None
    if frozen:
        header = camera | {"encoder": {"encoder": "small", "in_channels": 6, "height": 32, "width": 48}}
        seen = encode(encoder, obs, ("speed", *beside))
        space = policies.features.space(encoder, 1 + sum(beside.values()))
    else:
        header, seen = camera | {"learned_encoder": "small"}, obs
        vectors = {name: spaces.Box(0, 1, (size,)) for name, size in {"speed": 1, **beside}.items()}
        space = spaces.Dict({"camera": spaces.Box(0, 255, (6, 32, 48), "uint8"), **vectors})
    net = network(header, space)
    policies.save(tmp_path / policies.NAME, net, encoder, header)
    policy = policies.load(str(tmp_path), "highway-fast")
    with torch.no_grad():
        expected = net.get_distribution(seen).distribution.probs
    torch.testing.assert_close(policy.explain(obs)["probabilities"], expected)
    for name in ("speed", *beside):
        changed = policy.explain(obs | {name: 1 - obs[name]})["probabilities"]
        assert not torch.allclose(changed, expected)


def test_a_policy_drives_the_worlds_that_it_asks_for(run):
    policy = policies.load(str(run[0]), "highway-fast")
    worlds = envs.make_vec("highway-fast", num_worlds=3, device="cpu", **policy.env_options)
    obs, _ = worlds.reset()
    for _ in range(3):
        obs, *_ = worlds.step(policy.act(obs))
    worlds.close()


def test_drivers_without_weights():
    obs = {"state": torch.zeros(4000, 5, 5)}
    chance = policies.load("random")
    counts = torch.bincount(chance.act(obs), minlength=5)
    assert (counts - 800).abs().max() < 120  # 4.7 standard deviations
    assert chance.explain(obs) is None
    assert torch.equal(policies.load("random").act(obs), policies.load("random").act(obs))
    idm = policies.load("idm")
    assert idm.env_options["ego"] == "idm" and idm.explain(obs) is None
    assert idm.act(obs).shape == (4000,) and idm.act(obs).dtype == torch.int64


def test_the_zoo_is_found_from_anywhere(run, monkeypatch, tmp_path):
    (tmp_path / "zoo" / "careful").mkdir(parents=True)
    (run[0] / policies.NAME).rename(tmp_path / "zoo" / "careful" / policies.NAME)
    monkeypatch.setattr(policies, "ZOO", tmp_path / "zoo")
    monkeypatch.chdir("/")
    assert policies.zoo() == ["zoo/careful"]
    assert policies.load("zoo/careful").name == "zoo/careful"
    with pytest.raises(UserError, match="did you mean 'zoo/careful'"):
        policies.load("zoo/carefull")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("randon", "unknown policy 'randon'; did you mean 'random'?"),
        ("{empty}", "no policy in {empty}: policy.safetensors is missing"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, spec, message):
    with pytest.raises(UserError) as error:
        policies.load(spec.format(empty=tmp_path))
    assert message.format(empty=tmp_path) in str(error.value)


def test_an_unknown_scenario_comes_first():
    with pytest.raises(UserError, match="did you mean 'highway'"):
        policies.load("random", "higway")


def test_a_policy_cut_in_half(run):
    path = run[0] / policies.NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged"):
        policies.load(str(run[0]))


def test_a_policy_of_another_scenario(run, monkeypatch):
    town = dataclasses.replace(envs.scenarios.get("highway"), name="town", family="town")
    monkeypatch.setitem(envs.scenarios.SCENARIOS, "town", town)
    with pytest.raises(UserError, match="was trained on 'highway' and cannot drive 'town'"):
        policies.load(str(run[0]), "town")
    policies.load(str(run[0]), "highway-fast")


@pytest.mark.parametrize(
    ("scenario", "shape"),
    [("highway", ()), ("intersection", ()), ("intersection-multi-agent", (2,)), ("parking", (2,)), ("racetrack", (1,))],
)
def test_chance_takes_the_actions_of_every_scenario(scenario, shape):
    driver = policies.load("random", scenario)
    worlds = envs.make_vec(scenario, 4, device="cpu", observation="state")
    assert action_space(worlds.scenario) == worlds.single_action_space
    actions = driver.act({"x": torch.zeros(5000, 1)})
    assert actions.shape == (5000, *shape)
    if worlds.action_names:
        assert actions.unique().tolist() == list(range(len(worlds.action_names)))
    else:
        assert -1 <= actions.min() < -0.99 and 0.99 < actions.max() <= 1 and actions.mean().abs() < 0.03
    worlds.reset(seed=0)
    worlds.step(actions[:4])
    worlds.close()


@pytest.mark.parametrize("scenario", ["parking", "lane-keeping"])
def test_idm_needs_lanes_to_follow(scenario):
    with pytest.raises(UserError, match=f"'idm' cannot drive '{scenario}'"):
        policies.load("idm", scenario)


def test_idm_takes_the_place_of_continuous_actions():
    driver = policies.load("idm", "racetrack")
    worlds = envs.make_vec("racetrack", 2, device="cpu", **driver.env_options)
    obs, _ = worlds.reset(seed=0)
    for _ in range(20):
        obs, _, terminated, *_ = worlds.step(driver.act(obs))
    assert not terminated.any() and (worlds.state.speed[:, 0] > 5).all()
    worlds.close()


def test_actions_are_described_and_found_again():
    for space in (spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))):
        described = json.loads(json.dumps(policies.describe_actions(space)))
        assert policies.actions_of(described) == space


def test_what_continuous_and_value_policies_explain(tmp_path):
    obs, space = {"state": torch.rand(7, 5, 5)}, spaces.Dict({"state": spaces.Box(-1, 1, (5, 5))})
    actor = ActorCritic(space, spaces.Box(-1.0, 1.0, (2,)), lambda _: 1e-3, **policy_kwargs([16], None))
    policies.save(tmp_path / "actor", actor, None, HEADER | {"hidden": [16], "actions": {"shape": [2]}})
    explained = policies.read(tmp_path / "actor", "actor").explain(obs)
    with torch.no_grad():
        normal = actor.get_distribution(obs).distribution
    torch.testing.assert_close((explained["mean"], explained["deviation"]), (normal.mean, normal.stddev))

    options = {"duelling": True, "quantiles": 3, "layer_norm": False}
    values = q_network(space, spaces.Discrete(5), [16], None, options)
    policies.save(tmp_path / "values", values, None, HEADER | {"hidden": [16], "action_values": options})
    policy = policies.read(tmp_path / "values", "values")
    explained = policy.explain(obs)
    with torch.no_grad():
        torch.testing.assert_close(explained["action_values"], values(obs))
    torch.testing.assert_close(explained["value"], explained["action_values"].max(1).values)
    assert torch.equal(policy.act(obs), explained["action_values"].argmax(1))
