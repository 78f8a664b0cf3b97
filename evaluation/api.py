"""Evaluations from Python: what `python -m evaluation` does, for any policy.

from evaluation.api import evaluate

found = evaluate("zoo/highway-ppo", suite="highway", cases=20, out="runs/mine")
print(found["policies"][0]["summary"]["collision"])
"""

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Task as Bar
from rich.text import Text

from agents import foreign
from agents.drivers import drives_itself
from agents.saliency import Saliency
from envs import scenarios
from envs.errors import UserError
from envs.files import write
from envs.simulation import resolve_device
from evaluation import backends, parts, replay, salient, shards
from evaluation import workers as crew
from evaluation.carla_json import carla_json
from evaluation.recorder import HELD_OUT_SEED
from evaluation.report import html_report
from evaluation.results import Outcome, Setting, document, merged, write_json, write_parquet
from evaluation.shards import Shard, Task
from evaluation.video import write_video

SUITE_BASELINES = ("idm", "careful", "cc")
# Starting a process takes as long as a few shards: jobs of at most so many are done in this one.
SMALL = 16
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation has found and where it is.

    Attributes:
        setting: what the policies had in common.
        outcomes: one a policy, the policy under test first.
        found: what results.json holds.
        out: the directory of the files.
    """

    setting: Setting
    outcomes: list[Outcome]
    found: dict
    out: Path


def evaluate(policy: Any, **options: Any) -> dict:
    """Evaluate a policy. For the arguments and errors see `run`.

    Returns:
        what results.json holds.
    """
    return run(policy, **options).found


def run(
    policy: Any,
    *,
    suite: str | None = None,
    env: str | None = None,
    cases: int = 100,
    episodes: int = 200,
    baselines: Sequence[str] | None = None,
    out: str | os.PathLike | None = None,
    seed: int = HELD_OUT_SEED,
    backend: str = "lanewise",
    shield: str | None = None,
    corruption: str | None = None,
    like: str | None = None,
    trust: bool = False,
    keep: int = 6,
    workers: int | None = None,
    ray_address: str | None = None,
    device: str = "auto",
) -> Evaluation:
    """Evaluate a policy over the cases of a suite, or over the episodes of a scenario, and write the files.

    Args:
        policy: what `agents.policies.load` takes: a run directory, "zoo/NAME" or the name of a driver; what
            `agents.foreign.load` takes: a callable, any object with `act`, a stable-baselines3 model, the path of one,
            or "MODULE:NAME".
        suite: name of a suite; or
        env: name of a scenario; "highway" with neither.
        cases: of each family of the suite.
        episodes: of the scenario.
        baselines: policies to be shown beside it; by default "idm", "careful" and "cc" in suites, and elsewhere "idm",
            where it can drive, and "random".
        out: directory of the results; runs/evaluation/WHERE-POLICY by default. Earlier results there are replaced.
        seed: of the episodes, or of the draws of cases. Training uses none from 1,000,000 on.
        backend: "lanewise" or "highway-env".
        shield: "rss" to drive the policy under test behind RSS.
        corruption: what spoils the camera of the policy under test, as "fog:3"; see `evaluation.corruptions`.
        like: scenario whose actions and observations a suite has, for policies that do not say it themselves.
        trust: whether policies may be files and modules that run code of their own.
        keep: failures of the policy to be kept as video and replay, with one success.
        workers: processes; by default this one, and for large jobs on a CPU one a core.
        ray_address: of a Ray cluster that does the work.
        device: "cpu", "cuda" or "auto".

    Raises:
        UserError: bad input, or a full disk; earlier results are untouched.
        KeyboardInterrupt: it was interrupted; the message says what is kept.
    """
    _check(suite, env, cases, episodes, seed, keep, workers)
    if like is not None:
        scenarios.get(like)  # an unknown name ends it here
    device = str(resolve_device("cpu" if backend == "highway-env" else device))
    if not isinstance(policy, str):
        policy = foreign.load(policy, device)
    if suite is None:
        env = env or "highway"
        scenario = scenarios.get(env)
        backends.check(backend, env)
        setting, drawn, count = Setting(env, backend, episodes, seed), None, 0
        beside = ("idm", "random") if drives_itself(scenario) else ("random",)
    else:
        if backend != "lanewise":
            raise UserError("suites are staged in our own worlds; use --backend lanewise")
        drawn, count = shards.drawn(suite, cases, seed), cases
        setting, beside = Setting("stage", backend, len(drawn), seed, suite), SUITE_BASELINES
    beside = beside if baselines is None else baselines
    common = {"setting": setting, "count": count, "like": like, "trust": trust, "device": device}
    tasks = [Task(policy, shield=shield, corruption=corruption, keep=keep, **common)]
    tasks += [Task(spec, **common) for spec in dict.fromkeys(beside) if spec != policy or shield or corruption]
    # An unknown name, a damaged file or a policy of another scenario ends it here, before anything is written.
    drivers = [
        backends.driver(
            task.policy,
            drawn or env,
            device,
            shield=task.shield,
            corruption=task.corruption,
            like=like,
            trust=trust,
        )[0]
        for task in tasks
    ]
    names = [driver.name for driver in drivers]
    place = Path(out) if out else Path("runs/evaluation") / re.sub(r"[^\w.-]+", "-", f"{suite or env}-{names[0]}")
    if place.exists() and not place.is_dir():
        raise UserError(f"--out must be a directory, and {place} is a file")
    outcomes, found = _evaluated(setting, tasks, names, salient.looking(drivers[0]), place, workers, ray_address)
    return Evaluation(setting, outcomes, found, place)


def _check(suite, env, cases, episodes, seed, keep, workers) -> None:
    if suite is not None and env is not None:
        raise UserError("--suite and --env exclude each other: a suite has scenes of its own")
    for name, number in (("cases", cases), ("episodes", episodes), ("workers", 1 if workers is None else workers)):
        if number < 1:
            raise UserError(f"--{name} must be at least 1, not {number}")
    if seed < 0 or keep < 0:
        raise UserError("--seed and --keep cannot be negative")


def _evaluated(
    setting: Setting,
    tasks: list[Task],
    names: list[str],
    look: Saliency | None,
    out: Path,
    workers: int | None,
    address: str | None,
) -> tuple[list[Outcome], dict]:
    """Do the work, and write what comes of it."""
    work = [shards.split(task) for task in tasks]
    everything = [shard for mine in work for shard in mine]
    if workers is None:
        small = len(everything) <= SMALL or tasks[0].device != "cpu" or not isinstance(tasks[0].policy, str)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = 1 if small else cores
    folder = out.parent / f".{out.name}.parts"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _bars(everything) as bars:
            crew.run(everything, folder, workers, address, bars.stepped, bars.done)
            outcomes = [
                merged(
                    name,
                    task.policy if isinstance(task.policy, str) else name,
                    [parts.load(folder / shard.name) for shard in mine],
                    task.keep,
                    task.cases,
                )
                for name, task, mine in zip(names, tasks, work, strict=True)
            ]
            with _staged(out) as staging:
                found = _write(setting, outcomes, look, staging, out, bars)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {_kept(everything, folder)}") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f"cannot write {error.filename or f'in {out.parent}'}: {error.strerror}"
        raise UserError(f"{where}; results that were there are untouched, {_kept(everything, folder)}") from None
    shutil.rmtree(folder, ignore_errors=True)
    return outcomes, found


def _kept(everything: list[Shard], folder: Path) -> str:
    """What an evaluation that ended early has left, in words."""
    if not isinstance(everything[0].task.policy, str):
        shutil.rmtree(folder, ignore_errors=True)
        return "nothing is kept, since the policy is an object of this process"
    done = sum((folder / shard.name).exists() for shard in everything)
    return f"{done} of {len(everything)} parts are kept in {folder}, and the same command goes on from there"


def _write(
    setting: Setting, outcomes: list[Outcome], look: Saliency | None, staging: Path, out: Path, bars: "_Bars"
) -> dict:
    """Write every file of the results into the staging directory."""
    tested = outcomes[0]
    files, videos = {}, {}
    for folder in ("replays", "videos"):
        (staging / folder).mkdir()
    for episode, recording in bars.through(sorted(tested.replays.items()), "recordings"):
        recording = tested.replays[episode] = salient.explained(recording, look)
        name = f"episode-{episode:05}"
        files[episode] = {"replay": f"replays/{name}.safetensors", "video": f"videos/{name}.mp4"}
        replay.save(recording, staging / files[episode]["replay"])
        videos[episode] = staging / files[episode]["video"]
        write_video(recording, videos[episode])
    found = document(setting, outcomes, files)
    write_json(staging / "results.json", found)
    write_parquet(staging / "episodes.parquet", found)
    write(staging / "carla.json", json.dumps(carla_json(setting, tested), indent=1, allow_nan=False) + "\n")
    write(staging / "report.html", html_report(setting, outcomes, found, videos, out))
    return found


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A directory beside `out`, whose entries replace those of the same names in `out` once everything is written."""
    staging = out.parent / f".{out.name}.{os.getpid()}.tmp"
    staging.mkdir()
    try:
        yield staging
        replaced = staging / "replaced"
        replaced.mkdir()
        out.mkdir(exist_ok=True)
        for entry in [entry for entry in staging.iterdir() if entry != replaced]:
            if (out / entry.name).exists():
                (out / entry.name).rename(replaced / entry.name)
            entry.rename(out / entry.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# --- progress ---------------------------------------------------------------------------------------------------------


class _Pace(ProgressColumn):
    """Parts that are done, and policy steps a second."""

    def render(self, task: Bar) -> Text:
        return Text(f"{int(task.completed)}/{task.total:.0f}{task.fields['pace']}", style="progress.download")


class _Bars:
    """Progress of the whole job, in parts. How much of those is done that are being worked out is an estimate, by the
    steps that the others have taken."""

    def __init__(self, progress: Progress, everything: list[Shard]):
        self.progress, self.count = progress, len(everything)
        self.steps = self.finished = self.computed = 0
        self.expected = _most_steps(everything[0])
        self.start = time.monotonic()
        setting = everything[0].task.setting
        name = f"suite {setting.suite}" if setting.suite else setting.scenario
        self.bar: TaskID = progress.add_task(f"{name}, parts", total=self.count, pace="")

    def stepped(self, worlds: int) -> None:
        """So many worlds took a policy step."""
        self.steps += worlds
        self._show()

    def done(self, shard: Shard) -> None:
        """A shard is done, now or before."""
        self.finished += 1
        if self.steps:
            self.computed += 1
            self.expected = self.steps / self.computed
        self._show()

    def _show(self) -> None:
        begun = max(0.0, self.steps / self.expected - self.computed)
        completed = self.finished + min(begun, 0.99 * (self.count - self.finished))
        pace = f", {self.steps / (time.monotonic() - self.start):,.0f} steps/s" if self.steps else ""
        self.progress.update(self.bar, completed=completed, pace=pace)

    def through(self, items: list, what: str) -> Iterator:
        """Iterate with a bar."""
        bar = self.progress.add_task(what, total=len(items), visible=bool(items), pace="")
        for item in items:
            yield item
            self.progress.advance(bar)


def _most_steps(shard: Shard) -> float:
    """About the policy steps that a shard could take."""
    cases = shard.task.cases
    if cases is not None:
        return shard.count * cases[shard.first].duration * 10
    scenario = scenarios.get(shard.task.setting.scenario)
    return shard.count * scenario.duration * scenario.policy_frequency


@contextlib.contextmanager
def _bars(everything: list[Shard]) -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), _Pace(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as progress:
        yield _Bars(progress, everything)
