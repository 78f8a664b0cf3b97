"""The command for PQN: what it writes, that it goes on where it stopped, and what it refuses."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch

import envs
from agents import checkpoint, policies
from agents.checkpoint import Interrupted
from envs.errors import UserError
from train import pqn

SMALL = pqn.Args(
    env="highway-fast",
    observation="state",
    total_steps=320,
    num_worlds=2,
    rollout_steps=8,
    minibatches=2,
    hidden=(16, 16),
    checkpoint_every=9,
    device="cpu",
)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_sigterm_saves_and_it_goes_on_bit_for_bit(tmp_path, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "stopped"
    pqn.train(dataclasses.replace(SMALL, out=whole))
    assert [row["step"] for row in rows(whole)] == list(range(16, 321, 16))
    assert {"charts/epsilon", "losses/td_loss", "losses/q_values", "charts/SPS"} <= rows(whole)[-1].keys()
    train = pqn.PQN.train
    with monkeypatch.context() as patched:
        patched.setattr(
            pqn.PQN,
            "train",
            lambda model: model.num_timesteps == 192 and os.kill(os.getpid(), signal.SIGTERM) or train(model),
        )
        with pytest.raises(Interrupted, match=f"saved at 192 steps; go on with: python -m train.pqn --resume {run}"):
            pqn.train(dataclasses.replace(SMALL, out=run))
    torch.manual_seed(99)
    pqn.train(pqn.Args(resume=run))
    for name in (policies.NAME, checkpoint.NAME):
        a, b = (checkpoint.read(folder / name)[0] for folder in (whole, run))
        assert a.keys() == b.keys() and [name for name in a if not torch.equal(a[name], b[name])] == []
    for ours, theirs in zip(rows(whole), rows(run), strict=True):
        del ours["charts/SPS"], theirs["charts/SPS"]
        assert ours == theirs


@pytest.mark.parametrize("observation", ["state", "camera"])
def test_what_was_trained_drives(tmp_path, observation):
    small = dataclasses.replace(SMALL, observation=observation, total_steps=32, out=tmp_path / "run")
    policy = policies.load(str(pqn.train(small)), "highway-fast")
    worlds = envs.make_vec("highway-fast", 3, device="cpu", **policy.env_options)
    obs, _ = worlds.reset(seed=0)
    assert policy.explain(obs)["value"].shape == (3,)
    worlds.step(policy.act(obs))
    worlds.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "lane-keeping"}, "'lane-keeping' is driven by continuous actions, and PQN chooses among meta-actions"),
        ({"q_lambda": 1.5}, "--q-lambda must lie between 0 and 1"),
        ({"minibatches": 3}, "cannot be cut into 3 equal --minibatches"),
        ({"exploration_fraction": 0.0}, "--exploration-fraction must be positive"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        pqn.train(dataclasses.replace(SMALL, **({"out": tmp_path / "run"} | changes)))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
