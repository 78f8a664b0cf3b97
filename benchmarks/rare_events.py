"""Rates of rare failures: the estimates of `evaluation.rare` against failure regions of a known rate of 1e-4.

`python -m benchmarks.rare_events` searches each region once for every seed and prints how near the estimates are, how
often the intervals hold the truth, and how many episodes plain Monte Carlo takes to come as near. The last region is
that of a driver in the simulator who brakes late, in front of a standing car: it crashes if and only if the gap is
shorter than its reaction and braking distance, which is worked out here, frame by frame, from speed and deceleration.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from benchmarks import machine
from envs import files
from envs.errors import UserError, exit_on_user_error
from envs.scenarios import stage
from evaluation import rare
from evaluation.search import Space, scores_of, staged
from evaluation.suites.base import Family, Range, scene, standing

RATE = 1e-4
NEAR = 0.3  # relative error that counts as near
FIRST = 10_000  # seed; the constants of `evaluation.rare` were chosen on smaller ones
BALL = math.pi**3 / 6  # volume of a ball of radius 1 in 6 dimensions
QUANTILE = 3.719016485455709  # of the standard normal at 1 - RATE


@dataclass
class Args:
    seeds: int = 100
    """Searches of each region."""
    simulated_seeds: int = 10
    """Searches of the driver in the simulator."""
    budget: int = 4000
    """Episodes a search."""
    out: Path | None = None
    """JSON file to write."""


# --- regions in closed form -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Region:
    """A set of points of the cube whose volume is `RATE`: those with a score of at most 0."""

    title: str
    dimension: int
    score: Callable[[np.ndarray], np.ndarray]


def _half_space(u: np.ndarray) -> np.ndarray:
    z = torch.special.ndtri(torch.from_numpy(u.clip(1e-300, 1 - 1e-16))).numpy()
    return QUANTILE - z.sum(1) / math.sqrt(u.shape[1])


def _box(u: np.ndarray, middle: tuple[float, ...], side: float) -> np.ndarray:
    """Least when in the middle; 0 on the surface of a cube of that side."""
    return 2 * np.abs(u - np.array(middle)).max(1) - side


def _shell(u: np.ndarray, middle: float, inner: float, outer: float) -> np.ndarray:
    away = np.linalg.norm(u - middle, axis=1)
    return np.abs(away - (inner + outer) / 2) - (outer - inner) / 2


def _outer(inner: float, share: float) -> float:
    """The outer radius of a shell of which that share lies in the cube."""
    return (RATE / (BALL * share) + inner**6) ** (1 / 6)


REGIONS = (
    Region("corner, 2 dimensions", 2, lambda u: (1 - u).max(1) - RATE ** (1 / 2)),
    Region("corner, 4 dimensions", 4, lambda u: (1 - u).max(1) - RATE ** (1 / 4)),
    Region("half-space, sum of 3 below a bound", 3, lambda u: u.sum(1) - (6 * RATE) ** (1 / 3)),
    Region("half-space of normals, 10 dim.", 10, _half_space),
    Region(
        "two opposite corners",
        3,
        lambda u: np.minimum(u.max(1), (1 - u).max(1)) - (RATE / 2) ** (1 / 3),
    ),
    Region(
        "a corner and a box inside, 70 : 30",
        3,
        lambda u: np.minimum(u.max(1) - (0.7 * RATE) ** (1 / 3), _box(u, (0.8, 0.8, 0.3), (0.3 * RATE) ** (1 / 3))),
    ),
    Region("thin shell, 6 dimensions", 6, lambda u: _shell(u, 0.5, 0.2, _outer(0.2, 1))),
    Region("thin shell around a corner, 6 dim.", 6, lambda u: _shell(u, 0.0, 0.4, _outer(0.4, 1 / 64))),
)


# --- a driver in the simulator ----------------------------------------------------------------------------------------

DELAY = 5  # decisions before it brakes
STEP, FRAMES = 0.1, 2  # s, of a decision, and frames in it
SPEEDS, DECELERATIONS = (10.0, 30.0), (5.0, 8.0)  # m/s, m/s2
GAPS = 60.0  # m, between the shortest and the longest


class LateBraker:
    """Brakes after half a second, whatever it sees, as hard as its world's case says. See `agents.policies.Policy`."""

    name, env_options = "late braker", {"observation": "state"}

    def __init__(self, decelerations: list[float]):
        self._decelerations = torch.tensor(decelerations)
        self._decisions = torch.zeros(len(decelerations), dtype=torch.int64)

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Throttle and steering. Shape: (N, 2)."""
        speed = obs["ego"][:, 0].clamp(min=0)
        braking = torch.minimum(self._decelerations, speed / STEP) * (self._decisions >= DELAY)
        self._decisions += 1
        return torch.stack([-braking / stage.ACTIONS.acceleration_range[1], torch.zeros_like(braking)], 1)

    def reset(self, done: torch.Tensor | None) -> None:
        """It begins anew."""
        self._decisions[slice(None) if done is None else done] = 0


def stopping_distance(speed: np.ndarray, deceleration: np.ndarray) -> np.ndarray:
    """Of `LateBraker` in frames that move first and slow down then [m]."""
    way = DELAY * STEP * speed
    while (speed > 1e-12).any():
        braking = np.minimum(deceleration, speed / STEP)
        for _ in range(FRAMES):
            way = way + speed * STEP / FRAMES
            speed = speed - braking * STEP / FRAMES
    return way


def late_braking() -> Family:
    """Cases in front of a standing car, whose shortest gap is such that the driver crashes in a share `RATE`."""
    count = 1500
    middles = (np.arange(count) + 0.5) / count
    near = 0.2  # crashes need the fastest and weakest of them: the grid need not be fine elsewhere
    speed = SPEEDS[1] - near * (SPEEDS[1] - SPEEDS[0]) * middles[:, None]
    weak = DECELERATIONS[0] + near * (DECELERATIONS[1] - DECELERATIONS[0]) * middles
    way = stopping_distance(*np.broadcast_arrays(speed, weak))
    low, high = 0.0, float(way.max())
    for _ in range(60):
        gap = (low + high) / 2
        share = near**2 * float((way - gap).clip(min=0).mean()) / GAPS
        low, high = (gap, high) if share > RATE else (low, gap)
    shortest = low

    def build(id: str, parameters: dict[str, float]):
        other = standing(300.0 + 5.0 + parameters["gap"], 3.5)
        return scene(id, parameters, "road", (300.0, 3.5, 0.0), parameters["speed"], [other], duration=8.0)

    ranges = {
        "speed": Range(*SPEEDS, "m/s"),
        "gap": Range(shortest, shortest + GAPS, "m"),
        "deceleration": Range(*DECELERATIONS, "m/s2"),
    }
    return Family("late-braking", "A driver brakes late in front of a standing car", "closed form", ranges, build)


def simulated(family: Family) -> Callable[[np.ndarray], np.ndarray]:
    """The score of points of a family's cube for `LateBraker`, in the simulator."""
    space = Space(family)

    def load(cases: list[stage.Case]):
        return LateBraker([case.parameters["deceleration"] for case in cases]), stage.of(cases)

    def score(points: np.ndarray) -> np.ndarray:
        cases = [staged(family, f"{family.name}/0-{k:04d}", space.at(point)) for k, point in enumerate(points)]
        return scores_of(cases, load, "cpu", seed=0)

    return score


