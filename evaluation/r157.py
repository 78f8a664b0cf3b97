"""What the driver models of UN R157 make of the cut-ins, cut-outs and braking leaders that they are judged by.

`python -m evaluation.r157 --model fsm --scenario cut-in-low --out table.csv` writes a row a case. What the columns
mean in each scenario is in docs/r157.md; the cases are in `evaluation.r157_grids`.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agents.r157 import MODELS, Driver, Scene
from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import write
from evaluation.r157_grids import FREQUENCY, GRIDS, KMH, LENGTH, WIDTH, Cases, Grid

COLUMNS = ("ego_kmh", "other_kmh", "gap_m", "lateral_ms", "crash", "min_distance_m", "min_ttc_s")
SUMMARY = ("scenario", "model", "cases", "crashes", "share")


@dataclass(frozen=True)
class Args:
    """Tell which crashes a good driver would avoid: the driver models of UN R157 over the published grids of cases."""

    model: str = "all"
    """Driver model: cc (competent and careful human), reg157, rss, fsm (fuzzy safety model), or all."""
    scenario: str = "all"
    """cut-in-low, cut-in-high, cut-out, car-following, or all."""
    out: Path = Path("runs/r157.csv")
    """Table to be written. With several models or scenarios, it has their names as first columns, and
    NAME-summary.csv beside it has the share of crashes of each."""


class Verdicts(NamedTuple):
    """What became of the cases. Every field has the shape (N,)."""

    crash: torch.Tensor
    """bool"""
    distance: torch.Tensor
    """Least distance between the boxes [m]; 0 in a crash."""
    ttc: torch.Tensor
    """Least time after which they would overlap, both speeds held [s]; 0 in a crash, infinite if never closing."""


class Run(NamedTuple):
    """One model's cases of one scenario."""

    scenario: str
    model: str
    cases: Cases
    verdicts: Verdicts


def simulate(driver: Driver, grid: Grid) -> tuple[Cases, Verdicts]:
    """Let a driver meet every case of a grid.

    A case is over at the crash, and where the driver takes a cut-in for harmless (`Driver.harmless`).

    Args:
        driver: the model.
        grid: one of `GRIDS`.
    """
    cases = grid.cases(driver)
    others = grid.others(cases, driver)
    speed = cases.ego_kmh / KMH
    place, acceleration = torch.zeros_like(speed), torch.zeros_like(speed)
    memory = driver.start(speed)
    crash = settled = torch.zeros_like(speed, dtype=torch.bool)
    distance = ttc = torch.full_like(speed, torch.inf)
    for along, across, other_speed, approach, half_length, counts in zip(*others, strict=True):
        gap = along - place - LENGTH / 2 - half_length  # in this order: fsm follows at its safe distance to the bit
        clearance, length = across.abs() - WIDTH, LENGTH / 2 + half_length
        scene = Scene(speed, acceleration, other_speed, gap, length, clearance, approach)
        live = counts & ~settled
        distance = torch.where(live, distance.minimum(_distance(scene)), distance)
        ttc = torch.where(live, ttc.minimum(time_to_collision(scene)), ttc)
        crash = crash | (live & _overlap(scene))
        if not grid.evident:
            settled = settled | (live & driver.harmless(scene))
        settled = settled | crash
        danger = live & (driver.danger_ahead(scene) if grid.evident else driver.danger(scene))
        wanted, memory = driver.react(scene, memory, 1 / FREQUENCY, danger)
        slower = (speed + wanted / FREQUENCY).clamp_min(0)
        acceleration, speed = (slower - speed) * FREQUENCY, slower
        place = place + speed / FREQUENCY
    return cases, Verdicts(crash, distance, ttc)


def time_to_collision(scene: Scene) -> torch.Tensor:
    """Time after which the boxes overlap both lengthwise and sideways if nobody changes speed [s]. Shape: (N,).

    It is the later of the two times; infinite where one of the distances does not shrink, or the ego has passed.
    """
    closing = scene.speed - scene.other_speed
    lengthwise = torch.where(closing > 0, scene.gap / closing, torch.inf)
    lengthwise = torch.where(scene.gap <= 0, 0.0, lengthwise)
    lengthwise = torch.where(scene.gap < -2 * scene.length, torch.inf, lengthwise)
    sideways = torch.where(scene.approach > 0, scene.clearance / scene.approach, torch.inf)
    sideways = torch.where(scene.clearance < 0, 0.0, sideways)
    return torch.maximum(lengthwise, sideways)


