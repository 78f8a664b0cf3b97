"""Evaluate a policy and its baselines: `python -m evaluation --env highway --policy runs/highway`.

Writes results.json, episodes.parquet, report.html, and for the policy the first failures and one success as
videos/*.mp4 and replays/*.safetensors.
"""

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from agents import policies
from agents.drivers import drives_itself
from envs import scenarios
from envs.errors import UserError, exit_on_user_error
from envs.files import write
from envs.simulation import resolve_device
from evaluation import backends, replay
from evaluation.recorder import HELD_OUT_SEED
from evaluation.report import html_report, rich_table, verdict
from evaluation.results import Outcome, Setting, document, evaluate, write_json, write_parquet
from evaluation.video import write_video


@dataclass(frozen=True)
class Args:
    """Measure how well and how safely a policy drives, over held-out episodes and beside baselines."""

    policy: str
    """What to evaluate: a run directory, zoo/NAME, idm or random."""
    env: str = "highway"
    """Scenario."""
    episodes: int = 200
    """Number of episodes of each policy."""
    backend: Literal["lanewise", "highway-env"] = "lanewise"
    """What simulates the worlds: ours, or highway-env itself, filmed by our camera."""
    baselines: tuple[str, ...] | None = None
    """Policies to be shown beside it, driving the same episodes; by default idm, where it can drive, and random."""
    out: Path | None = None
    """Directory of the results; runs/evaluation/ENV-POLICY by default. Earlier results there are replaced."""
    seed: int = HELD_OUT_SEED
    """Seed of the episodes. Training uses none from 1,000,000 on."""
    keep: int = 6
    """Failures of the policy to be kept as video and replay, with one success."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one. highway-env is always on the cpu."""


def main() -> None:
    args = tyro.cli(Args)
    if args.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {args.episodes}")
    if args.seed < 0 or args.keep < 0:
        raise UserError("--seed and --keep cannot be negative")
    scenario = scenarios.get(args.env)  # an unknown name ends it here
    backends.check(args.backend, args.env)
    baselines = args.baselines
    if baselines is None:
        baselines = ("idm", "random") if drives_itself(scenario) else ("random",)
    setting = Setting(args.env, args.backend, args.episodes, args.seed)
    device = resolve_device("cpu" if args.backend == "highway-env" else args.device)
    specs = list(dict.fromkeys((args.policy, *baselines)))
    drivers = [policies.load(spec, scenario=args.env, device=device) for spec in specs]
    out = args.out or Path("runs/evaluation") / re.sub(r"[^\w.-]+", "-", f"{args.env}-{drivers[0].name}")

    console = Console(stderr=True)
    with _staged(out) as staging:
        outcomes = []
        with _progress(console) as progress:
            for spec, driver in zip(specs, drivers, strict=True):
                keep = args.keep if spec == args.policy else 0
                with _bar(progress, driver.name, setting) as on_step:
                    options = driver.env_options
                    make = functools.partial(
                        backends.make_worlds, args.backend, args.env, device=device, options=options
                    )
                    outcomes.append(evaluate(make, driver, spec, setting, keep, on_step))
            _write(setting, outcomes, staging, out, progress)
    Console().print(rich_table(setting, outcomes))
    headline, sentences = verdict(setting, outcomes)
    print(" ".join([headline, *sentences]))
    print(f"Report: {out / 'report.html'}")


def _write(setting: Setting, outcomes: list[Outcome], staging: Path, out: Path, progress: Progress) -> None:
    """Write every file of the results into the staging directory."""
    tested = outcomes[0]
    files, videos = {}, {}
    bar = progress.add_task("recordings", total=len(tested.replays), visible=bool(tested.replays))
    for folder in ("replays", "videos"):
        (staging / folder).mkdir()
    for episode, recording in sorted(tested.replays.items()):
        name = f"episode-{episode:05}"
        files[episode] = {"replay": f"replays/{name}.safetensors", "video": f"videos/{name}.mp4"}
        replay.save(recording, staging / files[episode]["replay"])
        videos[episode] = staging / files[episode]["video"]
        write_video(recording, videos[episode])
        progress.advance(bar)
    found = document(setting, outcomes, files)
    write_json(staging / "results.json", found)
    write_parquet(staging / "episodes.parquet", found)
    write(staging / "report.html", html_report(setting, outcomes, found, videos, out))


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A directory beside `out`, whose entries replace those of the same names in `out` once everything is written."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")
    out.parent.mkdir(parents=True, exist_ok=True)
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


class _Rate(ProgressColumn):
    """Policy steps a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console)


@contextlib.contextmanager
def _bar(progress: Progress, name: str, setting: Setting) -> Iterator[Callable[[int], None]]:
    """A bar over policy steps. Its length is the most there can be until the policy is done and the truth is known."""
    scenario = scenarios.get(setting.scenario)
    total = round(setting.episodes * scenario.duration * scenario.policy_frequency)
    bar = progress.add_task(f"{name}, {setting.episodes} episodes", total=total)
    yield lambda worlds: progress.advance(bar, worlds)
    progress.update(bar, total=progress.tasks[bar].completed)


if __name__ == "__main__":
    exit_on_user_error(main)
