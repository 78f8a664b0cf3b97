"""Evaluate a policy and its baselines: `python -m evaluation --suite highway --policy zoo/highway-ppo`, or `--env ...`.

Writes results.json, episodes.parquet, report.html, carla.json, and as videos/*.mp4 and replays/*.safetensors failures
of the policy, of many families and kinds, and one success. `--case ID` drives a single case and records it.
"""

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from envs.errors import UserError, exit_on_user_error
from envs.interruption import interruptible
from envs.simulation import resolve_device
from evaluation import api, backends, parts, replay, salient
from evaluation.recorder import HELD_OUT_SEED
from evaluation.report import rich_table, verdict
from evaluation.suites import case, parse
from evaluation.video import write_video


@dataclass(frozen=True)
class Args:
    """Measure how well and how safely a policy drives, over held-out episodes and beside baselines."""

    policy: str
    """What to evaluate: a run directory, zoo/NAME, a driver such as idm, careful, cc or random; with --trust also a
    stable-baselines3 .zip, or MODULE:NAME of your own policy."""
    suite: str | None = None
    """Suite of safety-critical cases; or one of --env and --case."""
    env: str | None = None
    """Scenario; highway by default."""
    case: str | None = None
    """A single case to be driven and recorded, as cut-in/1000000-0042."""
    cases: int = 100
    """Number of cases of each family in the suite."""
    episodes: int = 200
    """Number of episodes of the scenario."""
    backend: Literal["lanewise", "highway-env"] = "lanewise"
    """What simulates the worlds: ours, or highway-env itself, filmed by our camera."""
    baselines: tuple[str, ...] | None = None
    """Policies to be shown beside it, driving the same; by default idm, careful and cc in suites, and elsewhere idm,
    where it can drive, and random."""
    shield: Literal["rss"] | None = None
    """Put the policy behind RSS."""
    corruption: str | None = None
    """Spoil the pictures of its camera: noise, blur, fog, low-light, occlusion or signs, or attack it with fgsm or pgd,
    and how much, 1 to 5, as fog:3."""
    like: str | None = None
    """Scenario whose actions and observations a suite has for a policy of your own; a run directory knows it."""
    trust: bool = False
    """Load policies that may run code of their own: .zip files and Python modules."""
    out: Path | None = None
    """Directory of the results; runs/evaluation/WHERE-POLICY by default. Earlier results there are replaced."""
    seed: int = HELD_OUT_SEED
    """Seed of the episodes, or of the draws of cases. Training uses none from 1,000,000 on."""
    keep: int = 6
    """Failures of the policy to be kept as video and replay, with one success."""
    workers: int | None = None
    """Processes that share the work; by default one a core for large jobs on a CPU, and otherwise this one."""
    ray_address: str | None = None
    """Address of a Ray cluster that does the work, or auto."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one. highway-env is always on the cpu."""


def main() -> None:
    args = tyro.cli(Args)
    with interruptible() as interruption:
        try:
            single(args) if args.case is not None else several(args)
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "interrupted", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None


def several(args: Args) -> None:
    """Evaluate over a suite or a scenario."""
    options = asdict(args)
    del options["case"]
    done = api.run(options.pop("policy"), **options)
    Console().print(rich_table(done.setting, done.outcomes))
    headline, sentences = verdict(done.setting, done.outcomes)
    print(" ".join([headline, *sentences]))
    for outcome in done.outcomes:
        for status, count in outcome.faults.items():
            first = outcome.status.index(status)
            what, where = (
                ("episode", f"episode {first}") if outcome.cases is None else ("case", outcome.cases[first].id)
            )
            many = what if count == 1 else f"{what}s"
            print(f"{outcome.name}: '{status}' in {count} {many}, first in {where}: {outcome.errors[first]}")
    print(f"Report: {done.out / 'report.html'}")


def single(args: Args) -> None:
    """Drive one case, and write its replay and its video."""
    if args.suite is not None or args.env is not None:
        raise UserError("--case goes without --suite and --env: it is a scene of its own")
    scene = case(args.case)
    device = str(resolve_device(args.device))
    options = {"shield": args.shield, "corruption": args.corruption, "like": args.like, "trust": args.trust}
    policy, stage = backends.driver(args.policy, [scene], device, **options)

    def make_worlds(count: int):
        return backends.make_worlds("lanewise", stage, count, device, policy.env_options)

    _, seed, number = parse(scene.id)
    part = parts.measured(make_worlds, policy, "lanewise", seed, 0, 1, keep=1, cases=[scene], world=number)
    if not part.failures and not part.successes:
        raise UserError(f"{policy.name} did not drive {scene.id}: {part.status[0]}, {part.errors[0]}")
    (recording,) = (part.failures | part.successes).values()
    recording = salient.explained(recording, salient.looking(policy))
    out = args.out or Path("runs/evaluation") / "cases"
    out.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w.-]+", "-", f"{scene.id}-{policy.name}")
    replay.save(recording, out / f"{stem}.safetensors")
    write_video(recording, out / f"{stem}.mp4")
    print(f"{recording.title}  ({', '.join(f'{name} {value:g}' for name, value in scene.parameters.items())})")
    if part.errors[0]:
        print(f"{part.status[0]}: {part.errors[0]}")
    print(f"Video: {out / stem}.mp4")
    print(f"Watch it: python -m viewer --replay {out / stem}.safetensors")


if __name__ == "__main__":
    exit_on_user_error(main)
