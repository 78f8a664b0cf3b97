"""Runs that are killed again and again against runs that nobody disturbs: are they the same, bit for bit?

    python -m benchmarks.resume                              PPO, DQN and PQN, twenty kills each: a few minutes each
    python -m benchmarks.resume --algorithms dqn --kills 5

A small run of each algorithm gets SIGKILL at random moments, a fifth of them while it starts, and goes on by --resume
each time. What it ends in is compared with an undisturbed run: every tensor of its last checkpoint (weights, optimiser,
worlds, random generators, replay) and of its policy, and every row of metrics.jsonl but for the steps per second.

This measures no speed. Processes are forked from one that has imported everything, on one thread each.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from agents import checkpoint, policies
from benchmarks import machine
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from envs.interruption import interruptible
from train import common

SHARED = "--env highway-fast --observation state --hidden 32 32 --device cpu --num-worlds 8 --seed 3"
SETTINGS = {
    "ppo": "--total-steps 9600 --rollout-steps 8 --minibatches 2 --epochs 2 --checkpoint-every 5 --log-every 3",
    "dqn": "--total-steps 6400 --rollout-steps 4 --gradient-steps 4 --batch-size 64 --buffer-size 2000 "
    "--learning-starts 320 --checkpoint-every 5 --log-every 3 --prioritised --quantiles 8",
    "pqn": "--total-steps 9600 --rollout-steps 8 --minibatches 2 --epochs 2 --checkpoint-every 5 --log-every 2",
}
STEPS = {"ppo": 64, "dqn": 32, "pqn": 64}  # of a rollout
STARTING = 0.2  # share of the kills while a process starts
TIMED = "charts/SPS"  # the only thing in a row that differs from run to run


@dataclass
class Args:
    algorithms: tuple[str, ...] = tuple(SETTINGS)
    """ppo, dqn, pqn."""
    kills: int = 20
    """Kills of each run."""
    seed: int = 0
    """Of the moments."""
    out: Path | None = None
    """JSON file to write."""


@dataclass
class Found:
    """What came of one algorithm: numbers of things, and of those of them that differ."""

    steps: int
    kills: int = 0
    while_starting: int = 0
    from_nothing: int = 0  # kills before the first checkpoint
    repeated: int = 0  # steps that were logged, lost and done again
    tensors: int = 0
    tensors_that_differ: int = 0
    rows: int = 0
    rows_that_differ: int = 0


def command(algorithm: str, arguments: list[str], log: Path) -> None:
    """`python -m train.ALGORITHM ARGUMENTS`, in a process of its own."""
    torch.set_num_threads(1)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    module = importlib.import_module(f"train.{algorithm}")
    sys.argv = [module.__file__, *arguments]
    exit_on_user_error(lambda: common.run(module.COMMAND, module.train))


@contextlib.contextmanager
def started(algorithm: str, arguments: list[str], run: Path):
    """A training command as a process, which does not outlive the block."""
    context = multiprocessing.get_context("forkserver")
    # Optimisers import the last one when they are made, which takes seconds.
    context.set_forkserver_preload(["train.ppo", "train.dqn", "train.pqn", "torch._dynamo"])
    log = run.with_suffix(".log")
    process = context.Process(target=command, args=(algorithm, arguments, log))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def finish(algorithm: str, arguments: list[str], run: Path) -> None:
    """Run a training command to its end.

    Raises:
        UserError: it failed.
    """
    with started(algorithm, arguments, run) as process:
        process.join()
    if process.exitcode:
        said = run.with_suffix(".log").read_text().strip().splitlines()[-1:]
        raise UserError(f"train.{algorithm} ended with exit code {process.exitcode}: {' '.join(said)}")


def rows(run: Path) -> list[dict[str, Any]]:
    """The whole rows of a run's metrics, without times; a process may be in the middle of the last."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    read = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{name: value for name, value in row.items() if name != TIMED} for row in read]


def reached(run: Path) -> int:
    """The last step that a run has logged."""
    return max((row["step"] for row in rows(run)), default=0)


def killed(algorithm: str, arguments: list[str], run: Path, until: float, delay: float) -> bool:
    """Start a run or go on with it, and kill it some seconds after it has logged a step.

    Returns:
        Whether it was killed; it may have come to its end before.
    """
    with started(algorithm, arguments, run) as process:
        while process.is_alive() and reached(run) < until:
            time.sleep(0.005)
        process.join(delay)
        return process.is_alive()


