"""The command itself, on the real worlds."""

import errno
import json
import sys

import imageio_ffmpeg
import numpy as np
import pyarrow.parquet
import pytest

import envs
from agents import policies
from envs.errors import UserError, exit_on_user_error
from evaluation import __main__ as command
from evaluation import api, recorder, replay, video
from evaluation.results import Setting, evaluate
from evaluation.suites import SUITES, suite


def run(*arguments, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluation", *map(str, arguments)])
    exit_on_user_error(command.main)


def everything(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_of_both_backends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video, "SECONDS", 1.0)
    monkeypatch.setattr(video, "FREEZE", 0.2)
    common = "--env", "highway-fast", "--policy", "random", "--device", "cpu", "--keep", 1
    run(*common, "--episodes", 12, "--baselines", "idm", "--out", tmp_path / "ours", monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "Collision rate" in printed and "random collided in" in printed
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [
        "carla.json",
        "episodes.parquet",
        "replays",
        "report.html",
        "results.json",
        "videos",
    ]
    found = json.loads((tmp_path / "ours/results.json").read_text())
    random, idm = found["policies"]
    assert (random["name"], idm["name"]) == ("random", "idm")
    assert random["summary"]["collision"]["value"] > 0.5 > idm["summary"]["collision"]["value"]

    recording = replay.load(tmp_path / "ours" / random["recordings"][0]["replay"])
    row = random["episodes"][random["recordings"][0]["episode"]]
    assert recording.scenario == "highway-fast" and recording.x.shape[1] == 21
    assert recording.rewards.sum() == pytest.approx(row["episode_return"], rel=1e-5)
    assert recording.crashed[:, 0].any() == bool(row["collision"])
    size, frames = describe(tmp_path / "ours" / random["recordings"][0]["video"])
    fps, scenes = video.moments(recording)
    assert size == (video.WIDTH, video.HEIGHT) and frames == len(scenes) + round(video.FREEZE * fps)

    back_end = "--backend", "highway-env", "--episodes", 2, "--baselines"
    run(*common, *back_end, "--out", tmp_path / "theirs", monkeypatch=monkeypatch)
    found = json.loads((tmp_path / "theirs/results.json").read_text())
    assert found["backend"] == "highway-env" and len(found["policies"]) == 1
    assert found["policies"][0]["summary"]["traffic_speed"]["value"] == pytest.approx(20, abs=3)


def test_episodes_of_the_real_worlds_do_not_depend_on_the_block(monkeypatch):
    driver = policies.load("idm", scenario="highway-fast")

    def episodes(block: int) -> dict:
        monkeypatch.setattr(recorder, "BLOCK", block)
        setting = Setting("highway-fast", "lanewise", episodes=6, seed=recorder.HELD_OUT_SEED)
        return evaluate(
            lambda n: envs.make_vec("highway-fast", n, device="cpu", **driver.env_options), driver, "", setting
        ).values

    together, apart = episodes(6), episodes(4)
    for name in together:
        assert np.array_equal(together[name], apart[name], equal_nan=True), name


def test_a_suite(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(api, "write_video", lambda recording, path: path.write_bytes(b"film"))
    # The command of a user of another directory, with a policy of his own.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "faulty_policy.py").write_text(POLICY)
    arguments = "--suite", "r157", "--cases", 2, "--device", "cpu", "--baselines", "careful", "--workers", 1
    run("--policy", "faulty_policy:Policy", "--trust", *arguments, "--out", "out", monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "suite r157, 12 cases" in printed
    assert "faulty: 'policy raised' in 1 case, first in lead-stop/1000000-0001: ZeroDivisionError" in printed

    cases = suite("r157", 2, 1_000_000)
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert (found["suite"], found["cases"], found["seed"]) == ("r157", 12, 1_000_000)
    assert [policy["name"] for policy in found["policies"]] == ["faulty", "careful"]
    faulty = found["policies"][0]
    assert faulty["faults"] == {"policy raised": 1, "not finite": 1}
    assert tuple(faulty["families"]) == SUITES["r157"]
    assert faulty["families"]["lead-stop"]["collision"]["n"] == 1  # the other one was not driven
    assert faulty["summary"]["collision"]["n"] == 11
    assert faulty["avoidable"]["reference"] == "careful" and found["policies"][1]["avoidable"] is None
    assert [row["case"] for row in faulty["episodes"]] == [case.id for case in cases]
    for row, case in zip(faulty["episodes"], cases, strict=True):
        assert row["parameters"] == case.parameters and row["family"] == case.family

    table = pyarrow.parquet.read_table(tmp_path / "out/episodes.parquet")
    rows = table.to_pylist()
    assert len(rows) == 24
    statuses = {row["case"]: (row["status"], row["error"]) for row in rows if row["status"] != "ok"}
    assert statuses == {
        "lead-stop/1000000-0001": ("policy raised", "ZeroDivisionError: division by zero"),
        "cut-out/1000000-0000": ("not finite", "the policy returned nan, nan"),
    }
    parameters = {f"parameter.{name}" for case in cases for name in case.parameters}
    assert {name for name in table.column_names if name.startswith("parameter.")} == parameters
    for row, case in zip(rows, cases, strict=False):
        assert {name: row[name] for name in parameters if row[name] is not None} == {
            f"parameter.{name}": pytest.approx(value) for name, value in case.parameters.items()
        }
    kept = [recording["episode"] for recording in faulty["recordings"]]
    assert 1 not in kept and cases.index(next(case for case in cases if case.id.startswith("cut-out"))) in kept
    recording = replay.load(tmp_path / "out" / faulty["recordings"][0]["replay"])
    assert recording.about["case"] == cases[kept[0]].id


POLICY = """
import torch

class Policy:
    name, env_options = "faulty", {}

    def act(self, obs):
        sixth = obs["ego"][:, 2].tolist()
        for speed in sixth:
            if abs(speed - RAISES) < 1e-4:
                1 / 0
        actions = torch.zeros(len(sixth), 2)
        actions[[abs(speed - NOTHING) < 1e-4 for speed in sixth]] = float("nan")
        return actions
"""
_CASES = {case.id: case for case in suite("r157", 2, 1_000_000)}
POLICY = POLICY.replace("RAISES", repr(_CASES["lead-stop/1000000-0001"].target_speed)).replace(
    "NOTHING", repr(_CASES["cut-out/1000000-0000"].target_speed)
)


def test_a_single_case(tmp_path, monkeypatch, capsys):
    case = "cut-in/1000000-0042"
    monkeypatch.setattr(video, "SECONDS", 0.5)
    run("--case", case, "--policy", "cc", "--device", "cpu", "--out", tmp_path, monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    name = "cut-in-1000000-0042-cc"
    assert f"python -m viewer --replay {tmp_path / name}.safetensors" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.mp4", f"{name}.safetensors"]
    recording = replay.load(tmp_path / f"{name}.safetensors")
    assert recording.about["case"] == case and recording.about["seed"] == 1_000_000


def describe(path) -> tuple[tuple[int, int], int]:
    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    return size, sum(1 for _ in reader)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "radnom"], "radnom"),
        (["--policy", "idm", "--env", "higway"], "did you mean 'highway'"),
        (["--policy", "idm", "--episodes", "0"], "at least 1"),
        (["--policy", "idm", "--seed", "-1"], "cannot be negative"),
        (["--policy", "idm", "--baselines", "nobody"], "nobody"),
        (["--policy", "idm", "--suite", "hihgway"], "did you mean 'highway'"),
        (["--policy", "idm", "--suite", "highway", "--env", "highway"], "exclude each other"),
        (["--policy", "idm", "--suite", "highway", "--cases", "0"], "--cases must be at least 1"),
        (["--policy", "idm", "--suite", "highway", "--backend", "highway-env"], "use --backend lanewise"),
        (["--policy", "idm", "--workers", "0"], "--workers must be at least 1"),
        (["--policy", "careful"], "careful"),
        (["--policy", "idm", "--case", "cut-in/7"], "no id of a case"),
        (["--policy", "idm", "--case", "cut-inn/1000000-0042"], "did you mean 'cut-in'"),
        (["--policy", "idm", "--case", "cut-in/1000000-0042", "--suite", "highway"], "goes without"),
        (["--policy", "model.zip", "--trust"], "there is no file model.zip"),
        (["--policy", "some.module:policy"], "add --trust"),
        (["--policy", "zoo/highway-ppo", "--suite", "r157", "--like", "hihgway", "--baselines"], "hihgway"),
        (["--policy", "idm", "--env", "parking"], "'idm' cannot drive 'parking'"),
        (["--policy", "zoo/highway-ppo", "--env", "merge"], "cannot drive 'merge'"),
        (["--policy", "random", "--env", "crossing", "--backend", "highway-env"], "highway-env has no 'crossing'"),
        (["--policy", "random", "--env", "parking", "--backend", "highway-env"], "one agent with meta-actions"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0]
    assert list(tmp_path.iterdir()) == []


def test_goals_are_reported(tmp_path, monkeypatch, capsys):
    common = "--policy", "random", "--device", "cpu", "--episodes", 3
    run(*common, "--env", "parking-action-repeat", "--keep", 0, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "It reached the goal in 0 of 3 episodes" in printed and "Goal reached" in printed
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert [policy["name"] for policy in found["policies"]] == ["random"]  # idm is no baseline here
    assert found["policies"][0]["summary"]["success"]["n"] == 3
    assert "Goal reached, with 95 % interval" in (tmp_path / "out/report.html").read_text()


def test_a_full_disk_replaces_nothing(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    common = ("--policy", "idm", "--baselines", "--env", "highway-fast", "--device", "cpu")
    arguments = (*common, "--episodes", 1, "--keep", 0, "--out", out)
    run(*arguments, monkeypatch=monkeypatch)
    (out / "notes.txt").write_text("mine")
    before = everything(out)

    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(api, "write", full)
        with pytest.raises(SystemExit) as ended:
            run(*arguments, monkeypatch=patch)
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left on device" in said and "1 of 1 parts are kept" in said
    assert everything(out) == before and sorted(tmp_path.iterdir()) == [tmp_path / ".out.parts", out]

    run(*arguments, "--seed", 2_000_000, monkeypatch=monkeypatch)
    assert list(tmp_path.iterdir()) == [out]
    after = everything(out)
    assert after.keys() == before.keys()
    assert {str(path) for path in after if after[path] == before[path]} == {"notes.txt"}


def test_a_video_that_cannot_be_written_is_a_user_error(tmp_path):
    pictures = (np.zeros((32, 64, 3), np.uint8) for _ in range(3))
    with pytest.raises(UserError, match="cannot write the video"):
        video.encode((picture for picture in pictures), 5, tmp_path / "nowhere" / "a.mp4")
    odd = (np.zeros((33, 64, 3), np.uint8) for _ in range(3))
    with pytest.raises(UserError, match="ffmpeg says"):
        video.encode(odd, 5, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
