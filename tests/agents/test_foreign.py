"""Policies of users: callables, factories by import path, stable-baselines3 models."""

import base64
import io
import json
import pickle
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

import envs
from agents import foreign, policies
from envs import scenarios
from envs.errors import UserError
from envs.sb3 import SB3VecEnv


class Toy(gymnasium.Env):
    """Has spaces and nothing else."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {}


STATE = spaces.Box(-np.inf, np.inf, (5, 5), np.float32)
CONTINUOUS = spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN, SAC, TD3, DDPG])
def test_models_of_every_algorithm_are_read_and_act_as_before(algorithm, tmp_path):
    continuous = algorithm in (SAC, TD3, DDPG)
    extra = {"buffer_size": 10} if algorithm in (DQN, SAC, TD3, DDPG) else {}
    env = Toy(STATE, CONTINUOUS if continuous else spaces.Discrete(5))
    model = algorithm("MlpPolicy", env, device="cpu", seed=0, **extra)
    model.save(tmp_path / "mine.zip")
    read = foreign.load(str(tmp_path / "mine.zip"), trust=True)
    read.prepare(scenarios.get("highway-fast"))
    assert read.name == "mine"
    state = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = model.predict(state.numpy(), deterministic=True)[0]
    assert np.array_equal(read.act({"state": state}).numpy(), expected)

    worlds = envs.make_vec("highway-fast", 4, device="cpu", **read.env_options)
    obs, _ = worlds.reset(seed=0)
    worlds.step(read.act(obs))
    assert worlds.ego == ("continuous" if continuous else "policy")
    worlds.close()


def test_a_model_of_our_own_worlds(tmp_path):
    worlds = SB3VecEnv(envs.make_vec("highway-fast", 2, device="cpu", observation="camera", frames=1, rig="front"))
    model = PPO("MultiInputPolicy", worlds, n_steps=2, batch_size=4, device="cpu", seed=0)
    model.save(tmp_path / "camera.zip")
    read = foreign.load(str(tmp_path / "camera.zip"), trust=True)
    assert read.env_options == {"observation": "camera", "frames": 1, "rig": "front"}
    obs = worlds.reset()
    expected = model.predict(obs, deterministic=True)[0]
    assert np.array_equal(read.act({name: torch.as_tensor(part) for name, part in obs.items()}).numpy(), expected)
    worlds.close()


def test_other_spaces_are_refused():
    model = foreign.load(PPO("MlpPolicy", Toy(STATE, spaces.Discrete(3)), device="cpu"))
    assert model.name == "PPO"
    with pytest.raises(UserError, match=r"takes actions Discrete\(3\), and 'highway' has 5 meta-actions"):
        model.prepare(scenarios.get("highway"))
    with pytest.raises(UserError, match="1 continuous actions"):
        model.prepare(scenarios.get("lane-keeping"))
    with pytest.raises(UserError, match=r"these worlds give state \(3, 8, 8\)"):
        model.act({"state": torch.zeros(2, 3, 8, 8)})


def test_a_file_that_is_not_trusted_runs_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    path, data = tmp_path / "bomb.zip", io.BytesIO()
    PPO("MlpPolicy", Toy(STATE, spaces.Discrete(5)), device="cpu").save(data)
    with zipfile.ZipFile(data) as good, zipfile.ZipFile(path, "w") as bad:
        settings = json.loads(good.read("data"))
        settings["observation_space"][":serialized:"] = base64.b64encode(pickle.dumps(Bomb())).decode()
        for name in good.namelist():
            bad.writestr(name, json.dumps(settings) if name == "data" else good.read(name))
    with pytest.raises(UserError, match=r"holds pickled objects.*--trust"):
        foreign.load(str(path))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError, match="cannot be read"):
        foreign.load(str(path), trust=True)
    assert (tmp_path / "ran").exists()  # the test can tell


@pytest.mark.parametrize("content", [None, b"", b"PK no zip at all"])
def test_what_is_no_model(tmp_path, content):
    if content is not None:
        (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="there is no file" if content is None else "not a stable-baselines3 model"):
        foreign.load(str(tmp_path / "a.zip"), trust=True)


def test_an_algorithm_that_is_not_known(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data", json.dumps({"gamma": 0.9}))
    with pytest.raises(UserError, match="algorithm that is not known"):
        foreign.load(str(tmp_path / "a.zip"), trust=True)


MODULE = """
import torch

open({ran!r}, "w")

def make_policy():
    return lambda obs: torch.ones(len(obs["state"]), dtype=torch.int64)

class Careful:
    name, scenario, env_options = "mine", "merge", {{"observation": "lidar"}}

    def __init__(self):
        self.forgotten = []

    def act(self, obs):
        return torch.zeros(len(obs["lidar"]), dtype=torch.int64)

    def reset(self, done):
        self.forgotten.append(done)

def needs(more):
    pass

nothing = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's, and the file that says that it was imported."""
    name = f"policy_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE.format(ran=str(tmp_path / "ran")))
    monkeypatch.syspath_prepend(tmp_path)
    return name, tmp_path / "ran"


def test_factories_by_import_path(module):
    name, ran = module
    assert foreign.is_foreign(f"{name}:make_policy") and not foreign.is_foreign("zoo/highway-ppo")
    with pytest.raises(UserError, match="importing it runs whatever is in it; add --trust"):
        foreign.load(f"{name}:make_policy")
    digest = foreign.digest(f"{name}:make_policy")
    assert len(digest) == 64 and not ran.exists()
    policy = foreign.load(f"{name}:make_policy", trust=True)
    assert ran.exists() and policy.name == f"{name}:make_policy"
    assert policy.env_options == {"observation": "state"}
    assert policy.act({"state": torch.zeros(3, 5, 5)}).tolist() == [1, 1, 1]
    assert policy.explain({}) is None
    policy.reset(None)
    assert foreign.digest(f"{name}:make_policy") == digest

    mine = foreign.load(f"{name}:Careful", trust=True)
    assert (mine.name, mine.scenario, mine.env_options) == ("mine", "merge", {"observation": "lidar"})
    mine.reset(None)
    assert mine._policy.forgotten == [None]

    for wrong, says in (("nobody", "cannot import"), ("needs", "without arguments"), ("nothing", "must be callable")):
        with pytest.raises(UserError, match=says):
            foreign.load(f"{name}:{wrong}", trust=True)
    with pytest.raises(UserError, match="cannot import no.such.module:a"):
        foreign.load("no.such.module:a", trust=True)


def test_objects():
    assert foreign.load(np.argmax).name == "argmax"
    trained = foreign.load(policies.load("zoo/highway-ppo"))
    assert (trained.name, trained.scenario) == ("zoo/highway-ppo", "highway")
    assert foreign.load(trained) is trained
    with pytest.raises(UserError, match="a int is not"):
        foreign.load(3)
