"""Films and Weights & Biases show a run and change nothing of it; a run that diverges says what broke, what is left."""

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from agents import checkpoint, policies
from agents.checkpoint import Interrupted
from envs.errors import UserError
from train import common, distill, dqn, ppo, pqn, watching
from train.watching import undisturbed

SMALL = {
    "env": "highway-fast",
    "observation": "state",
    "total_steps": 160,
    "num_worlds": 4,
    "rollout_steps": 8,
    "hidden": (16, 16),
    "checkpoint_every": 2,
    "device": "cpu",
}
PPO = ppo.Args(**SMALL, minibatches=2, epochs=2)
PQN = pqn.Args(**SMALL, minibatches=2)
DQN = dqn.Args(**SMALL, learning_starts=32, buffer_size=400, batch_size=16, log_every=1)
COMMANDS = {ppo.Args: ppo, pqn.Args: pqn, dqn.Args: dqn, distill.Args: distill}


def trained(args, out: Path, **changes) -> Path:
    return COMMANDS[type(args)].train(dataclasses.replace(args, out=out, **changes))


def rows(run: Path) -> list[dict]:
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "charts/SPS"} for row in told]


def assert_same_run(first: Path, second: Path) -> None:
    for name in (policies.NAME, checkpoint.NAME):
        a, b = (checkpoint.read(run / name)[0] for run in (first, second))
        assert a.keys() == b.keys() and [name for name in a if not torch.equal(a[name], b[name])] == []
    assert rows(first) == rows(second)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of PPO that nobody watches."""
    return trained(PPO, tmp_path_factory.mktemp("runs") / "plain")


# --- films ------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_filmed_is_the_same_run(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.video.SECONDS", 1.0)
    run = trained(PPO, tmp_path / "run", video_every=2)
    assert_same_run(plain, run)
    films = sorted((run / "videos").iterdir())
    assert [film.name for film in films] == ["000000064.mp4", "000000128.mp4", "000000160.mp4"]
    for film in films:
        _, seconds = imageio_ffmpeg.count_frames_and_secs(str(film))
        assert 2 < seconds < 3  # the last second, and the last picture for a while


@pytest.mark.parametrize(
    "args",
    [PQN, DQN, dataclasses.replace(PPO, observation="camera"), dataclasses.replace(PPO, policy="lstm")],
    ids=["pqn", "dqn", "camera", "lstm"],
)
def test_so_is_it_with_every_algorithm_and_stopped_between(args, tmp_path, monkeypatch):
    filmed, stopped = [], []

    def write(recording, path):
        """In place of drawing; draws numbers as a careless film would."""
        torch.rand(7), np.random.rand(7)
        filmed.append((path.name, recording.title))

    monkeypatch.setattr(watching, "write_video", write)
    plain = trained(args, tmp_path / "plain")
    save = checkpoint.Checkpoints._on_rollout_start

    def interrupted(callback):
        callback.stop_requested = callback.model.num_timesteps == 96 and not stopped
        save(callback)

    monkeypatch.setattr(checkpoint.Checkpoints, "_on_rollout_start", interrupted)
    with pytest.raises(Interrupted):
        trained(args, tmp_path / "run", video_every=1)
    stopped.append(True)
    COMMANDS[type(args)].train(type(args)(resume=tmp_path / "run"))
    assert_same_run(plain, tmp_path / "run")
    algorithm = json.loads((tmp_path / "run" / "config.json").read_text())["policy"]["algorithm"]
    assert filmed == [(f"{step:09}.mp4", f"{algorithm}, {step} steps") for step in range(32, 161, 32)]


def test_what_cannot_be_filmed_is_said_and_the_training_goes_on(plain, tmp_path, monkeypatch, capsys):
    def write(recording, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watching, "write_video", write)
    assert_same_run(plain, trained(PPO, tmp_path / "run", video_every=3))
    assert "no film at 96 steps: [Errno 28] No space left on device" in capsys.readouterr().err


def test_random_generators_go_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    with pytest.raises(ValueError), undisturbed():
        torch.manual_seed(9)
        raise ValueError
    assert torch.equal(torch.rand(3), wanted)


# --- Weights & Biases -------------------------------------------------------------------------------------------------


class FakeWandb:
    """What is used of the module."""

    class Error(Exception):
        pass

    def __init__(self):
        self.runs = []

    def init(self, **options):
        if options["project"] == "closed":
            raise self.Error("No API key configured.\nUse `wandb login` to log in.")
        torch.rand(5)
        run = SimpleNamespace(options=options, rows=[], ended=0)
        run.log = lambda values, step: run.rows.append((step, values))
        run.finish = lambda: setattr(run, "ended", run.ended + 1)
        self.runs.append(run)
        return run


def test_wandb_is_told_what_metrics_jsonl_is_told(plain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := FakeWandb())
    run = trained(PPO, tmp_path / "run", wandb=True)
    assert_same_run(plain, run)
    (told,) = wandb.runs
    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": step, **values} for step, values in told.rows] == written
    assert told.ended == 1
    assert told.options["config"]["args"]["learning_rate"] == PPO.learning_rate
    assert (told.options["project"], told.options["name"], told.options["resume"]) == ("lanewise", "run", "allow")
    # Two runs are two there; one that goes on stays one.
    again, other = (watching.WeightsAndBiases(folder, {}) for folder in (run, plain))
    (plain / "wandb.json").unlink()
    assert again.run.options["id"] == told.options["id"] != other.run.options["id"]


def test_without_wandb_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"^--wandb needs Weights & Biases: pip install 'lanewise\[wandb\]'$"):
        trained(PPO, tmp_path / "run", wandb=True)
    assert not (tmp_path / "run").exists()


def test_a_login_that_is_missing_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    monkeypatch.setenv("WANDB_PROJECT", "closed")
    with pytest.raises(UserError, match=r"^Weights & Biases: No API key configured\.$"):
        trained(PPO, tmp_path / "run", wandb=True)


# --- a run that diverges, and the line of every run -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ppo", "pqn", "dqn", "distill"])
def test_a_run_that_diverges_says_what_broke_and_what_is_left(kind, plain, tmp_path):
    """From the fourth rollout on observations are not numbers; the log of DQN would tell of it after a checkpoint."""
    args = {"ppo": PPO, "pqn": PQN, "dqn": dataclasses.replace(DQN, log_every=1000)}.get(kind)
    if args is None:
        args = distill.Args(**SMALL, minibatches=2, teacher=str(plain), dataset_size=400)
    module, run = COMMANDS[type(args)], tmp_path / "run"

    def build(settings, card):
        model, header = module.build(settings, card)
        step = model.env.worlds.step

        def spoiling(actions):
            obs, *rest = step(actions)
            broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in obs.items()}
            return broken if model.num_timesteps >= 96 else obs, *rest

        model.env.worlds.step = spoiling
        return model, header

    command = dataclasses.replace(module.COMMAND, build=build)
    with pytest.raises(UserError) as error:
        common.train(command, dataclasses.replace(args, out=run))
    assert str(error.value).startswith("an observation of the ")
    assert str(error.value).endswith(f"; the last good checkpoint is {run / checkpoint.NAME}, of 64 steps")
    for name in (policies.NAME, checkpoint.NAME):
        tensors, header = checkpoint.read(run / name)
        assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    assert policies.read(run / policies.NAME, "run").header["steps"] == 64


@pytest.mark.parametrize("args", [PPO, PQN, DQN], ids=["ppo", "pqn", "dqn"])
def test_the_line_says_pace_return_collisions_and_time_left(args, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.progress.SECONDS_BETWEEN_LINES", 0)
    trained(args, tmp_path / "run")
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("160 of 160 steps")
    for part in ("steps/s", "return ", "crashed ", "m/s", "0:00:00 left"):
        assert part in line


def test_a_negative_interval_is_refused(tmp_path):
    with pytest.raises(UserError, match="--video-every must not be negative, and is -1"):
        trained(PPO, tmp_path / "run", video_every=-1)