# --- command ----------------------------------------------------------------------------------------------------------


def measured(region: Region, seeds: int, budget: int, on_seed: Callable[[], None] = lambda: None) -> dict:
    """How near the estimates of a region's rate are, over seeds from `FIRST` on."""
    start, errors, held, effective = time.perf_counter(), [], [], []
    for seed in range(FIRST, FIRST + seeds):
        found = rare.search(region.score, region.dimension, budget=budget, seed=seed)
        errors.append(found.rate / RATE - 1)
        held.append(found.low <= RATE <= found.high)
        effective.append(found.effective)
        on_seed()
    off = np.abs(errors)
    return {
        "region": region.title,
        "seeds": seeds,
        "near": float((off <= NEAR).mean()),
        "median_error": float(np.median(off)),
        "worst_error": float(off.max()),
        "mean_estimate": 1 + float(np.mean(errors)),
        "covered": float(np.mean(held)),
        "effective": float(np.median(effective)),
        "seconds": time.perf_counter() - start,
    }


def naive_episodes() -> float:
    """Plain episodes whose rate is within `NEAR` of `RATE` with 95 %."""
    return (1.96 / NEAR) ** 2 * (1 - RATE) / RATE


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    if min(args.seeds, args.simulated_seeds) < 1 or args.budget < 10:
        raise UserError("--seeds and --simulated-seeds must be at least 1, --budget at least 10")
    family = late_braking()
    driver = Region("late driver in the simulator", 3, simulated(family))
    jobs = [(region, args.seeds) for region in REGIONS] + [(driver, args.simulated_seeds)]
    console, rows = Console(width=110), []
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task("searches", total=sum(seeds for _, seeds in jobs))
        for region, seeds in jobs:
            progress.update(bar, description=region.title)
            rows.append(measured(region, seeds, args.budget, lambda: progress.advance(bar)))
    table = Table(title=f"true rate {RATE:g}, {args.budget:,} episodes a search")
    headings = ("failure region", "seeds", "within 30 %", "median", "worst", "mean / truth", "interval holds")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right", no_wrap=True)
    for row in rows:
        shares = (f"{row[key]:.1%}" for key in ("near", "median_error", "worst_error"))
        table.add_row(row["region"], str(row["seeds"]), *shares, f"{row['mean_estimate']:.3f}", f"{row['covered']:.0%}")
    console.print(table)
    naive = naive_episodes()
    console.print(
        f"Plain episodes for 30 % at 95 %: {naive:,.0f}, {naive / args.budget:.0f} times as many "
        f"({machine.sentence()})",
        highlight=False,
        soft_wrap=True,
    )
    if args.out:
        result = {"rate": RATE, "budget": args.budget, "naive_episodes": naive, "rows": rows}
        result |= {"machine": machine.describe(), "arguments": sys.argv[1:]}
        files.write(args.out, json.dumps(result, indent=1))


if __name__ == "__main__":
    exit_on_user_error(main)
