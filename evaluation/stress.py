"""Adaptive stress testing: `python -m evaluation.stress --policy idm --family cut-in`.

For each of a few cases of a family it looks for the likeliest disturbances of the other road users that make the policy
fail: `evaluation.disturbances` says what they may do and how likely that is, `evaluation.likeliest` how it is searched.
A failure is a collision of the ego, see `evaluation.drive`. No rate is estimated.

Writes stress.json (every case with its likeliest failure), stress.png, and regressions.json: the failures with their
disturbances, as a suite that `python -m evaluation --suite FILE` drives. docs/search.md says what the figures mean.
"""

import functools
import json
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import replaced, write
from envs.scenarios.stage import Case
from envs.simulation import resolve_device
from evaluation.disturbances import Disturbances, Sequences, movers
from evaluation.drive import Drive, Load, Loader, place
from evaluation.likeliest import BATCH, Search
from evaluation.recorder import BLOCK, HELD_OUT_SEED
from evaluation.regressions import regression
from evaluation.suites import FAMILIES, draw

FORMAT = 1
TRIES = 20  # failures of a case that are driven again, the likeliest first, until one fails again

# --- search -----------------------------------------------------------------------------------------------------------


def searched(
    sequences: list[Sequences], drive: Callable[[list[Case]], np.ndarray], budget: int, seed: int
) -> list[Search]:
    """Search every case for its likeliest failure, all of them side by side.

    Args:
        sequences: what is searched, a case each.
        drive: cases -> scores, see `evaluation.drive.Drive`.
        budget: episodes a case. Those that fail without any disturbance take no more than one batch.
        seed: of the draws.

    Returns:
        the searches, with all that they have driven.
    """
    found = [Search(each.most, np.random.default_rng([seed, k])) for k, each in enumerate(sequences)]
    for left in range(budget, 0, -BATCH):
        busy = [k for k, search in enumerate(found) if not fails_alone(search)]
        asked = [found[k].ask(min(BATCH, left)) for k in busy]
        cases = [
            sequences[k].at(point).of(sequences[k].case)
            for k, points in zip(busy, asked, strict=True)
            for point in points
        ]
        if not cases:
            break
        for k, points, scores in zip(busy, asked, np.split(drive(cases), len(busy)), strict=True):
            found[k].tell(points, scores)
    return found


def fails_alone(search: Search) -> bool:
    """Whether a case fails without any disturbance, as which it is driven first."""
    return len(search.scores) > 0 and search.scores[0] <= 0.0


@dataclass(frozen=True)
class Failure:
    """The likeliest failure of a case.

    Attributes:
        number: of the case among those that were searched.
        disturbances: that lead to it.
        log_likelihood: of these, beside none at all.
        score: when it was driven from its place among the regressions.
    """

    number: int
    disturbances: Disturbances
    log_likelihood: float
    score: float


def confirmed(
    sequences: list[Sequences], found: list[Search], load: Load, device: str, seed: int, at_fault: bool = False
) -> list[Failure]:
    """Of every case the likeliest failure that is one from its place among the regressions too; the likeliest first.

    What a camera sees depends on the place (light, colours, noise), so a policy with a camera may pass there.

    Args:
        sequences, found: see `searched`.
        load, device, seed, at_fault: see `evaluation.drive.scores_of`.
    """
    left = {k: search.failures()[:TRIES].tolist() for k, search in enumerate(found)}
    while True:
        tried = []
        for k, each in enumerate(sequences):
            if left[k]:
                disturbances = each.at(found[k].points[left[k][0]])
                tried.append(Failure(k, disturbances, each.log_likelihood(disturbances), math.nan))
        tried.sort(key=lambda failure: -failure.log_likelihood)
        cases = []
        for rank, failure in enumerate(tried):
            case = sequences[failure.number].case
            case = regression(FAMILIES[case.family], seed, rank, case.parameters)
            cases.append(failure.disturbances.of(case))
        scores = Drive(load, device, seed, block=BLOCK, at_fault=at_fault)(cases)
        if not (scores > 0.0).any():
            return [replace(failure, score=float(score)) for failure, score in zip(tried, scores, strict=True)]
        for failure, score in zip(tried, scores, strict=True):
            if score > 0.0:
                del left[failure.number][0]


