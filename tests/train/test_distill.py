"""The command that teaches: what it writes, that it goes on where it stopped, and whom it refuses as a teacher."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

import envs
from agents import checkpoint, policies
from agents.checkpoint import Interrupted
from envs.errors import UserError
from train import distill, ppo, pqn

TAUGHT = ppo.Args(
    env="highway-fast",
    observation="state",
    total_steps=32,
    num_worlds=2,
    rollout_steps=8,
    minibatches=2,
    hidden=(16,),
    device="cpu",
)
SMALL = distill.Args(
    env="highway-fast",
    total_steps=320,
    num_worlds=2,
    rollout_steps=8,
    minibatches=2,
    epochs=2,
    hidden=(16, 16),
    dataset_size=200,
    checkpoint_every=9,
    device="cpu",
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The run directory of a policy that sees the state."""
    return ppo.train(dataclasses.replace(TAUGHT, out=tmp_path_factory.mktemp("teacher") / "run"))


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("taught_by", ["a policy", "idm"])
def test_sigterm_saves_and_it_goes_on_bit_for_bit(teacher, tmp_path, monkeypatch, taught_by):
    """From the camera, with a dataset that has begun to drop its oldest steps."""
    small = dataclasses.replace(SMALL, teacher="idm" if taught_by == "idm" else str(teacher))
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    distill.train(dataclasses.replace(small, out=whole))
    assert [row["step"] for row in rows(whole)] == list(range(16, 321, 16))
    names = {"charts/agreement", "charts/teacher_share", "losses/imitation_loss", "losses/explained_variance"}
    assert names <= rows(whole)[-1].keys()
    train = distill.DAgger.train
    with monkeypatch.context() as patched:
        patched.setattr(
            distill.DAgger,
            "train",
            lambda model: model.num_timesteps == 240 and os.kill(os.getpid(), signal.SIGTERM) or train(model),
        )
        with pytest.raises(Interrupted, match=f"at 240 steps; go on with: python -m train.distill --resume {run}"):
            distill.train(dataclasses.replace(small, out=run))
    torch.manual_seed(99)
    distill.train(distill.Args(resume=run))
    for name in (policies.NAME, checkpoint.NAME):
        a, b = (checkpoint.read(folder / name)[0] for folder in (whole, run))
        assert a.keys() == b.keys() and [name for name in a if not torch.equal(a[name], b[name])] == []
    for ours, theirs in zip(rows(whole), rows(run), strict=True):
        del ours["charts/SPS"], theirs["charts/SPS"]
        assert ours == theirs


@pytest.mark.parametrize("encoder", ["zoo/highway-small", "none"])
def test_a_student_drives_by_its_camera_and_ppo_goes_on_from_it(teacher, tmp_path, encoder):
    small = dataclasses.replace(SMALL, teacher=str(teacher), total_steps=32, encoder=encoder)
    run = distill.train(dataclasses.replace(small, out=tmp_path / "run"))
    policy = policies.load(str(run), "highway-fast")
    assert policy.env_options == {"observation": "camera", "frames": 2}
    assert policy.header["teacher"] == str(teacher) and len(policy.header["teacher_sha256"]) == 64
    worlds = envs.make_vec("highway-fast", 3, device="cpu", **policy.env_options)
    obs, _ = worlds.reset(seed=0)
    assert policy.explain(obs).keys() == {"probabilities", "value"}
    worlds.step(policy.act(obs))
    worlds.close()
    tuned = dataclasses.replace(TAUGHT, observation="camera", hidden=ppo.Args().hidden, init=str(run))
    again = policies.load(str(ppo.train(dataclasses.replace(tuned, out=tmp_path / "tuned"))), "highway-fast")
    assert again.header["algorithm"] == "PPO" and again.header["hidden"] == [16, 16]


RULES = '''
import torch


class Keeper:
    """Slows down above 22 m/s, else speeds up."""

    env_options = {"observation": "state"}

    def act(self, obs):
        return torch.where(obs["state"][:, 0, 3] > 22 / 80, 4, 3)


class Turner:
    """Turns on the spot that it has."""

    env_options = {"observation": "state"}

    def act(self, obs):
        return torch.tensor([[0.5, -0.5]]).expand(len(obs["observation"]), 2)
'''


