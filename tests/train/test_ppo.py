"""The command: what it writes, what it refuses, and that a killed run goes on as if nothing had happened."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import envs
from agents import checkpoint, policies
from envs.errors import UserError
from envs.sensors.rig import JUNCTION, SURROUND
from perception import encoders
from train import ppo

ROOT = Path(__file__).parents[2]
SMALL = ppo.Args(
    env="highway-fast",
    observation="state",
    total_steps=1920,
    num_worlds=8,
    rollout_steps=8,
    minibatches=2,
    epochs=2,
    hidden=(32, 32),
    checkpoint_every=3,
    device="cpu",
)


def command(*arguments) -> subprocess.Popen:
    """`python -m train.ppo`, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "train.ppo", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def small_command(run: Path, small: ppo.Args = SMALL) -> subprocess.Popen:
    """The command for a run of `small` in another process."""
    changed = {
        field.name: getattr(small, field.name)
        for field in dataclasses.fields(SMALL)
        if getattr(small, field.name) != field.default
    }
    arguments = [[f"--{name.replace('_', '-')}", *(v if isinstance(v, tuple) else [v])] for name, v in changed.items()]
    return command(*sum(arguments, []), "--out", run)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 30 rollouts that nothing disturbed."""
    return ppo.train(dataclasses.replace(SMALL, out=tmp_path_factory.mktemp("runs") / "whole"))


def test_a_run_leaves_all_that_is_needed(whole):
    config = json.loads((whole / "config.json").read_text())
    assert config["args"]["num_worlds"] == 8 and config["policy"]["scenario"] == "highway-fast"
    assert policies.load(str(whole), "highway").env_options == {"observation": "state"}
    metrics = rows(whole)
    assert [row["step"] for row in metrics] == list(range(64, 1921, 64))
    assert {"charts/SPS", "charts/episodic_return", "losses/value_loss", "rollout/collision_rate"} <= metrics[-1].keys()
    board = EventAccumulator(str(whole)).Reload()
    assert [event.step for event in board.Scalars("losses/policy_loss")] == [row["step"] for row in metrics]
    assert 10 < metrics[-1]["rollout/mean_speed"] < 35  # m/s


def assert_same_run(first: Path, second: Path):
    a, b = (checkpoint.read(run / policies.NAME)[0] for run in (first, second))
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    for ours, theirs in zip(rows(first), rows(second), strict=True):
        del ours["charts/SPS"], theirs["charts/SPS"]
        assert ours == theirs


def whole_rows(run: Path) -> int:
    """Rows of a run's metrics that are written to their end: the process may be in the middle of one."""
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)


@pytest.mark.parametrize("rollouts", [0, 13], ids=["before the first checkpoint", "between two checkpoints"])
def test_killed_it_goes_on_to_the_same_weights(whole, tmp_path, rollouts):
    run = tmp_path / "killed"
    process = small_command(run)
    if rollouts:
        wait_for(lambda: whole_rows(run) >= rollouts, process)
    else:
        wait_for((run / "config.json").exists, process)
    process.kill()
    process.wait()
    ppo.train(ppo.Args(resume=run))
    assert_same_run(whole, run)


def test_killed_before_its_camera_it_goes_on_to_the_same_weights(tmp_path):
    """The stacked frames, the appearance of the worlds and the frozen encoder are part of the state too."""
    small = dataclasses.replace(SMALL, observation="camera", total_steps=768)
    undisturbed = ppo.train(dataclasses.replace(small, out=tmp_path / "whole"))
    run = tmp_path / "killed"
    process = small_command(run, small)
    wait_for(lambda: whole_rows(run) >= 7, process)
    process.kill()
    process.wait()
    ppo.train(ppo.Args(resume=run))
    assert_same_run(undisturbed, run)


