"""Search a family of cases for failures of a policy: `python -m evaluation.search --policy careful --family cut-in`.

The parameters of the family, and with --disturb what the others do beyond the script, are the coordinates of a cube
that `evaluation.rare` searches. Failures and scores are those of `evaluation.drive`.

Writes search.json (the rate with its interval), episodes.parquet (every episode), search.png, and regressions.json: the
worst cases, as a suite that `python -m evaluation --suite FILE` drives. docs/search.md says what the figures mean.
"""

import json
import math
import shlex
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import replaced, write
from envs.simulation import resolve_device
from evaluation import rare
from evaluation.drive import Drive, Loader, place, scores_of
from evaluation.recorder import HELD_OUT_SEED
from evaluation.regressions import DISTURBANCES, Parameters, regression, staged
from evaluation.suites import FAMILIES, Family
from evaluation.suites.base import always

FORMAT = 1
APART = 0.05  # of a range, by which cases that are kept differ in one parameter at least
FEWEST = 100  # episodes


# --- space ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """The cube whose points are cases of a family.

    Attributes:
        family: whose parameters are the first coordinates, those of a single value left out.
        disturb: x, by which four further coordinates scale what scripted actors do by 1 - x to 1 + x, each for all of
            a case's actors: their speeds, and of every piece of their scripts the duration, the acceleration and the
            lateral speed. 0: no such coordinates.
    """

    family: Family
    disturb: float = 0.0

    def __post_init__(self):
        if not 0.0 <= self.disturb < 1.0:
            raise UserError(f"--disturb must be from 0 to below 1, not {self.disturb:g}")
        if not self.names:
            raise UserError(f"'{self.family.name}' has no parameter with more than one value; give it --disturb 0.1")

    @cached_property
    def free(self) -> tuple[str, ...]:
        """The parameters with more than one value."""
        return tuple(name for name, each in self.family.parameters.items() if each.high > each.low)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the coordinates."""
        return self.free + tuple(f"disturb.{name}" for name in DISTURBANCES if self.disturb)

    def at(self, point: np.ndarray) -> Parameters:
        """The parameters and disturbances of a point of the cube."""
        shares = dict(zip(self.names, np.minimum(point, np.nextafter(1.0, 0.0)).tolist(), strict=True))
        found = {name: each.at(shares.get(name, 0.0)) for name, each in self.family.parameters.items()}
        for name in self.names[len(self.free) :]:
            found[name] = 1.0 + self.disturb * (2.0 * shares[name] - 1.0)
        return found

    def valid(self, parameters: Parameters) -> bool:
        """Whether the family has such a case; `parameters` may hold disturbances."""
        return self.family.valid({name: parameters[name] for name in self.family.parameters})

    def cases_at(self, points: np.ndarray) -> np.ndarray:
        """For which points the family has a case. Shape: (n, D) -> (n,) bool."""
        return np.array([self.valid(self.at(point)) for point in points], dtype=bool)


# --- regressions ------------------------------------------------------------------------------------------------------


def worst(space: Space, found: rare.Found, keep: int) -> list[Parameters]:
    """The failures with the lowest scores, no two of which agree in all parameters to within `APART` of the ranges."""
    kept: list[np.ndarray] = []
    for episode in np.argsort(found.scores, kind="stable"):
        point = found.points[episode]
        if found.scores[episode] > 0.0 or len(kept) == keep:
            break
        if all(np.abs(point - other).max() > APART for other in kept):
            kept.append(point)
    return [space.at(point) for point in kept]


# --- command ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Args:
    """Search a family of cases for failures of a policy, and estimate how often it fails there."""

    policy: str
    """What to search: a run directory, zoo/NAME, or a driver such as careful, cc, idm, careful+late."""
    family: str
    """Family of cases, as cut-in; see docs/suites.md."""
    budget: int = 4000
    """Episodes."""
    disturb: float = 0.0
    """Also scale what scripted actors do by up to 1 - this and 1 + this."""
    out: Path | None = None
    """Directory of the results; runs/search/FAMILY-POLICY by default. Earlier results there are replaced."""
    seed: int = HELD_OUT_SEED
    """Seed of the search and of the worlds."""
    keep: int = 20
    """Most cases in regressions.json."""
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
    if args.budget < FEWEST or args.seed < 0 or args.keep < 0:
        raise UserError(f"--budget must be at least {FEWEST}, and --seed and --keep cannot be negative")
    with place(args.out, "search", args.family, args.policy) as out:
        found = run(args)
        out.mkdir(parents=True, exist_ok=True)
        _write(out, Space(FAMILIES[args.family], args.disturb), *found)
    print(sentence(found[0]))
    print(f"Results: {out / 'search.json'}")