@pytest.fixture
def rules(tmp_path, monkeypatch):
    """The file of a module of drivers."""
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "rules.py"
    sys.modules.pop("rules", None)


def test_rules_teach(rules, tmp_path):
    small = dataclasses.replace(SMALL, teacher="rules:Keeper", observation="state", total_steps=2048, num_worlds=16)
    small = dataclasses.replace(small, minibatches=4, epochs=4, dataset_size=2048, out=tmp_path / "run")
    with pytest.raises(UserError, match="--trust"):
        distill.train(small)
    run = distill.train(dataclasses.replace(small, trust=True))
    assert rows(run)[-1]["charts/agreement"] > 0.85
    rules.write_text(RULES + "\n")
    config = json.loads((run / "config.json").read_text())
    config["args"]["total_steps"] = 4096
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="the teacher Keeper has changed since this run began"):
        distill.train(distill.Args(resume=run))


def test_throttle_and_steering_are_taught_too(rules, tmp_path):
    settings = {"env": "parking", "observation": "state", "learning_rate": 1e-2}
    small = dataclasses.replace(SMALL, **settings, teacher="rules:Turner", trust=True)
    student = distill.train(dataclasses.replace(small, out=tmp_path / "student"))
    policy = policies.load(str(student), "parking")
    worlds = envs.make_vec("parking", 4, device="cpu", **policy.env_options)
    actions = policy.act(worlds.reset(seed=0)[0])
    worlds.close()
    torch.testing.assert_close(actions, torch.tensor([[0.5, -0.5]]).expand(4, 2), rtol=0, atol=0.15)


def test_who_sees_everything_from_above_teaches_a_camera(tmp_path):
    seen = {"env": "intersection-signals", "observation": "bev"}
    teacher = ppo.train(dataclasses.replace(TAUGHT, **seen, out=tmp_path / "teacher"))
    small = dataclasses.replace(SMALL, env="intersection-signals", total_steps=32, teacher=str(teacher))
    student = policies.load(
        str(distill.train(dataclasses.replace(small, out=tmp_path / "run"))), "intersection-signals"
    )
    assert student.env_options["observation"] == "camera" and student.encoder is not None


def test_action_values_teach_their_best_action(tmp_path):
    settings = {field: getattr(TAUGHT, field) for field in ("env", "observation", "total_steps", "num_worlds")}
    small = pqn.Args(**settings, rollout_steps=8, minibatches=2, hidden=(16,), device="cpu")
    teacher = pqn.train(dataclasses.replace(small, out=tmp_path / "teacher"))
    run = distill.train(dataclasses.replace(SMALL, total_steps=32, teacher=str(teacher), out=tmp_path / "run"))
    advice = checkpoint.read(run / checkpoint.NAME)[0]["more.dataset.advice"]
    assert ((advice == 0) | (advice == 1)).all() and (advice.sum(1) == 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ""}, "who teaches?"),
        ({"teacher": "zoo/highway-pp"}, "did you mean 'zoo/highway-ppo'"),
        ({"teacher": "idm", "env": "racetrack"}, "'idm' teaches the choice among speeds and lanes"),
        ({"teacher": "careful"}, "'careful' drives staged cases only"),
        ({"env": "intersection"}, "was trained on 'highway-fast' and cannot drive 'intersection'"),
        ({"teacher": "zoo/highway-ppo", "env": "parking"}, "was trained on 'highway' and cannot drive 'parking'"),
        ({"teacher_fraction": 1.5}, "--teacher-fraction must lie between 0 and 1"),
        ({"dataset_size": 1}, "--dataset-size must be at least --num-worlds, 2, not 1"),
        ({"encoder": "none", "dataset_size": 10**9}, "a dataset of 1,000,000,000 steps takes 36868.0 GB"),
        ({"minibatches": 3}, "cannot be cut into 3 equal --minibatches"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(teacher, tmp_path, changes, message):
    small = dataclasses.replace(SMALL, **({"teacher": str(teacher), "out": tmp_path / "run"} | changes))
    with pytest.raises(UserError) as error:
        distill.train(small)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