def _lengthwise(scene: Scene) -> torch.Tensor:
    """Distance between the boxes along the lane, whichever is in front; negative where they overlap [m]."""
    return (scene.gap + scene.length).abs() - scene.length


def _distance(scene: Scene) -> torch.Tensor:
    return torch.hypot(_lengthwise(scene).clamp_min(0), scene.clearance.clamp_min(0))


def _overlap(scene: Scene) -> torch.Tensor:
    return (scene.clearance < 0) & (_lengthwise(scene) < 0)


def main() -> None:
    args = tyro.cli(Args)
    models = _chosen("model", args.model, MODELS)
    scenarios = _chosen("scenario", args.scenario, GRIDS)
    if args.out.is_dir():
        raise UserError(f"--out must be a file, and {args.out} is a directory")
    pairs = [(scenario, model) for scenario in scenarios for model in models]
    runs = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("cases", total=len(pairs))
        for scenario, model in pairs:
            progress.update(bar, description=f"{scenario}, {model}")
            runs.append(Run(scenario, model, *simulate(MODELS[model], GRIDS[scenario])))
            progress.advance(bar)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write(args.out, table(runs, named=len(runs) > 1))
    if len(runs) > 1:
        write(args.out.with_name(f"{args.out.stem}-summary.csv"), _csv(SUMMARY, summary(runs)))
    Console().print(_shares(runs))
    print(f"Table: {args.out}")


def table(runs: list[Run], named: bool) -> str:
    """The cases as CSV, a row each, with `COLUMNS`.

    Args:
        runs: whose cases.
        named: with the columns "scenario" and "model" in front. Where there is car-following among the runs, the last
            column is "braking_g" in any case.
    """
    braking = any(run.scenario == "car-following" for run in runs)
    names = ("scenario", "model") if named else ()
    return _csv((*names, *COLUMNS, *(("braking_g",) if braking else ())), _rows(runs, named, braking))


def _rows(runs: list[Run], named: bool, braking: bool) -> Iterator[tuple[str, ...]]:
    for run in runs:
        names = (run.scenario, run.model) if named else ()
        inputs = zip(*(column.tolist() for column in run.cases), strict=True)
        found = zip(*(column.tolist() for column in run.verdicts), strict=True)
        for (*case, brakes), (crash, distance, ttc) in zip(inputs, found, strict=True):
            values = [f"{value:.7g}" for value in case]
            yield (
                *names,
                *values,
                str(int(crash)),
                f"{distance:.3f}",
                f"{ttc:.3f}",
                *([f"{brakes:.2f}"] if braking else []),
            )


def summary(runs: list[Run]) -> list[tuple[str, str, int, int, str]]:
    """Rows of `SUMMARY`, one a run, and with several scenarios one of all of them for each model."""
    counts = {(run.scenario, run.model): (len(run.verdicts.crash), int(run.verdicts.crash.sum())) for run in runs}
    models, scenarios = dict.fromkeys(run.model for run in runs), dict.fromkeys(run.scenario for run in runs)
    if len(scenarios) > 1:
        for model in models:
            cases, crashes = zip(*(counts[scenario, model] for scenario in scenarios), strict=True)
            counts["all", model] = sum(cases), sum(crashes)
    return [(*names, cases, crashes, f"{crashes / cases:.6f}") for names, (cases, crashes) in counts.items()]


def _shares(runs: list[Run]) -> Table:
    """The shares of crashes, a row a scenario, a column a model."""
    rows = summary(runs)
    models = list(dict.fromkeys(row[1] for row in rows))
    shown = Table(title="Crashes")
    for heading in ("scenario", "cases", *models):
        shown.add_column(heading, justify="left" if heading == "scenario" else "right")
    for scenario in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == scenario]
        shown.add_row(scenario, f"{own[0][2]:,}", *(f"{row[3] / row[2]:.2%}" for row in own))
    return shown


def _chosen(what: str, name: str, known: Iterable[str]) -> list[str]:
    if name == "all":
        return list(known)
    if name not in known:
        raise unknown(what, name, [*known, "all"])
    return [name]


def _csv(columns: Iterable[str], rows: Iterable[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    exit_on_user_error(main)
