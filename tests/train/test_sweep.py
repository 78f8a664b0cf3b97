"""Sweeps: what they draw, that they survive what happens to them, and what they write.

Training and evaluation are stood in for by a small program of their form, whose return is a known function of the
settings; `test_a_sweep_of_real_runs` has the real ones.
"""

import csv
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from envs.errors import UserError
from train import common, ppo, search_space, settings, study, sweep, trials
from train.search_space import SPACES, Choice, Range
from train.study import Args, Sweep

ROOT = Path(__file__).parents[2]
# Ends with the return 10 - 10 (gamma - 0.95)^2 - |log10(learning_rate) + 3|, which rises from 0 in twenty steps of the
# log; the real commands' files, exit codes and answer to SIGTERM.
STAND_IN = """
import json, math, pathlib, signal, sys, time
module, *words = sys.argv[1:]
told = dict(zip(words, words[1:]))
if module == "evaluation":
    run, out = pathlib.Path(told["--policy"]), pathlib.Path(told["--out"])
    value = json.loads((run / "end.json").read_text())
    out.mkdir(exist_ok=True)
    summary = {"value": value, "low": value - 1, "high": value + 1}
    rates = {"success": dict(summary, value=None), "collision": dict(summary, value=0.25)}
    (out / "results.json").write_text(json.dumps({"policies": [{"summary": {"episode_return": summary, **rates}}]}))
    sys.exit()
run = pathlib.Path(told.get("--resume") or told["--out"])
if "--resume" in told:
    words = json.loads((run / "config.json").read_text())
    told = dict(zip(words, words[1:]))
else:
    run.mkdir()
    (run / "config.json").write_text(json.dumps(words))
def stop(number, frame):
    (run / "stopped").touch()
    print("stopped and saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
rate, gamma = float(told.get("--learning-rate", 2e-3)), float(told.get("--gamma", 0.97))
print("a line of the training")
if rate > float(told.get("--target-kl", 1)):
    print("error: the value loss became nan in minibatch 1 of the update at step 7", file=sys.stderr)
    sys.exit(2)
end = 10 - 10 * (gamma - 0.95) ** 2 - abs(math.log10(rate) + 3)
steps = int(told["--total-steps"])
path = run / "metrics.jsonl"
begun = len(path.read_text().splitlines()) if path.exists() else 0
for k in range(begun + 1, 21):
    with path.open("a") as file:
        file.write(json.dumps({"step": steps * k // 20, "charts/episodic_return": end * k / 20}) + "\\n")
    time.sleep(float(told.get("--clip-range", 0.2)) / 20 - 0.2 / 20)
(run / "end.json").write_text(json.dumps(end))
"""
# All but two settings are held; `--clip-range 0.2` lets a run take no time, 0.3 a tenth of a second.
FIXED = "--rollout-steps 32 --minibatches 8 --epochs 4 --entropy 0.01 --value 0.01 --gae-lambda 0.9 --target-kl 1"
OPTIONS = [*FIXED.split(), "--clip-range", "0.2", "--crash-penalty", "5", "--observation", "state"]


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    """Commands are those of the stand-in, and looked at often."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(
        trials, "command", lambda module, *words: [sys.executable, str(program), module, *map(str, words)]
    )
    monkeypatch.setattr(trials, "POLL", 0.01)
    monkeypatch.setattr(sys, "argv", ["sweep", "--trials", "6"])


def arguments(tmp_path: Path, **changes) -> Args:
    return dataclasses.replace(
        Args(env="highway-fast", trials=6, steps=4000, episodes=3, pruner="none", out=tmp_path / "sweep"), **changes
    )


def replaced(**changes: object) -> list[str]:
    """OPTIONS with other values."""
    options = list(OPTIONS)
    for name, value in changes.items():
        options[options.index(common.option(name)) + 1] = str(value)
    return options


def table(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def return_of(row: dict[str, str]) -> float:
    """What the stand-in's formula says, worked out here."""
    return 10 - 10 * (float(row["gamma"]) - 0.95) ** 2 - abs(math.log10(float(row["learning_rate"])) + 3)


# --- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", SPACES)
def test_every_range_is_of_a_setting_and_every_draw_is_possible(algorithm):
    command = study.COMMANDS[algorithm]
    base = command.args(env="intersection")
    space = search_space.space(algorithm, base, set())
    quiet = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = quiet.ask()
        drawn = {name: dimension.suggest(trial, name) for name, dimension in space.items()}
        command.check(dataclasses.replace(base, **drawn))
        for name, value in drawn.items():
            assert type(value) is type(getattr(base, name)), name


