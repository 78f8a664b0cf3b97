"""How likely are the failures that are found: adaptive stress testing, the cross-entropy method and plain Monte Carlo.

`python -m benchmarks.stress_testing` gives each the same number of episodes of the same cases: the search of
`evaluation.stress`; the adaptive importance sampling of `evaluation.rare`, of whose failures the likeliest is taken;
and plain draws from the prior. Cases that fail without any disturbance are left out.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from benchmarks import machine
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from envs.scenarios.stage import Case
from evaluation import backends, rare
from evaluation.disturbances import Sequences
from evaluation.drive import Drive
from evaluation.stress import searched
from evaluation.suites import FAMILIES, draw

SEED = 2_000_000  # of the cases and of their worlds; the constants of `evaluation.likeliest` were chosen on others

Scores = Callable[[list[Case]], np.ndarray]


@dataclass
class Args:
    families: tuple[str, ...] = ("cut-in", "cut-out", "red-light-runner")
    """Families of cases."""
    policies: tuple[str, ...] = ("idm", "careful")
    """What drives them."""
    cases: int = 5
    """Of each family."""
    seeds: int = 3
    """Searches of each case by each method."""
    budget: int = 1000
    """Episodes a search."""
    interval: float = 1.0
    """Seconds that a disturbance lasts."""
    out: Path | None = None
    """JSON file to write."""


# --- methods ----------------------------------------------------------------------------------------------------------
# (cases, what drives them, episodes a case, seed) -> log-likelihood of the likeliest failure of each, -inf for none


def by_stress_testing(sequences: list[Sequences], drive: Scores, budget: int, seed: int) -> list[float]:
    """The search of `evaluation.stress`."""
    found = searched(sequences, drive, budget, seed)
    return [_best(each, search.points, search.scores) for each, search in zip(sequences, found, strict=True)]


def by_cross_entropy(sequences: list[Sequences], drive: Scores, budget: int, seed: int) -> list[float]:
    """The search of `evaluation.rare`, in the same space."""
    likelihoods = []
    for each in sequences:
        found = rare.search(
            lambda cube, each=each: _scores(each, _normal(each, cube), drive), each.dimension, budget=budget, seed=seed
        )
        likelihoods.append(_best(each, _normal(each, found.points), found.scores))
    return likelihoods


def by_plain_draws(sequences: list[Sequences], drive: Scores, budget: int, seed: int) -> list[float]:
    """Draws from the prior."""
    likelihoods = []
    for k, each in enumerate(sequences):
        points = np.random.default_rng([seed, k]).standard_normal((budget, each.dimension)).clip(-each.most, each.most)
        likelihoods.append(_best(each, points, _scores(each, points, drive)))
    return likelihoods


METHODS = {
    "stress testing": by_stress_testing,
    "cross-entropy": by_cross_entropy,
    "Monte Carlo": by_plain_draws,
}


def _scores(each: Sequences, points: np.ndarray, drive: Scores) -> np.ndarray:
    return drive([each.at(point).of(each.case) for point in points])


def _best(each: Sequences, points: np.ndarray, scores: np.ndarray) -> float:
    return max((each.log_likelihood(each.at(point)) for point in points[scores <= 0.0]), default=-np.inf)


def _normal(each: Sequences, cube: np.ndarray) -> np.ndarray:
    """Standard normals within the bounds, of points of the unit cube."""
    return torch.special.ndtri(torch.from_numpy(cube.clip(1e-300, 1 - 1e-16))).numpy().clip(-each.most, each.most)


# --- command ----------------------------------------------------------------------------------------------------------


def measured(family: str, policy: str, args: Args, on_driven: Callable[[int], None]) -> dict[str, Any]:
    """Search the cases of a family with all methods and seeds."""

    def load(cases: list[Case]):
        return backends.driver(policy, cases, "cpu")

    sequences = [Sequences(case, args.interval) for case in draw(FAMILIES[family], args.cases, SEED)]
    alone = Drive(load, "cpu", SEED)([each.case for each in sequences])
    kept = [each for each, score in zip(sequences, alone, strict=True) if score > 0.0]
    row = {"family": family, "policy": policy, "fail_alone": len(sequences) - len(kept), "methods": {}}
    row |= {"dimensions": [each.dimension for each in kept], "cases": [each.case.id for each in kept]}
    for name, method in METHODS.items():
        row["methods"][name] = [
            method(kept, Drive(load, "cpu", SEED, on_driven), args.budget, seed) for seed in range(args.seeds)
        ]
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table: family, policy, searches; of each method how many found a failure, and the median."""
    found = {name: np.array(values).reshape(-1) for name, values in row["methods"].items()}
    mine, *others = found.values()
    texts = [row["family"], row["policy"], str(len(mine))]
    for values in found.values():
        median = float(np.median(values)) if len(values) else -np.inf
        texts.append(f"{int(np.isfinite(values).sum())}, {'none' if np.isinf(median) else f'{median:.2f}'}")
    best = np.max(others, axis=0)
    return [*texts, f"{int((mine > best).sum())} : {int((mine < best).sum())}"]


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    for family in args.families:
        if family not in FAMILIES:
            raise unknown("family", family, FAMILIES)
    if min(args.cases, args.seeds) < 1 or args.budget < 100:
        raise UserError("--cases and --seeds must be at least 1, --budget at least 100")
    settings = [(family, policy) for policy in args.policies for family in args.families]
    rows, console = [], Console(width=130)
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        each = len(METHODS) * args.seeds * args.cases * args.budget
        bar = progress.add_task("", total=each * len(settings))
        for k, (family, policy) in enumerate(settings, start=1):
            progress.update(bar, description=f"{policy}, {family}")
            rows.append(measured(family, policy, args, lambda episodes: progress.advance(bar, episodes)))
            progress.update(bar, completed=k * each)
    table = Table(title=f"{args.budget:,} episodes a search: failures found, median log-likelihood of the likeliest")
    for heading in ("family", "policy", "searches", *METHODS, "likelier : less likely"):
        table.add_column(heading, justify="left" if heading in ("family", "policy") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    console.print(machine.sentence(), highlight=False, soft_wrap=True)
    if args.out:
        # JSON has no infinities.
        for row in rows:
            for name, values in row["methods"].items():
                row["methods"][name] = [[v if np.isfinite(v) else None for v in seed] for seed in values]
        result = {"budget": args.budget, "interval": args.interval, "rows": rows, "machine": machine.describe()}
        files.write(args.out, json.dumps(result | {"arguments": sys.argv[1:]}, indent=1))


if __name__ == "__main__":
    exit_on_user_error(main)