# --- command ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Args:
    """Find the likeliest disturbances of other road users that make a policy fail, case by case."""

    policy: str
    """What to test: a run directory, zoo/NAME, or a driver such as careful, cc, idm, careful+late."""
    family: str
    """Family of cases, as cut-in; see docs/suites.md."""
    cases: int = 10
    """Cases of the family: the first under the seed."""
    budget: int = 1000
    """Episodes a case."""
    interval: float = 1.0
    """Seconds that a disturbance lasts."""
    at_fault: bool = False
    """Count collisions only that are laid to the ego by nuPlan's rule, see docs/metrics.md."""
    out: Path | None = None
    """Directory of the results; runs/stress/FAMILY-POLICY by default. Earlier results there are replaced."""
    seed: int = HELD_OUT_SEED
    """Seed of the cases, of the search and of the worlds."""
    shield: str | None = None
    """rss: put the policy behind RSS."""
    trust: bool = False
    """Load policies that may run code of their own: .zip files and Python modules."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def main() -> None:
    args = tyro.cli(Args)
    if args.family not in FAMILIES:
        raise unknown("family", args.family, FAMILIES)
    if args.cases < 1 or args.budget < BATCH or args.seed < 0:
        raise UserError(f"--cases must be at least 1, --budget at least {BATCH}, and --seed cannot be negative")
    with place(args.out, "stress", args.family, args.policy) as out:
        found, failures, searches = run(args)
        out.mkdir(parents=True, exist_ok=True)
        with replaced(out / "stress.png") as beside:
            _plot(beside, found, failures, searches)
        cases = {"format": FORMAT, "policy": found["policy"], "cases": _regressions(found, failures)}
        write(out / "regressions.json", json.dumps(cases, indent=1) + "\n")
        write(out / "stress.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    print(sentence(found))
    print(f"Results: {out / 'stress.json'}")


def run(args: Args) -> tuple[dict[str, Any], list[Failure], list[Search]]:
    """Search.

    Returns:
        what stress.json holds, the failures, and the searches.
    """
    family = FAMILIES[args.family]
    sequences = [Sequences(case, args.interval) for case in draw(family, args.cases, args.seed)]
    device = str(resolve_device(args.device))
    load = Loader(args.policy, device, args.shield, args.trust)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{args.policy}, {family.name}", total=args.budget * args.cases)
        advance = functools.partial(progress.advance, bar)
        drive = Drive(load, device, args.seed, advance, at_fault=args.at_fault)
        searches = searched(sequences, drive, args.budget, args.seed)
        progress.update(bar, total=drive.episodes)
        failures = confirmed(sequences, searches, load, device, args.seed, args.at_fault)
    document = {
        "format": FORMAT,
        "command": shlex.join(["python", "-m", "evaluation.stress", *sys.argv[1:]]),
        "policy": load.name,
        "spec": args.policy,
        "family": args.family,
        "seed": args.seed,
        "interval": args.interval,
        "budget": args.budget,
        "at_fault": args.at_fault,
        "cases": [
            {
                "case": each.case.id,
                "parameters": each.case.parameters,
                "actors": list(movers(each.case)),
                "dimension": each.dimension,
                "episodes": len(search.scores),
                "failures": len(search.failures()),
                "undisturbed": float(search.scores[0]),
                "lowest_score": float(search.scores.min()),
                "log_likelihood": None,
                "score": None,
            }
            for each, search in zip(sequences, searches, strict=True)
        ],
    }
    for failure in failures:
        document["cases"][failure.number] |= {"log_likelihood": failure.log_likelihood, "score": failure.score}
    return document, failures, searches


def _regressions(found: dict[str, Any], failures: list[Failure]) -> list[dict[str, Any]]:
    """The cases of regressions.json."""
    return [
        {
            "family": found["family"],
            "seed": found["seed"],
            "parameters": found["cases"][failure.number]["parameters"],
            "disturbances": failure.disturbances.document(),
            "log_likelihood": failure.log_likelihood,
            "score": round(failure.score, 4),
        }
        for failure in failures
    ]


def sentence(found: dict[str, Any]) -> str:
    """What was found, in words."""
    cases = found["cases"]
    failed = [case for case in cases if case["log_likelihood"] is not None]
    alone = sum(case["undisturbed"] <= 0.0 for case in failed)
    text = f"{found['policy']} in {found['family']}: {len(failed)} of {len(cases)} cases have a failure"
    if found["at_fault"]:
        text += " that is the policy's fault"
    if alone:
        text += f", {alone} without any disturbance"
    if len(failed) > alone:
        best = max((case for case in failed if case["undisturbed"] > 0.0), key=lambda case: case["log_likelihood"])
        text += f"; the likeliest disturbances have log-likelihood {best['log_likelihood']:.2f}, in {best['case']}"
    return f"{text}; {sum(case['episodes'] for case in cases):,} episodes"


def _plot(path: Path, found: dict[str, Any], failures: list[Failure], searches: list[Search]) -> None:
    """How the searches went on, and what the actor that is disturbed most does in each failure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (went, along, aside) = pyplot.subplots(1, 3, figsize=(13.0, 3.8), layout="constrained")
    figure.suptitle(sentence(found), fontsize=9)
    colours = pyplot.get_cmap("tab10")
    for number, search in enumerate(searches):
        likelihoods = np.where(search.scores <= 0.0, -0.5 * (search.points**2).sum(1), -np.inf)
        went.plot(1 + np.arange(len(likelihoods)), np.maximum.accumulate(likelihoods), color=colours(number % 10))
    went.set_xlabel("episodes of the case", fontsize=8)
    went.set_ylabel("log-likelihood of its likeliest failure", fontsize=8)
    for failure in failures:
        table = max(failure.disturbances.actors.values(), key=lambda table: np.abs(table).sum())
        edges = failure.disturbances.interval * np.arange(len(table) + 1)
        for panel, values in ((along, table[:, 0]), (aside, table[:, 1])):
            panel.stairs(values, edges, baseline=None, color=colours(failure.number % 10))
    for panel, what in ((along, "acceleration [m/s2]"), (aside, "speed to the right [m/s]")):
        panel.set_xlabel("time since the disturbances begin [s]", fontsize=8)
        panel.set_ylabel(f"disturbance: {what}", fontsize=8)
        panel.axhline(0.0, color="#444444", linewidth=0.6)
    for panel in (went, along, aside):
        panel.tick_params(labelsize=7)
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    exit_on_user_error(main)