@pytest.mark.parametrize("algorithm", SPACES)
def test_a_run_is_told_exactly_what_was_drawn(tmp_path, algorithm):
    """Its command line, read as the algorithm's command reads it."""
    options = ["--hidden", "64", "32", "--observation", "state", "--num-worlds", "16"]
    args = arguments(tmp_path, algorithm=algorithm, device="cpu")
    found = Sweep(study.begin(args, options), "cpu")
    claims = [found.claim(count) for count in (1, 2, 3, 4)]  # whoever drops one gives it up
    for number, claim in enumerate(claims):
        assert claim.args.seed == number and claim.args.hidden == (64, 32) and claim.args.total_steps == 4000
        told = common.parse(study.COMMANDS[algorithm], found._arguments(claim.args))
        assert dataclasses.replace(told, device="auto") == claim.args


def test_a_range_takes_in_the_setting_in_use():
    assert Range(1e-4, 1e-2, log=True).holding(2e-2) == Range(1e-4, 2e-2, log=True)
    assert Range(1e-4, 1e-2, log=True).holding(0.0) == Range(0.0, 1e-2)
    assert Range(1, 8).holding(3) == Range(1, 8)
    assert Choice((8, 32)).holding(16) == Choice((8, 16, 32)) and Choice((8, 32)).holding(8) == Choice((8, 32))
    base = ppo.Args(gamma=0.42, value=0.0)
    space = search_space.space("ppo", base, {"entropy"})
    assert 0.42 in space["gamma"].values and space["value"].low == 0.0 and "entropy" not in space


def test_numbers_are_drawn_with_three_digits():
    quiet = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        value = Range(1e-4, 1e-2, log=True).suggest(quiet.ask(), "x")
        assert value == float(f"{value:.3g}")


# --- a sweep ----------------------------------------------------------------------------------------------------------


def test_a_sweep_finds_the_best_of_its_trials_and_writes_it(tmp_path, monkeypatch, capsys):
    args = arguments(tmp_path)
    done = sweep.run(args, OPTIONS)
    rows = table(args.out)
    assert [row["trial"] for row in rows] == list("012345") and {row["state"] for row in rows} == {"complete"}
    for row in rows:
        assert float(row["objective"]) == pytest.approx(return_of(row), rel=1e-3)
        assert (row["steps"], row["collision"], row["success"]) == ("4000", "0.25", "")
    # The first trial has the settings in use.
    assert (rows[0]["learning_rate"], rows[0]["gamma"]) == ("0.002", "0.97")
    best = max(rows, key=return_of)
    found = json.loads((args.out / "ppo-highway-fast.json").read_text())
    assert set(found) == {"settings", "why"}
    assert found["settings"]["learning_rate"] == float(best["learning_rate"]) != 0.002
    assert found["settings"]["crash_penalty"] == 5 and "observation" not in found["settings"]
    for said in (f"Trial {best['trial']} of 6", "4,000 steps", "trial 0) had 9.6", "python -m train.sweep --trials 6"):
        assert said in found["why"]
    # What is found is what train.settings takes.
    monkeypatch.setattr(settings, "FOLDER", args.out)
    suited = common.parse(ppo.COMMAND, ["--env", "highway-fast"])
    assert suited.learning_rate == float(best["learning_rate"]) and suited.observation == "camera"
    assert f"best      trial {best['trial']}: return" in sweep.report(done)
    assert "trial 5  return" in capsys.readouterr().out
    # Every run has a seed of its own, and its settings on its command line.
    for row in rows[1:]:
        words = json.loads((args.out / "trials" / f"{int(row['trial']):04}" / "config.json").read_text())
        said = dict(zip(words, words[1:], strict=False))
        assert said["--seed"] == row["trial"] and float(said["--learning-rate"]) == float(row["learning_rate"])


def test_more_trials_go_on_with_the_same_study(tmp_path, capsys):
    args = arguments(tmp_path, trials=2)
    sweep.run(args, OPTIONS)
    first = table(args.out)
    sweep.run(dataclasses.replace(args, trials=4), OPTIONS)
    assert table(args.out)[:2] == first and len(table(args.out)) == 4
    whole = arguments(tmp_path, trials=4, out=tmp_path / "whole")
    sweep.run(whole, OPTIONS)
    draws = [[(row["learning_rate"], row["gamma"]) for row in table(out)] for out in (args.out, whole.out)]
    assert draws[0] == draws[1]


