"""docs/results.md and its learning curves, from the files of the rows."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from envs import files
from evaluation.statistics.aggregates import interquartile_mean, stratified_bootstrap

# Column, figure of the evaluation, what it is multiplied by, decimals.
COLUMNS = (
    ("return", "episode_return", 1.0, 2),
    ("collisions, %", "collision", 100.0, 1),
    ("goal, %", "success", 100.0, 1),
    ("red lights an episode", "red_lights", 1.0, 3),
    ("route, %", "route_completion", 1.0, 1),
    ("m/s", "mean_speed", 1.0, 1),
    ("duration, s", "duration", 1.0, 1),
)
INTRODUCTION = """# Results

Made by `python -m benchmarks.results`, which trains and evaluates every row with several seeds; `--list` says what
is there, `--rows NAME` makes one again. Settings that differ from the commands' defaults stand in `train/settings/`.

Figures are interquartile means over the seeds with a 95 % interval by stratified bootstrap (Agarwal et al. 2021); with
three seeds it reaches from the least to the greatest. Evaluation is on episodes of seeds that training does not use,
and of `town` on maps that it does not use. Steps are policy steps over all worlds, minutes those of training.
"""


def interval(values: list[float]) -> tuple[float, float, float]:
    """Interquartile mean over runs, and its interval."""
    scores = np.array(values, dtype=float)[:, None]
    low, high = stratified_bootstrap(interquartile_mean, scores)
    return float(interquartile_mean(scores)), float(low), float(high)


def cell(runs: list[dict[str, Any]], name: str, factor: float, decimals: int) -> str:
    """A figure with its interval, "" where it is not defined."""
    values = [run["figures"].get(name) for run in runs]
    if not values or any(value is None for value in values):
        return ""
    middle, low, high = (factor * value for value in interval(values))
    text = f"{middle:,.{decimals}f}"
    return text if len(values) == 1 else f"{text} ({low:,.{decimals}f} to {high:,.{decimals}f})"


def write_page(out: Path) -> Path:
    """Write results.md and images/results/*.png from results/*.json. Returns the page."""
    rows = [json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))]
    parts = [INTRODUCTION]
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        mine = sorted((row for row in rows if row["scenario"] == scenario), key=lambda row: row["title"])
        parts.append(f"## {scenario}\n\n{_table(mine)}\n")
        if any(run["curve"] for row in mine for run in row["runs"]):
            picture = f"images/results/{scenario}.png"
            (out / picture).parent.mkdir(parents=True, exist_ok=True)
            files.write(out / picture, _curves(scenario, mine))
            parts.append(f"![Learning curves]({picture})\n")
        parts.append("\n".join(f"    {row['command']}" for row in mine) + "\n")
    page = out / "results.md"
    files.write(page, "\n".join(parts))
    return page


def _table(rows: list[dict[str, Any]]) -> str:
    shown = [column for column in COLUMNS if any(cell(row["runs"], *column[1:]) for row in rows)]
    lines = ["| | seeds | steps | minutes | " + " | ".join(column[0] for column in shown) + " |"]
    lines.append("|---" * (4 + len(shown)) + "|")
    for row in rows:
        runs = row["runs"]
        steps = np.mean([run["steps"] for run in runs])
        cells = [row["title"], str(len(runs)), f"{steps:,.0f}", f"{np.mean([run['seconds'] for run in runs]) / 60:.1f}"]
        cells += [cell(runs, *column[1:]) for column in shown]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _curves(scenario: str, rows: list[dict[str, Any]]) -> bytes:
    """Return against steps, a line a seed, a colour a row. A PNG."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for number, row in enumerate(row for row in rows if any(run["curve"] for run in row["runs"])):
        for k, run in enumerate(row["runs"]):
            steps, returns, _ = np.array(run["curve"]).T
            axes.plot(steps / 1e6, returns, color=f"C{number}", linewidth=1, label=row["title"] if k == 0 else None)
    for row in rows:
        if not any(run["curve"] for run in row["runs"]):
            axes.axhline(row["runs"][0]["figures"]["episode_return"], color="0.5", linewidth=0.8, linestyle=":")
            axes.annotate(
                row["title"], (1, row["runs"][0]["figures"]["episode_return"]), xycoords=("axes fraction", "data")
            )
    axes.set(xlabel="million policy steps", ylabel="return", title=scenario)
    axes.legend(fontsize="small", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
