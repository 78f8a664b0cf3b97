"""A sweep in its folder: what is looked for, the study that Optuna keeps of it, its trials, and what they have found.

Several processes may have the same sweep open. Whatever two of them must not do at once is done under a lock.
"""

import csv
import dataclasses
import io
import json
import math
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs import files
from envs.errors import UserError
from train import common, dqn, ppo, pqn, search_space, settings, trials
from train.trials import Failed, Pruned, Trial

COMMANDS = {"ppo": ppo.COMMAND, "dqn": dqn.COMMAND, "pqn": pqn.COMMAND}
CONFIG = "sweep.json"
# Settings that say where and how long a run is, not how it learns: they are not part of what is found.
PLACE = {"env", "observation", "encoder", "total_steps", "seed", "out", "resume", "init", "device"}
PLACE |= {"checkpoint_every", "log_every", "wandb", "video_every"}
MEASURED = ("episode_return", "success", "collision")  # of an evaluation; kept with a trial, with their intervals
WHERE = ("device", "out", "ray_address")  # of a sweep's own settings: may be others when it is gone on with


@dataclass(frozen=True)
class Args:
    """Look for the settings with which an algorithm learns a scenario. Options that are not listed here are those of
    the algorithm's command: they hold in every trial, and are not drawn."""

    algorithm: Literal["ppo", "dqn", "pqn"] = "ppo"
    """what learns"""
    env: str = "highway"
    """scenario"""
    trials: int = 20
    """runs, those that fail or are stopped early among them; more can be asked for later"""
    steps: int = 200_000
    """policy steps of a run, over all worlds"""
    episodes: int = 100
    """held-out episodes that judge a run"""
    objective: Literal["return", "success-collisions"] = "return"
    """what is to be high: the mean return, or the rate of successes less that of collisions"""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """which runs are stopped early, by their return so far"""
    seed: int = 0
    """of the draws, and of the first run; every other run has the next"""
    device: str = "auto"
    """"auto", "cpu" or "cuda" """
    out: Path | None = None
    """folder of the sweep; by default runs/sweep/ALGORITHM-SCENARIO"""
    ray_address: str | None = None
    """address of a Ray cluster that runs the trials, or auto; all of its machines must see the folder"""


# --- what is looked for -----------------------------------------------------------------------------------------------


def given(options: list[str]) -> set[str]:
    """The names of the settings that are written on a command line."""
    written = (option[2:].partition("=")[0].replace("-", "_") for option in options if option.startswith("--"))
    return {name.removeprefix("no_") for name in written}


def check(args: Args, fixed: set[str]) -> None:
    """Raise UserError for the first impossible setting."""
    common.check_counts(args, ("trials", "steps", "episodes"))
    if args.seed < 0:
        raise UserError(f"--seed must not be negative, and is {args.seed}")
    if "total_steps" in fixed:
        raise UserError("a trial's length is given by --steps, not by --total-steps")
    if "resume" in fixed:
        raise UserError("--resume goes on with a single run; a sweep goes on by the same command as before")


def describe(args: Args, options: list[str]) -> dict[str, Any]:
    """What sweep.json holds of a new sweep.

    Raises:
        UserError: an impossible setting.
    """
    fixed = given(options)
    check(args, fixed)
    command = COMMANDS[args.algorithm]
    steps = ["--env", args.env, "--total-steps", str(args.steps)]
    base = common.parse(command, [*options, *steps])
    command.check(base)
    kept = {name: value for name, value in dataclasses.asdict(base).items() if name not in ("out", "resume", "device")}
    same = {name: value for name, value in dataclasses.asdict(args).items() if name not in ("trials", *WHERE)}
    return {
        "sweep": same,
        "fixed": sorted(fixed),
        "settings": json.loads(json.dumps(kept)),
        "space": {name: range.describe() for name, range in search_space.space(args.algorithm, base, fixed).items()},
    }


def begin(args: Args, options: list[str]) -> Path:
    """The folder of a new sweep, or of the one that is gone on with.

    Raises:
        UserError: an impossible setting, or the folder holds something else.
    """
    about = describe(args, options)
    out = (args.out or Path("runs/sweep") / f"{args.algorithm}-{args.env}").resolve()
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / ".lock").exists())):
        raise UserError(f"{out} exists and holds no sweep: choose another --out")
    (out / "trials").mkdir(parents=True, exist_ok=True)
    with trials.locked(out / ".lock"):
        if not (out / CONFIG).exists():
            command = shlex.join(["python", "-m", "train.sweep", *sys.argv[1:]])
            trials.write_json(out / CONFIG, about | {"command": command})
            return out
    before = json.loads((out / CONFIG).read_text())
    for part in ("sweep", "settings"):
        for name, value in about[part].items():
            if before[part].get(name) != value:
                written = common.option(name)
                raise UserError(
                    f"{out} holds a sweep with {written} {before[part].get(name)}, not {value}: choose another --out"
                )
    if before["fixed"] != about["fixed"]:
        raise UserError(f"{out} holds a sweep that was given other options: {before['command']}")
    return out