def test_sigterm_saves_and_says_how_to_go_on(whole, tmp_path):
    run = tmp_path / "stopped"
    process = small_command(run)
    wait_for(lambda: whole_rows(run) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped and saved at" in error and f"python -m train.ppo --resume {run}" in error
    ppo.train(ppo.Args(resume=run))
    assert_same_run(whole, run)


def test_a_finished_run_has_nothing_to_resume(whole, capsys):
    assert ppo.train(ppo.Args(resume=whole)) == whole
    assert "is finished: 1,920 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "higway"}, "did you mean 'highway'"),
        ({"env": "intersection-multi-agent"}, "has 2 agents a world"),
        ({"observation": "lidar"}, "unknown observation 'lidar'"),
        ({"num_worlds": -4}, "--num-worlds must be at least 1, not -4"),
        ({"minibatches": 3}, "cannot be cut into 3 equal --minibatches"),
        ({"gamma": 1.5}, "--gamma must lie between 0 and 1"),
        ({"learning_rate": 0.0}, "--learning-rate must be positive"),
        ({"observation": "camera", "encoder": "zoo/nothing"}, "zoo/nothing"),
        ({"resume": Path("nowhere")}, "no run to resume in nowhere"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        ppo.train(dataclasses.replace(SMALL, **({"out": tmp_path / "run"} | changes)))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_encoder_for_cameras_that_have_changed_is_refused(tmp_path):
    narrower = tuple(dataclasses.replace(camera, field_of_view=40.0) for camera in SURROUND.cameras)
    card = {"encoder": "small", "rig": encoders.describe(dataclasses.replace(SURROUND, cameras=narrower))}
    encoders.save(encoders.build("small", 6, 64, 96), tmp_path / "encoder", card)
    other = dataclasses.replace(SMALL, observation="camera", encoder=str(tmp_path / "encoder"), out=tmp_path / "run")
    with pytest.raises(UserError, match="rig 'surround'"):
        ppo.train(other)
    assert not other.out.exists()


def test_an_encoder_brings_its_cameras(tmp_path):
    """Those of a frozen one; of one that learns, the ones that are asked for."""
    card = {"encoder": "small", "rig": encoders.describe(JUNCTION)}
    encoders.save(encoders.build("small", 6, JUNCTION.height, 96), tmp_path / "encoder", card)
    few = dataclasses.replace(SMALL, observation="camera", total_steps=64, num_worlds=4)
    frozen = ppo.train(dataclasses.replace(few, encoder=str(tmp_path / "encoder"), out=tmp_path / "frozen"))
    learned = ppo.train(dataclasses.replace(few, encoder="none", rig="junction", out=tmp_path / "learned"))
    for run in (frozen, learned):
        assert policies.load(str(run), "highway-fast").env_options["rig"] == "junction"
    again = dataclasses.replace(few, encoder=str(frozen), total_steps=128, out=tmp_path / "again")
    assert policies.load(str(ppo.train(again)), "highway-fast").env_options["rig"] == "junction"
    with pytest.raises(UserError, match="unknown camera rig 'junctoin'"):
        ppo.train(dataclasses.replace(few, encoder="none", rig="junctoin", out=tmp_path / "none"))


def test_bad_input_ends_the_command_with_2():
    process = command("--num-worlds", "-4")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.splitlines()[-1] == "error: --num-worlds must be at least 1, not -4"


def test_nothing_is_overwritten(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    with pytest.raises(UserError, match=f"{whole} exists: choose another --out, or go on with it by --resume"):
        ppo.train(dataclasses.replace(SMALL, out=whole))
    with pytest.raises(UserError, match="--seed cannot change"):
        ppo.train(ppo.Args(resume=whole, seed=9))
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_a_run_that_was_killed_as_it_began_is_begun_again(tmp_path):
    """Between making its directory and writing anything into it."""
    (tmp_path / "run").mkdir()
    run = ppo.train(dataclasses.replace(SMALL, total_steps=64, out=tmp_path / "run"))
    assert (run / policies.NAME).exists()


def test_a_checkpoint_cut_in_half_is_refused_and_kept(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "damaged")
    saved = run / checkpoint.NAME
    half = saved.read_bytes()[: saved.stat().st_size // 2]
    saved.write_bytes(half)
    with pytest.raises(UserError, match="damaged"):
        ppo.train(ppo.Args(resume=run))
    assert saved.read_bytes() == half


def test_pixels_end_to_end_and_through_a_frozen_encoder(tmp_path):
    """A few rollouts from the camera, either way, end in a policy that drives."""
    folder = tmp_path / "encoder"
    card = {"encoder": "small", "rig": encoders.describe(SURROUND)}
    encoders.save(encoders.build("small", 6, 64, 96), folder, card)
    for encoder in (str(folder), "none"):
        settings = {"observation": "camera", "encoder": encoder, "total_steps": 128, "num_worlds": 4}
        run = ppo.train(dataclasses.replace(SMALL, **settings, out=tmp_path / f"from-{Path(encoder).name}"))
        policy = policies.load(str(run))
        assert policy.env_options["observation"] == "camera"
        obs = {"camera": torch.randint(0, 256, (3, 6, 64, 96), dtype=torch.uint8), "speed": torch.rand(3, 1)}
        torch.testing.assert_close(policy.explain(obs)["probabilities"].sum(1), torch.ones(3))


@pytest.mark.parametrize(
    ("scenario", "observation"),
    [
        ("roundabout", "state"),  # five meta-actions
        ("intersection", "state"),  # three
        ("lane-keeping", "state"),  # steering; three vectors are observed
        ("parking", "state"),  # throttle and steering; what is and what is to be
        ("racetrack", "camera"),
        ("intersection-signals", "bev"),
    ],
)
def test_every_kind_of_scenario(tmp_path, scenario, observation):
    settings = {"env": scenario, "observation": observation, "encoder": "none", "total_steps": 192, "hidden": (16, 16)}
    run = ppo.train(dataclasses.replace(SMALL, **settings, out=tmp_path / "run"))
    assert len(rows(run)) == 3
    policy = policies.load(str(run), scenario)
    worlds = envs.make_vec(scenario, 3, device="cpu", **policy.env_options)
    obs, _ = worlds.reset(seed=0)
    actions = policy.act(obs)
    assert actions.shape == (3, *worlds.single_action_space.shape)
    assert torch.equal(actions, policy.act(obs))
    if not worlds.action_names:
        assert actions.abs().max() <= 1
    worlds.step(actions)
    explained = policy.explain(obs)
    assert explained["value"].shape == (3,)
    assert ("probabilities" in explained) == bool(worlds.action_names)
    worlds.close()


def test_continuous_actions_are_the_middle_of_what_was_learnt(tmp_path):
    """The policy read back acts as the network in training does without noise, inside the bounds."""
    settings = {"env": "parking", "total_steps": 64, "hidden": (16, 16)}
    run = ppo.train(dataclasses.replace(SMALL, **settings, out=tmp_path / "run"))
    policy = policies.load(str(run), "parking")
    with torch.no_grad():
        policy.network.action_net.bias += torch.tensor([5.0, 0.0])
    obs = {name: torch.rand(4, 6) for name in ("achieved_goal", "desired_goal", "observation")}
    middle = policy.network.get_distribution(obs).distribution.mean
    torch.testing.assert_close(policy.act(obs), middle.clamp(-1, 1))
    assert (policy.act(obs)[:, 0] == 1).all()
