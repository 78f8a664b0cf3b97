"""Look for the settings with which an algorithm learns a scenario: a sweep of training runs, on Optuna.

    python -m train.sweep --algorithm ppo --env intersection --trials 20 --steps 200000
    python -m train.sweep --algorithm pqn --env highway-fast --trials 20 --steps 200000 --observation state

Every other option is one of the algorithm's command, as --observation above: it holds in every trial and is not drawn.
What is drawn, and from where, stands in `train.search_space`. The same command goes on with a sweep that was stopped or
killed; started a second time meanwhile, it takes part in it. The folder of a sweep holds

    sweep.json                what is looked for, and how
    study.journal             Optuna's study
    trials/0000, ...          the run directories, with their evaluations; beside them what their commands printed
    trials.csv                a row a trial
    ALGORITHM-SCENARIO.json   the best settings so far, as `train.settings` takes them
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
import torch
import tyro

from envs.errors import UserError, exit_on_user_error
from envs.interruption import interruptible
from envs.simulation import resolve_device
from evaluation import workers
from train import common, settings, trials
from train.study import Args, Sweep, begin, load_optuna

# A sweep whose first so many trials all fail is wrong in itself.
HOPELESS = 3


def parse(line: Sequence[str]) -> tuple[Args, list[str]]:
    """The sweep's settings, and those of the algorithm that hold in every trial, as they were written."""
    return tyro.cli(Args, args=line, return_unknown_args=True)


class Bars:
    """How far a sweep is: a bar in a terminal, and a line a trial."""

    def __init__(self, sweep: Sweep, count: int):
        self.sweep, self.count = sweep, count
        self.start, self.before = time.monotonic(), sweep.done()
        self.console = rich.console.Console()
        columns = (rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(20))
        columns += (rich.progress.TaskProgressColumn(), rich.progress.TimeRemainingColumn())
        self.progress = rich.progress.Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.bar = self.progress.add_task("", total=count, completed=self.before)

    def begin(self, number: int) -> None:
        """A trial is begun, or gone on with."""
        self.progress.update(self.bar, description=f"trial {number}, {self.count} in all")

    def stepped(self, step: int) -> None:
        """So many steps of a trial are done."""
        share = min(step / self.sweep.args.steps, 0.99)
        self.progress.update(self.bar, completed=min(self.sweep.done() + share, self.count))

    def ended(self, trial: Any) -> None:
        """A trial has ended."""
        done = self.sweep.done()
        self.progress.update(self.bar, completed=min(done, self.count))
        how = {
            "COMPLETE": f"{self.sweep.args.objective} {trial.value or 0:.4g}",
            "PRUNED": f"stopped early at {self.sweep.steps(trial):,} steps",
            "FAIL": f"failed: {trial.user_attrs.get('error')}",
        }
        text = f"trial {trial.number}  {how[trial.state.name]}"
        if best := self.sweep.best():
            text += f", best {best.value:.4g} (trial {best.number})"
        seconds = round((time.monotonic() - self.start) / max(done - self.before, 1) * max(self.count - done, 0))
        left = f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        self.console.print(
            f"{text}, {done} of {self.count} done, {left} left", soft_wrap=True, markup=False, highlight=False
        )


def one(folder: Path, count: int, device: str) -> tuple[str, Any]:
    """Carry out one trial of a sweep, as a Ray task does.

    Returns:
        ("done", the trial's number, None where there was none to do), or ("user error", what is wrong).
    """
    try:
        sweep = Sweep(folder, device)
        claim = sweep.claim(count)
        if claim is not None:
            sweep.carry_out(claim)
    except UserError as error:
        return "user error", str(error)
    return "done", None if claim is None else claim.trial.number


def _with_ray(sweep: Sweep, count: int, address: str, bars: Bars) -> None:
    ray = workers.connected(address)
    gpus = 1 if torch.device(resolve_device(sweep.device)).type == "cuda" else 0
    remote = ray.remote(max_retries=workers.MAX_DEATHS, num_cpus=1, num_gpus=gpus)(one)
    pending = [remote.remote(sweep.folder, count, sweep.device) for _ in range(count - sweep.done())]
    try:
        while pending:
            (ready, *_), pending = ray.wait(pending, num_returns=1)
            what, told = ray.get(ready)
            if what != "done":
                raise UserError(told)
            if told is not None:
                _ended(sweep, told, bars)
    finally:
        for task in pending:
            ray.cancel(task)
        ray.shutdown()


def _here(sweep: Sweep, count: int, bars: Bars) -> None:
    waits = False
    while True:
        claim = sweep.claim(count)
        if claim is not None:
            bars.begin(claim.trial.number)
            sweep.carry_out(claim, bars.stepped)
            _ended(sweep, claim.trial.number, bars)
        elif running := [str(trial.number) for trial in sweep.all() if not trial.state.is_finished()]:
            if not waits:
                bars.console.print(f"other processes are at trial {', '.join(running)}: waiting", highlight=False)
            waits = True
            time.sleep(trials.POLL)
        else:
            return


def _ended(sweep: Sweep, number: int, bars: Bars) -> None:
    """A trial has ended: say so, and give up where all have failed."""
    begun = sweep.all()
    bars.ended(begun[number])
    failed = [trial for trial in begun if trial.state == sweep.optuna.trial.TrialState.FAIL]
    if len(failed) == len(begun) >= HOPELESS:
        said = begun[number].user_attrs["error"]
        raise UserError(f"all {len(failed)} trials have failed, the last one with: {said} (see {sweep.folder}/trials)")


def run(args: Args, options: list[str]) -> Sweep:
    """Carry out a sweep, or what is left of it.

    Args:
        args: its settings.
        options: of the algorithm's command, which hold in every trial.

    Raises:
        UserError: bad settings, a folder in the way, no Optuna, no Ray, or every trial failed.
        KeyboardInterrupt: it was interrupted; the same command goes on.
    """
    load_optuna()
    sweep = Sweep(begin(args, options), args.device)
    bars = Bars(sweep, args.trials)
    with bars.progress:
        if args.ray_address is None:
            _here(sweep, args.trials, bars)
        else:
            _with_ray(sweep, args.trials, args.ray_address, bars)
    return sweep


def report(sweep: Sweep) -> str:
    """What to do with what was found."""
    best = sweep.best()
    if best is None:
        return f"no trial has ended well: see {_shown(sweep.folder / 'trials.csv')}"
    value, low, high = best.user_attrs["episode_return"]
    found, where = sweep.found(best), _shown(sweep.folder / "trials" / f"{best.number:04}")
    told = "  ".join(f"{common.option(name)} {value}" for name, value in found.items()) or "those in use"
    return "\n".join(
        [
            f"best      trial {best.number}: return {value:.4g} ({low:.4g} to {high:.4g}), {where}",
            f"settings  {told}",
            f"watch it  python -m viewer --env {sweep.args.env} --policy {where}",
            f"adopt     cp {_shown(sweep.file())} {_shown(settings.FOLDER)}/   once other seeds have confirmed it",
        ]
    )


def _shown(path: Path) -> Path:
    """A path as a person in this folder writes it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main() -> None:
    args, options = parse(sys.argv[1:])
    with interruptible() as interruption:
        try:
            sweep = run(args, options)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from here", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    print(report(sweep))


if __name__ == "__main__":
    exit_on_user_error(main)