def differing(first: Path, second: Path) -> tuple[int, int]:
    """How many tensors two files hold, and how many of them are not equal bit for bit."""
    (a, _), (b, _) = checkpoint.read(first), checkpoint.read(second)
    names = a.keys() | b.keys()
    same = [name for name in a.keys() & b.keys() if a[name].dtype == b[name].dtype and _bits(a[name]) == _bits(b[name])]
    return len(names), len(names) - len(same)


def _bits(tensor: torch.Tensor) -> tuple[torch.Size, bytes]:
    """NaN equals NaN here, and 0 differs from -0."""
    return tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def study(algorithm: str, kills: int, rng: random.Random, folder: Path, told: Progress) -> Found:
    """One run undisturbed and one that is killed, in `folder`."""
    settings = f"{SHARED} {SETTINGS[algorithm]}".split()
    whole, run = folder / f"{algorithm}-whole", folder / f"{algorithm}-killed"
    task = told.add_task(f"{algorithm}: undisturbed", total=kills + 2)
    with contextlib.suppress(UserError):  # it only wakes the process that is forked, or what is measured has that too
        finish(algorithm, ["--num-worlds", "0"], folder / "nothing")
    begun = time.time()
    finish(algorithm, [*settings, "--out", str(whole)], whole)
    starting = (whole / "config.json").stat().st_mtime - begun
    rollout = (time.time() - begun - starting) / (reached(whole) / STEPS[algorithm])
    told.update(task, advance=1)

    found = Found(steps=reached(whole))
    moments = sorted(rng.uniform(0, 0.95 * found.steps) for _ in range(kills))
    for moment in moments:
        told.update(task, description=f"{algorithm}: killed {found.kills} times")
        begins = not (run / "config.json").exists()
        if begins:  # nothing to go on with yet
            shutil.rmtree(run, ignore_errors=True)
        arguments = [*settings, "--out", str(run)] if begins else ["--resume", str(run)]
        early = rng.random() < STARTING
        delay = rng.uniform(0, 1.2 * starting if early else rollout)
        if not killed(algorithm, arguments, run, 0 if early else moment, delay):
            break
        found.kills += 1
        found.while_starting += early
        found.from_nothing += not (run / checkpoint.NAME).exists()
        found.repeated += max(reached(run) - saved(run), 0)
        told.update(task, advance=1)
    told.update(task, description=f"{algorithm}: going to its end")
    finish(algorithm, ["--resume", str(run)], run)
    told.update(task, completed=kills + 2)

    for name in (policies.NAME, checkpoint.NAME):
        count, wrong = differing(whole / name, run / name)
        found.tensors += count
        found.tensors_that_differ += wrong
    ours, theirs = rows(run), rows(whole)
    found.rows = max(len(ours), len(theirs))
    found.rows_that_differ = found.rows - sum(a == b for a, b in zip(ours, theirs, strict=False))
    return found


def saved(run: Path) -> int:
    """The step of a run's last checkpoint."""
    path = run / checkpoint.NAME
    return checkpoint.read(path)[1]["state"]["counters"]["num_timesteps"] if path.exists() else 0


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    for name in args.algorithms:
        if name not in SETTINGS:
            raise unknown("algorithm", name, SETTINGS)
    if args.kills < 1:
        raise UserError(f"--kills must be at least 1, not {args.kills}")
    console = Console()
    console.print(machine.sentence())
    found = {}
    with interruptible() as interruption:
        try:
            with tempfile.TemporaryDirectory() as folder, Progress(console=console) as told:
                for name in args.algorithms:
                    found[name] = study(name, args.kills, random.Random(f"{args.seed} {name}"), Path(folder), told)
        except KeyboardInterrupt:
            print("stopped: nothing is kept of a study that is not whole", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    table = Table("", *found, title="a run that is killed, against one that is not")
    for name in Found.__dataclass_fields__:
        table.add_row(name.replace("_", " "), *(f"{getattr(each, name):,}" for each in found.values()))
    console.print(table)
    if args.out:
        report = {"machine": machine.describe(), "settings": {"kills": args.kills, "seed": args.seed}}
        files.write(args.out, json.dumps(report | {"found": {k: vars(v) for k, v in found.items()}}, indent=2) + "\n")
    if any(each.tensors_that_differ or each.rows_that_differ for each in found.values()):
        print("error: a run that was killed has not ended as one that was not", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    exit_on_user_error(main)