def run(args: Args) -> tuple[dict[str, Any], rare.Found, list[dict[str, Any]]]:
    """Search.

    Returns:
        what search.json holds, what `evaluation.rare` found, and the cases for regressions.json.
    """
    family = FAMILIES[args.family]
    space = Space(family, args.disturb)
    device = str(resolve_device(args.device))
    load = Loader(args.policy, device, args.shield, args.trust)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{args.policy}, {family.name}", total=args.budget)
        drive = Drive(load, device, args.seed, lambda cases: progress.advance(bar, cases))

        def score(points: np.ndarray) -> np.ndarray:
            ids = (f"{family.name}/{args.seed}-{k:04d}" for k in range(len(points)))
            return drive([staged(family, id, space.at(point)) for id, point in zip(ids, points, strict=True)])

        valid = None if family.valid is always else space.cases_at
        found = rare.search(score, len(space.names), budget=args.budget, seed=args.seed, valid=valid)
        progress.update(bar, total=found.episodes)
        kept = worst(space, found, args.keep)
        again = np.empty(0)
        if kept:
            cases = [regression(family, args.seed, number, parameters) for number, parameters in enumerate(kept)]
            again = scores_of(cases, load, device, args.seed)
    regressions = [
        {"family": family.name, "seed": args.seed, "parameters": parameters, "score": round(score, 4)}
        for parameters, score in zip(kept, again.tolist(), strict=True)
    ]
    return _document(args, space, found, load.name), found, regressions


def _document(args: Args, space: Space, found: rare.Found, name: str) -> dict[str, Any]:
    """What search.json holds."""
    failures = found.scores <= 0.0
    return {
        "format": FORMAT,
        "command": shlex.join(["python", "-m", "evaluation.search", *sys.argv[1:]]),
        "policy": name,
        "spec": args.policy,
        "family": args.family,
        "seed": args.seed,
        "confidence": rare.CONFIDENCE,
        "space": {
            each: {"low": space.at(np.zeros(len(space.names)))[each], "high": space.at(np.ones(len(space.names)))[each]}
            for each in space.names
        },
        "disturb": args.disturb,
        "valid_share": found.valid_share,
        "rate": found.rate,
        "low": found.low,
        "high": found.high,
        "effective": found.effective,
        "episodes": found.episodes,
        "failures": int(failures.sum()),
        "estimating": len(found.weights),
        "levels": [round(level, 4) for level in found.levels],
        "reached": found.reached,
        "plain": found.plain,
        "plain_failures": found.plain_failures,
        "plain_high": found.plain_high,
        "naive_episodes": _naive(found.rate),
        "lowest_score": float(found.scores.min()),
    }


def _naive(rate: float) -> int | None:
    """Plain episodes that give a rate to within 30 %, at 95 %; None for a rate of 0 or 1."""
    return math.ceil((1.96 / 0.3) ** 2 * (1.0 - rate) / rate) if 0.0 < rate < 1.0 else None


def sentence(found: dict[str, Any]) -> str:
    """What was found, in words."""
    where = f"{found['policy']} in {found['family']}"
    if found["failures"] == 0:
        return (
            f"{where}: no failure in {found['episodes']:,} episodes, of which {found['plain']:,} were plain draws: "
            f"rate below {found['plain_high']:.2g}; nearest {found['lowest_score']:.2f} m"
        )
    return (
        f"{where}: failure rate {found['rate']:.3g} ({found['low']:.2g} to {found['high']:.2g}), "
        f"{found['effective']:.0f} effective failures, {found['episodes']:,} episodes"
        + (f" (plainly {found['naive_episodes']:,})" if found["naive_episodes"] else "")
    )


def _write(out: Path, space: Space, found: dict, searched: rare.Found, regressions: list[dict]) -> None:
    drawn = [space.at(point) for point in searched.points]
    weights = np.full(searched.episodes, np.nan)
    weights[-len(searched.weights) :] = searched.weights
    table = {f"parameter.{name}": [parameters[name] for parameters in drawn] for name in drawn[0]}
    table |= {"score": searched.scores, "weight": pyarrow.array(weights, from_pandas=True)}
    with replaced(out / "episodes.parquet") as beside:
        pyarrow.parquet.write_table(pyarrow.table(table), beside)
    with replaced(out / "search.png") as beside:
        _plot(beside, space, found, table)
    cases = {"format": FORMAT, "policy": found["policy"], "cases": regressions}
    write(out / "regressions.json", json.dumps(cases, indent=1) + "\n")
    write(out / "search.json", json.dumps(found, indent=1, allow_nan=False) + "\n")


def _plot(path: Path, space: Space, found: dict, table: dict) -> None:
    """Every episode, a panel a coordinate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scores = table["score"]
    across = min(3, len(space.names))
    down = math.ceil(len(space.names) / across)
    figure, panels = pyplot.subplots(
        down, across, figsize=(4.2 * across, 2.9 * down + 0.5), squeeze=False, sharey=True, layout="constrained"
    )
    figure.suptitle(sentence(found), fontsize=9)
    for panel, name in zip(panels.flat, space.names, strict=False):
        values = np.array(table[f"parameter.{name}"])
        for failed, colour in ((False, "#7a8699"), (True, "#c8382e")):
            shown = (scores <= 0.0) == failed
            panel.scatter(values[shown], scores[shown], s=4, color=colour, linewidths=0)
        panel.axhline(0.0, color="#444444", linewidth=0.6)
        unit = space.family.parameters[name].unit if name in space.family.parameters else "times the script's"
        panel.set_xlabel(f"{name} [{unit}]" if unit else name, fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in panels.flat[len(space.names) :]:
        panel.axis("off")
    for row in panels:
        row[0].set_ylabel("distance [m], or - impact [m/s]", fontsize=8)
    panels[0, 0].set_ylim(top=min(50.0, 1.05 * float(scores.max())))
    figure.savefig(path, dpi=110, format="png")
    pyplot.close(figure)


if __name__ == "__main__":
    exit_on_user_error(main)
