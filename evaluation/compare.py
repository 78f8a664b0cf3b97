"""Compare two policies on the same cases: `python -m evaluation.compare runs/evaluation/A runs/evaluation/B`.

A and B are directories that `python -m evaluation` wrote; their first policies are compared, case by case. A few
metrics decide the verdict, by default collisions, red lights, leaving the road, the braking that a situation asks for,
too little distance, drifting in the lane, and goals reached; the others are reported beside it. Each group gets
Holm's correction for the number of its metrics. With --out, compare.json and compare.html are written.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import write
from evaluation.comparison import DECIDING, OK, Run, amount, compared
from evaluation.comparison_page import html_comparison
from evaluation.metrics import METRICS
from evaluation.verdict import probability

# Of results.json, what has to be the same.
SAME = ("suite", "scenario", "backend", "seed")
MOST_NAMED = 3  # cases that an error names


@dataclass(frozen=True)
class Args:
    """Say whether policy B is better or worse than policy A on the same cases."""

    a: tyro.conf.Positional[Path]
    """Results of A: a directory, or the results.json in it."""
    b: tyro.conf.Positional[Path]
    """Results of B."""
    metrics: tuple[str, ...] = DECIDING
    """Metrics that decide the verdict, the most important first."""
    out: Path | None = None
    """Directory for compare.json and compare.html."""


def main() -> None:
    args = tyro.cli(Args)
    for name in args.metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        if not METRICS[name].better:
            raise UserError(f"the metric '{name}' cannot decide: neither more nor less of it is better")
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out must be a directory, and {args.out} is a file")
    a, b = named_apart(load(args.a), load(args.b))
    a, b = same_cases(a, b)
    found = compared(a, b, args.metrics)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        write(args.out / "compare.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
        write(args.out / "compare.html", html_comparison(found))
    print(found["sentence"])
    Console().print(rich_table(found))
    print("\n".join(found["sentences"]))
    if args.out is not None:
        print(f"Comparison: {args.out / 'compare.html'}")


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path) -> Run:
    """Read the results of an evaluation.

    Args:
        path: the directory, or the results.json in it.

    Raises:
        UserError: there are none, or they are damaged.
    """
    folder = path.parent if path.name == "results.json" else path
    for name in ("results.json", "episodes.parquet"):
        if not (folder / name).is_file():
            raise UserError(f"there are no results of an evaluation in {folder}: no {name}")
    try:
        found = json.loads((folder / "results.json").read_text())
        table = pyarrow.parquet.read_table(folder / "episodes.parquet")
        name = found["policies"][0]["name"]
        rows = table.filter(pyarrow.compute.equal(table["policy"], name))
        count = len(rows)
        columns = set(rows.column_names)

        def words(column: str) -> list[str]:
            return [str(value) for value in rows[column].to_pylist()] if column in columns else []

        values = {
            metric: rows[metric].to_numpy(zero_copy_only=False).astype(np.float64)
            for metric in found["metrics"]
            if metric in columns
        }
        return Run(
            name=name,
            folder=folder,
            found={key: value for key, value in found.items() if key != "policies"},
            cases=words("case") or [f"episode {number}" for number in rows["episode"].to_pylist()],
            families=words("family"),
            status=words("status") or [OK] * count,
            values=values,
        )
    except (ValueError, KeyError, IndexError, TypeError, OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{folder} holds no results of an evaluation, or they are damaged ({type(error).__name__}: "
            f"{' '.join(str(error).split())})"
        ) from None


def named_apart(a: Run, b: Run) -> tuple[Run, Run]:
    """The runs under names that tell them apart: the policies' own, with their directories where these are the same."""
    if a.name != b.name:
        return a, b
    return tuple(replace(run, name=f"{run.name} ({run.folder})") for run in (a, b))


def same_cases(a: Run, b: Run) -> tuple[Run, Run]:
    """The runs with the cases of B in A's order.

    Raises:
        UserError: the cases are not the same; the message names what differs.
    """
    for key in SAME:
        # The scenario that a suite's policy was trained on may be another.
        if key == "scenario" and a.found.get("suite"):
            continue
        ours, theirs = a.found.get(key), b.found.get(key)
        if ours != theirs:
            raise UserError(f"the cases differ: {a.folder} has {key} {ours}, and {b.folder} has {key} {theirs}")
    for run in (a, b):
        twice = [case for case, count in Counter(run.cases).items() if count > 1]
        if twice:
            raise UserError(f"{run.folder} has case {twice[0]} more than once")
    for run, other in ((a, b), (b, a)):
        missing = [case for case in other.cases if case not in set(run.cases)]
        if missing:
            more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
            raise UserError(
                f"the cases differ: {a.folder} has {len(a.cases)} and {b.folder} has {len(b.cases)}; {run.folder} "
                f"lacks {', '.join(missing[:MOST_NAMED])}{more}"
            )
    place = {case: k for k, case in enumerate(b.cases)}
    order = np.array([place[case] for case in a.cases], dtype=int)
    values = {name: values[order] for name, values in b.values.items()}
    return a, replace(b, cases=a.cases, families=a.families, status=[b.status[k] for k in order], values=values)


# --- the terminal -----------------------------------------------------------------------------------------------------


def rich_table(found: dict) -> Table:
    """The table that the command prints: those that decide first."""
    table = Table(title="B against A, on the same cases; p corrected by Holm", title_justify="left")
    for column in ("", f"A: {found['a']['name']}", f"B: {found['b']['name']}", "B - A", "95 % interval", "p", "B is"):
        table.add_column(column, justify="right" if column else "left")
    colours = {"better": "green", "worse": "bold red"}
    for deciding in (True, False):
        for name, metric in found["metrics"].items():
            if metric["deciding"] == deciding:
                low, high = (amount(metric, name, metric[key], signed=True, unit=False) for key in ("low", "high"))
                table.add_row(
                    Text(metric["title"], style="bold" if deciding else ""),
                    amount(metric, name, metric["a"]),
                    amount(metric, name, metric["b"]),
                    amount(metric, name, metric["difference"], signed=True, unit=False),
                    f"{low} to {high}",
                    probability(metric["p_corrected"]).removeprefix("p ").removeprefix("= "),
                    Text(metric["verdict"], style=colours.get(metric["verdict"], "dim")),
                )
        table.add_section()
    return table


if __name__ == "__main__":
    exit_on_user_error(main)
