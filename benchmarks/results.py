"""The table of results: every row trained with several seeds, evaluated over held-out episodes, written to docs/.

    python -m benchmarks.results --list                      the rows, and what is there of each
    python -m benchmarks.results --rows ppo-camera-merge     train and evaluate what is missing of a row
    python -m benchmarks.results                             of all rows: many hours
    python -m benchmarks.results --table                     only write docs/results.md and its pictures again

A run that was interrupted goes on; one whose figures are in docs/results/ROW.json is not made again (`--again` does).
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.results_page import write_page
from benchmarks.results_rows import ROWS, Row
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from evaluation import api, child
from evaluation.kept_seeds import going_on

FORMAT = 1
ROOT = Path(__file__).parent.parent
CURVE = 100  # points kept of a learning curve
# What is kept of an evaluation: metrics of `evaluation.metrics` by name.
KEPT = (
    "episode_return", "collision", "collision_at_fault", "collision_with_person", "success", "red_lights", "off_road",
    "route_completion", "mean_speed", "duration",
)  # fmt: skip


@dataclass
class Args:
    rows: tuple[str, ...] = ()
    """Rows to be made; all of them by default."""
    seeds: int | None = None
    """Seeds of each; by default what the row says."""
    again: bool = False
    """Make them even if their figures are there, from the beginning."""
    list: bool = False
    """Only say what rows there are."""
    table: bool = False
    """Only write the page again."""
    runs: Path = Path("runs/results")
    """Where the run directories go."""
    out: Path = ROOT / "docs"
    """Where results.md, results/*.json and images/results/*.png go."""


def load(path: Path) -> dict[str, Any]:
    """What is known of a row, nothing if there is no file."""
    return json.loads(path.read_text()) if path.exists() else {"format": FORMAT, "runs": []}


def trained(row: Row, seed: int, run: Path) -> float:
    """Train one seed of a row, or go on with it. Returns the seconds that it took, all attempts together.

    Raises:
        UserError: the training failed.
    """
    clock = run.with_suffix(".seconds")
    before = float(clock.read_text()) if run.exists() and clock.exists() else 0.0
    if (run / "config.json").exists():
        line = ["--resume", str(run)]
    else:
        line = [*row.options(seed, run.parent), "--seed", str(seed), "--out", str(run)]
    start = time.monotonic()
    try:
        code = child.run(row.module, line)
    finally:
        seconds = before + time.monotonic() - start
        run.parent.mkdir(parents=True, exist_ok=True)
        files.write(clock, str(seconds))
    if code:
        raise UserError(f"python -m {row.module} {' '.join(line)} ended with exit code {code}")
    return seconds


def measured(row: Row, policy: str, out: Path) -> dict[str, float | None]:
    """The kept figures of a policy over the row's held-out episodes."""
    found = api.run(policy, env=row.drives, episodes=row.episodes, baselines=(), out=out, keep=2).found
    return figures(found["policies"][0])


def figures(policy: dict[str, Any]) -> dict[str, float | None]:
    """Of a policy in results.json: the means and rates that are kept."""
    summary = policy["summary"]
    return {name: summary[name]["value"] for name in KEPT}


def curve(run: Path) -> list[list[float]]:
    """(step, return, collision rate) of a run, at most `CURVE` of them."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "charts/episodic_return" in row]
    every = max(1, -(-len(rows) // CURVE))
    return [
        [row["step"], round(row["charts/episodic_return"], 4), round(row.get("rollout/collision_rate", 0.0), 4)]
        for row in rows[::-every][::-1]
    ]


def make(row: Row, seeds: int, args: Args, console: Console) -> None:
    """Train and evaluate the seeds of a row that are missing, writing its file after each."""
    path = args.out / "results" / f"{row.name}.json"
    known = load(path)
    known |= {"title": row.title, "scenario": row.drives, "command": row.command, "episodes": row.episodes}
    for seed in range(seeds):
        if any(each["seed"] == seed for each in known["runs"]) and not args.again:
            continue
        run = args.runs / f"{row.name}-{seed}"
        if args.again and run.exists():
            shutil.rmtree(run)
        console.rule(f"{row.name}, seed {seed}")
        if row.module is None:
            seconds, steps, points = 0.0, 0, []
        else:
            seconds, points = trained(row, seed, run), curve(run)
            steps = points[-1][0] if points else 0
        found = measured(row, row.policy or str(run), args.runs / f"{row.name}-{seed}-evaluation")
        entry = {"seed": seed, "steps": steps, "seconds": round(seconds), "machine": machine.sentence()}
        known["runs"] = [each for each in known["runs"] if each["seed"] != seed]
        known["runs"].append(entry | {"figures": found, "curve": points})
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(known, indent=None) + "\n")


def listed(rows: list[Row], out: Path) -> Table:
    """The rows, and how many seeds of each are there."""
    table = Table("row", "seeds", "what", "command", box=box.SIMPLE)
    for row in rows:
        there = len(load(out / "results" / f"{row.name}.json")["runs"])
        table.add_row(row.name, f"{there} of {row.seeds}", row.title, row.command)
    return table


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    for name in args.rows:
        if name not in ROWS:
            raise unknown("row", name, ROWS)
    if args.seeds is not None and args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, not {args.seeds}")
    rows = [ROWS[name] for name in args.rows or ROWS]
    console = Console()
    if args.list:
        console.print(listed(rows, args.out))
        return
    if not args.table:
        for row in rows:
            make(row, args.seeds or row.seeds, args, console)
    print(f"Page: {write_page(args.out)}")


if __name__ == "__main__":
    exit_on_user_error(lambda: going_on(main))
