"""The commands for DQN and what they share with the others: stopping, going on, refusing."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import envs
from agents import checkpoint, policies
from agents.checkpoint import Interrupted
from envs.errors import UserError
from train import dqn, ppo

ROOT = Path(__file__).parents[2]
SMALL = dqn.Args(
    env="highway-fast",
    observation="state",
    total_steps=480,
    num_worlds=2,
    rollout_steps=4,
    gradient_steps=2,
    batch_size=16,
    buffer_size=300,
    learning_starts=40,
    target_every=40,
    hidden=(16, 16),
    checkpoint_every=9,
    log_every=5,
    device="cpu",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return dqn.train(dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("runs") / "whole"))


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(first: Path, second: Path):
    for name in (policies.NAME, checkpoint.NAME):
        a, b = (checkpoint.read(run / name)[0] for run in (first, second))
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
    for ours, theirs in zip(rows(first), rows(second), strict=True):
        del ours["charts/SPS"], theirs["charts/SPS"]
        assert ours == theirs


def test_a_run_leaves_all_that_is_needed(whole):
    config = json.loads((whole / "config.json").read_text())
    assert config["policy"]["algorithm"] == "DQN" and config["args"]["buffer_size"] == 300
    metrics = rows(whole)
    assert [row["step"] for row in metrics] == list(range(40, 481, 40))
    names = {"charts/SPS", "charts/episodic_return", "charts/epsilon", "losses/td_loss", "losses/q_values"}
    assert names | {"rollout/collision_rate", "losses/grad_norm"} <= metrics[-1].keys()


def stop_at(step: int, monkeypatch) -> None:
    """SIGTERM arrives while the worlds make this step."""
    collect = dqn.DQN.collect_rollouts

    def collected(model, *arguments, **named):
        result = collect(model, *arguments, **named)
        if model.num_timesteps >= step:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(dqn.DQN, "collect_rollouts", collected)


@pytest.mark.parametrize("options", [{}, {"quantiles": 4, "prioritised": True}], ids=["default", "prioritised"])
def test_sigterm_saves_and_it_goes_on_bit_for_bit(whole, tmp_path, monkeypatch, options):
    """Between two rows of the log, and with a replay that has gone round."""
    assert threading.current_thread() is threading.main_thread()
    small = dataclasses.replace(SMALL, **options)
    if options:
        whole = dqn.train(dataclasses.replace(small, out=tmp_path / "whole"))
    run = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        stop_at(376, patched)
        with pytest.raises(Interrupted, match=f"saved at 376 steps; go on with: python -m train.dqn --resume {run}"):
            dqn.train(dataclasses.replace(small, out=run))
    torch.manual_seed(99)
    dqn.train(dqn.Args(resume=run))
    assert_same_run(whole, run)


def test_the_command_stops_and_says_how_to_go_on(tmp_path):
    run = tmp_path / "run"
    arguments = ["--env", "highway-fast", "--observation", "state", "--num-worlds", "2", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "train.dqn", *arguments, "--log-every", "1", "--out", run],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert "steps/s" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped and saved at" in error and f"python -m train.dqn --resume {run}" in error
    assert checkpoint.read(run / checkpoint.NAME)[1]["kind"] == "checkpoint"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "parking"}, "'parking' is driven by continuous actions, and DQN chooses among meta-actions"),
        ({"env": "racetrack"}, "train.ppo learns it"),
        ({"env": "higway"}, "did you mean 'highway'"),
        ({"gradient_steps": 0}, "--gradient-steps must be at least 1, not 0"),
        ({"final_epsilon": 1.5}, "--final-epsilon must lie between 0 and 1"),
        ({"buffer_size": 9}, "--buffer-size must be at least 10 with these settings, not 9"),
        ({"buffer_size": 10**13}, "lower --buffer-size"),
        ({"learning_starts": -1}, "--learning-starts must not be negative"),
        ({"resume": Path("nowhere")}, "no run to resume in nowhere"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        dqn.train(dataclasses.replace(SMALL, **({"out": tmp_path / "run"} | changes)))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_algorithm_is_not_gone_on_with(whole):
    with pytest.raises(UserError, match=f"{whole} is a run of DQN: go on with it by train.dqn"):
        ppo.train(ppo.Args(resume=whole))


def test_settings_that_were_given_cannot_change(whole):
    with pytest.raises(UserError, match="--n-steps cannot change"):
        dqn.train(dqn.Args(resume=whole, n_steps=7))


@pytest.mark.parametrize(("scenario", "quantiles"), [("highway-fast", 1), ("intersection", 5)])
def test_what_was_trained_drives(tmp_path, scenario, quantiles):
    small = dataclasses.replace(SMALL, env=scenario, total_steps=80, quantiles=quantiles)
    run = dqn.train(dataclasses.replace(small, out=tmp_path / "run"))
    policy = policies.load(str(run), scenario)
    worlds = envs.make_vec(scenario, 3, device="cpu", **policy.env_options)
    obs, _ = worlds.reset(seed=0)
    explained = policy.explain(obs)
    values = policy.network(obs)
    assert values.shape == (3, len(worlds.action_names))
    assert explained.keys() == {"action_values", "value"}
    assert torch.equal(explained["action_values"], values)
    torch.testing.assert_close(explained["value"], values.max(1).values)
    assert torch.equal(policy.act(obs), values.argmax(1))
    worlds.step(policy.act(obs))
    worlds.close()


def test_pixels_end_to_end_and_through_a_frozen_encoder(tmp_path):
    """Frames are kept as bytes, features in half precision."""
    for encoder, dtype in (("none", torch.uint8), ("zoo/highway-small", torch.float16)):
        out = tmp_path / Path(encoder).name
        small = dataclasses.replace(SMALL, observation="camera", encoder=encoder, total_steps=72, out=out)
        run = dqn.train(small)
        kept = [v for k, v in checkpoint.read(run / checkpoint.NAME)[0].items() if "replay.observations" in k]
        assert dtype in [tensor.dtype for tensor in kept]
        policy = policies.load(str(run), "highway-fast")
        obs = {"camera": torch.randint(0, 256, (3, 6, 64, 96), dtype=torch.uint8), "speed": torch.rand(3, 1)}
        assert policy.act(obs).shape == (3,) and policy.explain(obs)["value"].shape == (3,)