def test_what_diverges_fails_and_says_of_what(tmp_path):
    """The stand-in diverges above the learning rate that --target-kl names."""
    args = arguments(tmp_path, trials=8)
    sweep.run(args, replaced(target_kl=0.0021))
    rows = table(args.out)
    assert {row["state"] for row in rows} == {"complete", "fail"}
    for row in rows:
        fails = float(row["learning_rate"]) > 0.0021
        assert row["state"] == ("fail" if fails else "complete")
        assert row["error"] == ("the value loss became nan in minibatch 1 of the update at step 7" if fails else "")


def test_where_all_fail_it_gives_up(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(UserError, match="all 3 trials have failed, the last one with: the value loss became nan"):
        sweep.run(args, replaced(target_kl=1e-5))
    assert len(table(args.out)) == 3 and not (args.out / "ppo-highway-fast.json").exists()


def test_bad_runs_are_stopped_early_and_save_themselves(tmp_path):
    args = arguments(tmp_path, trials=10, pruner="median", seed=3)
    done = sweep.run(args, replaced(clip_range=0.4))
    rows = table(args.out)
    stopped = [row for row in rows if row["state"] == "pruned"]
    assert stopped and all(2000 <= int(row["steps"]) < 4000 for row in stopped)
    # Median of those that had ended before it, at the same step.
    for row in stopped:
        mark = int(row["steps"]) // 400
        ended = [trial for trial in done.all()[: int(row["trial"])] if trial.state.name == "COMPLETE"]
        others = sorted(trial.intermediate_values[mark] for trial in ended)
        middle = (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2
        assert return_of(row) * mark / 10 < middle + 1e-6
        assert (args.out / "trials" / f"{int(row['trial']):04}" / "stopped").exists()


def test_success_less_collisions_is_refused_where_there_is_no_goal(tmp_path):
    with pytest.raises(UserError, match="'highway-fast' has no goal"):
        sweep.run(arguments(tmp_path, objective="success-collisions"), OPTIONS)


# --- what happens to sweeps -------------------------------------------------------------------------------------------


def started(args: Args, options: list[str], said: Path) -> multiprocessing.Process:
    """A sweep's command in a process of its own, a copy of this one; what it prints goes to a file."""

    def command() -> None:
        sys.stdout = sys.stderr = said.open("a", buffering=1)
        sweep.parse = lambda line: (args, options)
        sweep.main()

    process = multiprocessing.get_context("fork").Process(target=command)
    process.start()
    return process


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_it_goes_on_by_the_same_command(tmp_path, number):
    """In the middle of the second trial; the run goes on where it was, and the draws are the same."""
    args, slow = arguments(tmp_path, trials=3), replaced(clip_range=0.8)  # 0.6 s a run
    process = started(args, slow, tmp_path / "said")
    log = args.out / "trials" / "0001" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    os.kill(process.pid, number)
    process.join(30)
    if number == signal.SIGTERM:
        assert process.exitcode == 128 + signal.SIGTERM and (log.parent / "stopped").exists()
        assert "interrupted; the same command goes on" in (tmp_path / "said").read_text()
    else:  # what the killed one had started goes on, and nobody takes the trial from it before it ends
        assert Sweep(args.out).claim(2) is None
    sweep.run(args, slow)
    assert [row["state"] for row in table(tmp_path / "sweep")] == ["complete"] * 3
    assert log.read_text().count("\n") == 20  # no step was done twice
    whole = arguments(tmp_path, trials=3, out=tmp_path / "whole")
    sweep.run(whole, OPTIONS)
    draws = [[row["learning_rate"] for row in table(out)] for out in (tmp_path / "sweep", whole.out)]
    assert draws[0] == draws[1]


def test_two_processes_share_a_sweep(tmp_path):
    args, said = arguments(tmp_path), [tmp_path / "a", tmp_path / "b"]
    crowd = [started(args, replaced(clip_range=0.5), file) for file in said]
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0, 0], [file.read_text() for file in said]
    rows = table(args.out)
    assert [row["state"] for row in rows] == ["complete"] * 6
    assert len({row["learning_rate"] for row in rows}) == 6
    shares = [file.read_text().count("done,") for file in said]
    assert sum(shares) == 6 and min(shares) >= 1
    # Both say what was found by all.
    best = [[line for line in file.read_text().splitlines() if line.startswith("best")] for file in said]
    assert best[0] == best[1] and len(best[0]) == 1


def test_another_sweep_in_its_folder_is_refused(tmp_path):
    args = arguments(tmp_path, trials=1)
    sweep.run(args, OPTIONS)
    before = table(args.out)
    for changes, options, message in [
        ({"steps": 5000}, OPTIONS, "holds a sweep with --steps 4000, not 5000"),
        ({}, replaced(crash_penalty=6), "holds a sweep with --crash-penalty 5.0, not 6.0"),
        ({}, [*OPTIONS, "--gamma", "0.97"], "that was given other options"),
    ]:
        with pytest.raises(UserError, match=message):
            sweep.run(dataclasses.replace(args, **changes), options)
    assert table(args.out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    with pytest.raises(UserError, match="holds no sweep: choose another --out"):
        sweep.run(dataclasses.replace(args, out=other), OPTIONS)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"trials": 0}, [], "--trials must be at least 1, not 0"),
        ({"env": "higway"}, [], "did you mean 'highway'"),
        ({"env": "lane-keeping", "algorithm": "dqn"}, [], "train.ppo learns it"),
        ({}, ["--total-steps", "9"], "--steps, not by --total-steps"),
        ({}, ["--resume", "runs/x"], "--resume goes on with a single run"),
        ({}, ["--gamma", "1.5"], "--gamma must lie between 0 and 1"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, changes, options, message):
    args = arguments(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        sweep.run(args, options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not args.out.exists()


def test_an_option_that_nobody_knows_ends_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        sweep.run(*sweep.parse(["--env", "highway-fast", "--trails", "3", "--out", str(tmp_path / "out")]))
    assert ended.value.code == 2 and "--trails" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_optuna_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'lanewise\[sweep\]'"):
        sweep.run(arguments(tmp_path), OPTIONS)
    assert not (tmp_path / "sweep").exists()


class FakeRay:
    """Ray's functions that are used, in this process; a task runs when it is waited for."""

    def __init__(self):
        self.said = []

    def init(self, address, ignore_reinit_error):
        self.said.append(address)
        if address == "nowhere":
            raise ConnectionError("Could not find any running Ray instance.")

    def remote(self, **options):
        return lambda function: SimpleNamespace(remote=lambda *given: (function, given))

    def wait(self, tasks, num_returns):
        return tasks[-1:], tasks[:-1]

    def get(self, task):
        function, given = task
        return function(*given)

    def cancel(self, task):
        self.said.append("cancelled")

    def shutdown(self):
        self.said.append("shut down")


def test_ray_does_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", ray := FakeRay())
    args = arguments(tmp_path, trials=3, ray_address="auto")
    sweep.run(args, OPTIONS)
    here = arguments(tmp_path, trials=3, out=tmp_path / "here")
    sweep.run(here, OPTIONS)
    told = [[(row["state"], row["objective"]) for row in table(out)] for out in (args.out, here.out)]
    assert told[0] == told[1] and ray.said == ["auto", "shut down"]
    with pytest.raises(UserError, match="no Ray cluster answers at 'nowhere'"):
        sweep.run(dataclasses.replace(args, trials=4, ray_address="nowhere"), OPTIONS)
    with pytest.raises(UserError, match="all 3 trials have failed"):
        sweep.run(dataclasses.replace(args, out=tmp_path / "bad"), replaced(target_kl=1e-5))
    assert ray.said[-1] == "shut down"


@pytest.mark.slow
def test_a_sweep_of_real_runs(tmp_path):
    """One that is in use and one that diverges: float32 has no 1e39."""
    program = textwrap.dedent(
        """
        from train import search_space, sweep
        search_space.SPACES["pqn"] = {"learning_rate": search_space.Choice((5e-4, 1e39))}
        sweep.main()
        """
    )
    options = "--algorithm pqn --env highway-fast --observation state --trials 4 --steps 1024 --episodes 2"
    words = [*options.split(), "--num-worlds", "8", "--hidden", "16", "16", "--out", str(tmp_path / "sweep")]
    done = subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "sweep")
    assert rows[0]["state"] == "complete" and {row["state"] for row in rows} == {"complete", "fail"}
    assert all("became" in row["error"] for row in rows if row["state"] == "fail")
