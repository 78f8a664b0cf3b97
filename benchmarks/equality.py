"""Does our simulation drive as highway-env does? Both are stepped side by side from the same state.

    python -m benchmarks.equality --episodes 100

Every episode begins as a highway-env environment, whose exact state is imported in float64; from then on the two share
nothing but the actions. After each policy step all vehicles are compared.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import gymnasium
import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import envs
from envs import files
from envs.errors import UserError, exit_on_user_error

REWARD_TOLERANCE = 1e-9
CHUNK = 5  # episodes a process simulates before it reports


@dataclass(frozen=True)
class Comparison:
    """How far two simulations of the same episodes are apart.

    Attributes:
        episodes, crashes, steps: what was compared: episodes, how many ended in a crash, policy steps.
        position_error: largest difference of any vehicle's coordinate after any step [m].
        crash_mismatches: vehicles and steps at which the crash flags differ.
        reward_mismatches: steps whose rewards differ by more than `REWARD_TOLERANCE`.
        ending_mismatches: steps at which terminated or truncated differ.
    """

    episodes: int = 0
    crashes: int = 0
    steps: int = 0
    position_error: float = 0.0
    crash_mismatches: int = 0
    reward_mismatches: int = 0
    ending_mismatches: int = 0

    def __add__(self, other: "Comparison") -> "Comparison":
        total = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        # A NaN is the largest error of all.
        return Comparison(**total | {"position_error": float(np.maximum(self.position_error, other.position_error))})


def random_actions(rng: np.random.Generator) -> Iterator[int]:
    """Any meta-action: episodes with many manoeuvres, which mostly end in an early crash."""
    while True:
        yield int(rng.integers(5))


def cautious_actions(rng: np.random.Generator) -> Iterator[int]:
    """Mostly IDLE and SLOWER: episodes that last, in which the traffic does the manoeuvres."""
    while True:
        yield int(rng.choice(5, p=(0.03, 0.57, 0.03, 0.02, 0.35)))


def compare_step(env: gymnasium.Env, ours: envs.reference.ImportedWorld, action) -> tuple[Comparison, bool]:
    """One policy step in both simulations.

    Returns:
        The differences after it, and whether highway-env's episode has ended.
    """
    _, reward, terminated, truncated, _ = env.step(action)
    our_reward, our_terminated, our_truncated = ours.step(action)
    theirs, mine = env.unwrapped.road.vehicles, ours.vehicles()
    position = np.array([vehicle.position for vehicle in theirs])
    crashed = np.array([vehicle.crashed for vehicle in theirs])
    comparison = Comparison(
        steps=1,
        position_error=float(np.abs(position - mine["position"]).max()),
        crash_mismatches=int((crashed != mine["crashed"]).sum()),
        reward_mismatches=int(not abs(reward - our_reward) <= REWARD_TOLERANCE),
        ending_mismatches=int((terminated, truncated) != (our_terminated, our_truncated)),
    )
    return comparison, bool(terminated or truncated)


def compare_episode(env: gymnasium.Env, actions: Iterator, steps_after_end: int = 0) -> Comparison:
    """A whole episode of a highway-env environment that has just been reset, in both simulations.

    Args:
        env: the environment.
        actions: what the ego does, step by step.
        steps_after_end: how long both go on after the end, where crashed vehicles roll to a halt.
    """
    env = env.unwrapped
    ours = envs.reference.from_highway_env(env, dtype="float64")
    total, ended = Comparison(episodes=1), False
    while not ended:
        step, ended = compare_step(env, ours, next(actions))
        total += step
    total += Comparison(crashes=int(env.vehicle.crashed))
    for _ in range(steps_after_end):
        total += compare_step(env, ours, next(actions))[0]
    return total


def compare_episodes(env_id: str, seeds: range) -> Comparison:
    """Episodes of the seeds: even ones under random actions, odd ones under cautious actions."""
    import highway_env  # noqa: F401  registers its environments

    env = gymnasium.make(env_id).unwrapped
    total = Comparison()
    for seed in seeds:
        env.reset(seed=seed)
        choose = cautious_actions if seed % 2 else random_actions
        total += compare_episode(env, choose(np.random.default_rng(seed)), steps_after_end=3)
    env.close()
    return total


@dataclass(frozen=True)
class Args:
    """Compare our simulation with highway-env, whole episodes in float64."""

    episodes: int = 100
    """episodes of each environment, seeds 0, 1, ..."""
    processes: int = 2
    """processes that share the episodes"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """write the figures to this file as JSON"""


def compare_all(args: Args, console: Console) -> dict[str, Comparison]:
    """Every scenario with a highway-env original, a progress bar the while."""
    families: dict[str, list[str]] = {}
    for scenario in envs.scenarios.SCENARIOS.values():
        families.setdefault(scenario.family, []).append(scenario.upstream_id)
    totals = {env_id: Comparison() for ids in families.values() for env_id in ids}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bars = {env_id: progress.add_task(env_id, total=args.episodes) for env_id in totals}
        # Some of highway-env's environments change the classes of vehicles: families do not share processes.
        for ids in families.values():
            with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
                jobs = {}
                for env_id in ids:
                    for first in range(0, args.episodes, CHUNK):
                        seeds = range(first, min(first + CHUNK, args.episodes))
                        jobs[pool.submit(compare_episodes, env_id, seeds)] = env_id
                for job in as_completed(jobs):
                    totals[jobs[job]] += job.result()
                    progress.update(bars[jobs[job]], completed=totals[jobs[job]].episodes)
    return totals


def main() -> None:
    """The command."""
    args = tyro.cli(Args, description=__doc__)
    if args.episodes < 1 or args.processes < 1:
        raise UserError(f"--episodes and --processes must be at least 1, not {args.episodes} and {args.processes}")
    console = Console()
    totals = compare_all(args, console)
    table = Table(
        "environment",
        title=f"lanewise in float64 against highway-env {version('highway-env')}",
        caption="position: largest difference in metres; crashed, rewards, endings: how often they differ",
        box=box.SIMPLE_HEAD,
    )
    for column in ("episodes", "crashes", "steps", "position", "crashed", "rewards", "endings"):
        table.add_column(column, justify="right")
    for env_id, c in totals.items():
        mismatches = (c.crash_mismatches, c.reward_mismatches, c.ending_mismatches)
        counts = (c.episodes, c.crashes, c.steps)
        table.add_row(env_id, *map(str, counts), f"{c.position_error:.1e}", *map(str, mismatches))
    console.print(table)
    if args.out:
        result = {
            "highway-env": version("highway-env"),
            "dtype": "float64",
            "environments": {env_id: asdict(comparison) for env_id, comparison in totals.items()},
        }
        files.write(args.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    exit_on_user_error(main)