# --- the sweep --------------------------------------------------------------------------------------------------------


def load_optuna() -> Any:
    """The module, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("sweeps need Optuna: pip install 'lanewise[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


class Sweep:
    """A sweep that was begun, in its folder.

    Args:
        folder: see the module.
        device: of training and evaluation.
    """

    def __init__(self, folder: Path, device: str = "auto"):
        self.folder, self.device, self.optuna = folder, device, load_optuna()
        about = json.loads((folder / CONFIG).read_text())
        self.command_line, self.fixed = about["command"], set(about["fixed"])
        self.args = Args(**about["sweep"])
        self.command = COMMANDS[self.args.algorithm]
        kept = {name: tuple(value) if isinstance(value, list) else value for name, value in about["settings"].items()}
        self.base = self.command.args(**kept)
        self.space = search_space.space(self.args.algorithm, self.base, self.fixed)
        journal = self.optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
        with trials.locked(folder / ".lock"):
            self.study = self.optuna.create_study(
                study_name=f"{self.args.algorithm}-{self.args.env}",
                storage=self.optuna.storages.JournalStorage(journal),
                pruner=self._pruner(),
                direction="maximize",
                load_if_exists=True,
            )
            if not self.study.get_trials(deepcopy=False):
                self.study.enqueue_trial({name: getattr(self.base, name) for name in self.space})

    def _pruner(self) -> Any:
        pruners = self.optuna.pruners
        if self.args.pruner == "median":
            # Before that, returns say how much is still explored rather than how well it will drive.
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=trials.MARKS // 2)
        if self.args.pruner == "hyperband":
            return pruners.HyperbandPruner(min_resource=1, max_resource=trials.MARKS, reduction_factor=3)
        return pruners.NopPruner()

    def all(self) -> list[Any]:
        """Every trial that was begun, as an `optuna.trial.FrozenTrial`."""
        begun = self.study.get_trials(deepcopy=False)
        return [trial for trial in begun if trial.state != self.optuna.trial.TrialState.WAITING]

    def done(self) -> int:
        """How many trials have ended, in whatever way."""
        return sum(trial.state.is_finished() for trial in self.all())

    def claim(self, count: int) -> "Claim | None":
        """A trial to be carried out, one that nobody goes on with or a new one; None where there is nothing to do.

        Args:
            count: of trials in all.
        """
        with trials.locked(self.folder / ".lock"):
            begun = self.all()
            for frozen in begun:
                if not frozen.state.is_finished() and (lock := trials.take(self._run(frozen.number, ".lock"))):
                    trial = self.optuna.trial.Trial(self.study, frozen._trial_id)
                    return self._claimed(trial, lock)
            if len(begun) >= count:
                return None
            # A sampler of its own for every draw: processes draw differently, and a sweep that was stopped draws what
            # it would have drawn.
            seed = np.random.SeedSequence((self.args.seed, len(begun))).generate_state(1)[0]
            self.study.sampler = self.optuna.samplers.TPESampler(seed=int(seed), multivariate=True, constant_liar=True)
            trial = self.study.ask()
            return self._claimed(trial, trials.take(self._run(trial.number, ".lock")))

    def _run(self, number: int, ending: str = "") -> Path:
        return self.folder / "trials" / f"{number:04}{ending}"

    def _claimed(self, trial: Any, lock: Any) -> "Claim":
        drawn = {name: dimension.suggest(trial, name) for name, dimension in self.space.items()}
        run_args = dataclasses.replace(self.base, **drawn, seed=self.args.seed + trial.number)
        return Claim(trial, Trial(self._run(trial.number), lock), run_args)

    def carry_out(self, claim: "Claim", on_step: Callable[[int], None] = lambda step: None) -> None:
        """Train, evaluate, and enter into the study what came of it.

        Args:
            claim: what to do.
            on_step: called with the steps done, now and then.
        """
        start, state, value = time.monotonic(), self.optuna.trial.TrialState.COMPLETE, None
        told = set(self.study.get_trials(deepcopy=False)[claim.trial.number].intermediate_values)

        def on_mark(mark: int, step: int, reached: float) -> bool:
            on_step(step)
            if mark not in told:
                claim.trial.report(reached, mark)
            return claim.trial.should_prune()

        with claim.run.lock:
            try:
                claim.run.train(self.command.module, self._arguments(claim.args), self.args.steps, on_mark)
                summary = claim.run.evaluate(self.args.env, self.args.episodes, self.device)
                value = self._judged(claim, summary)
            except Pruned:
                state = self.optuna.trial.TrialState.PRUNED
            except Failed as error:
                state = self.optuna.trial.TrialState.FAIL
                claim.trial.set_user_attr("error", str(error))
            claim.trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
            with trials.locked(self.folder / ".lock"):
                self.study.tell(claim.trial, value, state)
                self._write()

    def _judged(self, claim: "Claim", summary: dict[str, dict[str, Any]]) -> float:
        """What the objective says to an evaluation, which is kept with the trial."""
        for name in MEASURED:
            claim.trial.set_user_attr(name, [summary[name][part] for part in ("value", "low", "high")])
        value, success, collision = (summary[name]["value"] for name in MEASURED)
        if self.args.objective == "success-collisions":
            if success is None:
                raise Failed(f"'{self.args.env}' has no goal that an episode could reach: use --objective return")
            value = success - collision
        if value is None or not math.isfinite(value):
            raise Failed("the policy finished no episode")
        return value

    def _arguments(self, args: Any) -> list[str]:
        """A run's command line: what differs from the command's defaults, or from those that suit the scenario."""
        usual = (type(args)(), settings.suited(type(args), self.command.algorithm, self.args.env))
        arguments = ["--env", self.args.env, "--device", self.device]
        for name, value in dataclasses.asdict(args).items():
            if name in ("env", "device") or all(getattr(other, name) == value for other in usual):
                continue
            written = common.option(name)
            if isinstance(value, bool):
                arguments.append(written if value else f"--no-{written[2:]}")
            else:
                arguments += [written, *map(str, value if isinstance(value, tuple | list) else [value])]
        return arguments

    # --- what is found ------------------------------------------------------------------------------------------------

    def best(self) -> Any | None:
        """The trial with the highest objective; None before the first has ended well."""
        ended = [trial for trial in self.all() if trial.state == self.optuna.trial.TrialState.COMPLETE]
        return max(ended, key=lambda trial: trial.value, default=None)

    def steps(self, trial: Any) -> int:
        """How far a trial has come, to a share of 1 / `trials.MARKS`."""
        return self.args.steps * max(trial.intermediate_values, default=0) // trials.MARKS

    def found(self, trial: Any) -> dict[str, Any]:
        """The settings of a trial that are other than the command's defaults."""
        drawn = {name: dimension.suggest(trial, name) for name, dimension in self.space.items()}
        used = dataclasses.asdict(dataclasses.replace(self.base, **drawn))
        default = dataclasses.asdict(self.command.args())
        return {name: value for name, value in used.items() if name not in PLACE and value != default[name]}

    def file(self) -> Path:
        """Where the best settings are written."""
        return self.folder / f"{self.args.algorithm}-{self.args.env}.json"

    def why(self, best: Any) -> str:
        """What speaks for the best trial's settings: what they were compared with, and how."""
        states = Counter(trial.state.name for trial in self.all())
        args, count = self.args, len(self.all())
        ways = {"COMPLETE": "ended", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "still running"}
        how = ", ".join(f"{states[state]} {way}" for state, way in ways.items() if states[state])
        first = self.study.get_trials(deepcopy=False)[0]
        usual = "failed" if first.value is None else f"had {first.value:.4g}"
        drawn = "; ".join(f"{common.option(name)} {range.describe()}" for name, range in self.space.items())
        return (
            f"Trial {best.number} of {count} ({how}) of {args.steps:,} steps with one seed each, {args.seed} to "
            f"{args.seed + count - 1}; this one with {args.seed + best.number}. Objective {args.objective} over "
            f"{args.episodes} held-out episodes (seed {trials.VALIDATION_SEED}): {best.value:.4g}, where the settings "
            f"in use before (trial 0) {usual}. The best of many trials is better there than it is. Drawn by Optuna's "
            f"TPE, pruner {args.pruner}, from {drawn}. Command: {self.command_line}"
        )

    def _write(self) -> None:
        """Bring the files for people up to date."""
        best = self.best()
        if best is not None:
            trials.write_json(self.file(), {"settings": self.found(best), "why": self.why(best)})
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["trial", "state", "objective", "steps", "seconds", *MEASURED, *self.space, "error"])
        for trial in self.all():
            told = trial.user_attrs
            measured = [_rounded(told.get(name, [None])[0]) for name in MEASURED]
            drawn = [self.space[name].suggest(trial, name) if name in trial.params else None for name in self.space]
            state = trial.state.name.lower()
            known = [trial.number, state, _rounded(trial.value), self.steps(trial), told.get("seconds")]
            rows.writerow([*known, *measured, *drawn, told.get("error")])
        files.write(self.folder / "trials.csv", table.getvalue())


@dataclass(frozen=True)
class Claim:
    """A trial that this process carries out.

    Attributes:
        trial: `optuna.trial.Trial`.
        run: its files and processes.
        args: the settings of its run.
    """

    trial: Any
    run: Trial
    args: Any


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
