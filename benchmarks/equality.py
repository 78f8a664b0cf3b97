"""Does our simulation drive as highway-env does? Both are stepped side by side from the same state.

    python -m benchmarks.equality --episodes 100

Every episode begins as a highway-env environment, whose exact state is imported in float64; from then on the two share
nothing but the actions. After each policy step all vehicles are compared. Where the environment itself draws random
numbers within its steps (the intersection's traffic), every step begins with the imported state.
"""

import json
import multiprocessing
import warnings
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
from envs.errors import UserError, exit_on_user_error, unknown

REWARD_TOLERANCE = 1e-7  # highway-env adds some rewards in float32
OBSERVATION_TOLERANCE = 1e-5  # observations are float32, some of them coordinates of hundreds of metres
# Below this speed, times the frame's duration, highway-env's steering loop is unstable and multiplies rounding errors
# from frame to frame: see docs/fidelity.md. 0.7 m/s at 15 Hz.
CRAWL = 10.5  # m/s2
CHUNK = 5  # episodes a process simulates before it reports
# Whatever ends or not: so many steps are compared at most, and so many after the end.
MAX_STEPS, STEPS_AFTER_END = 300, 3


@dataclass(frozen=True)
class Comparison:
    """How far two simulations of the same episodes are apart.

    Attributes:
        episodes, crashes, steps: what was compared: episodes, how many ended in a crash, policy steps.
        position_error: largest difference of any vehicle's coordinate after any step [m], up to the moment at which
            any vehicle first crawls.
        crawling_error: the same from that moment on.
        observation_error: largest difference of anything observed, up to that moment.
        crash_mismatches: vehicles and steps at which the crash flags differ.
        reward_mismatches: steps whose rewards differ by more than `REWARD_TOLERANCE`.
        ending_mismatches: steps at which terminated or truncated differ.
    """

    episodes: int = 0
    crashes: int = 0
    steps: int = 0
    position_error: float = 0.0
    crawling_error: float = 0.0
    observation_error: float = 0.0
    crash_mismatches: int = 0
    reward_mismatches: int = 0
    ending_mismatches: int = 0

    def __add__(self, other: "Comparison") -> "Comparison":
        # A NaN is the largest error of all.
        combine = {name: np.maximum if name.endswith("_error") else np.add for name in (f.name for f in fields(self))}
        totals = {name: f(getattr(self, name), getattr(other, name)).item() for name, f in combine.items()}
        return Comparison(**totals)


def random_actions(env: gymnasium.Env, seed: int) -> Iterator:
    """Any action: episodes with many manoeuvres, which mostly end in an early crash."""
    env.action_space.seed(seed)
    while True:
        yield env.action_space.sample()


def cautious_actions(env: gymnasium.Env, seed: int) -> Iterator:
    """Mostly IDLE and SLOWER, or little steering: episodes that last, in which the traffic does the manoeuvres."""
    rng = np.random.default_rng(seed)
    env.action_space.seed(seed)
    slower = {3: 0, 5: 4}
    while True:
        action = env.action_space.sample()
        if isinstance(env.action_space, gymnasium.spaces.Discrete):
            draw = rng.random()
            action = 1 if draw < 0.57 else slower[int(env.action_space.n)] if draw < 0.92 else action
        elif isinstance(env.action_space, gymnasium.spaces.Box):
            action = (0.1 * action).astype(np.float32)
        yield action


def observed(observation) -> dict[str, np.ndarray]:
    """highway-env's observation under the names that ours has."""
    if isinstance(observation, dict):
        return {name: np.asarray(values, dtype=float) for name, values in observation.items()}
    return {"state": np.asarray(observation, dtype=float)}


class Pair:
    """An episode in both simulators.

    Args:
        env: a highway-env environment that has just been reset.
        resync: whether the state is imported anew before every step, where the environment draws within its steps.
    """

    def __init__(self, env: gymnasium.Env, resync: bool = False):
        self.env, self.resync = env.unwrapped, resync
        self.ours = envs.reference.from_highway_env(self.env, dtype="float64")
        self.crawled = False
        # highway-env calls this after every frame but a step's last.
        self.env._automatic_rendering = self._watch

    def _watch(self) -> None:
        """Whether anybody crawls now."""
        slow = CRAWL / self.env.config["simulation_frequency"]
        self.crawled = self.crawled or any(abs(vehicle.speed) < slow for vehicle in self.env.road.vehicles)

    def step(self, action) -> tuple[Comparison, bool]:
        """One policy step.

        Returns:
            The differences after it, and whether highway-env's episode has ended.
        """
        if self.resync:
            self.ours = envs.reference.from_highway_env(self.env, dtype="float64")
            self.crawled = False
        # What the step removes or adds afterwards is not compared.
        vehicles = list(self.env.road.vehicles)
        observation, reward, terminated, truncated, _ = self.env.step(action)
        our_reward, our_terminated, our_truncated = self.ours.step(action)
        mine = self.ours.vehicles()
        away = float(np.abs(np.array([vehicle.position for vehicle in vehicles]) - mine["position"]).max())
        self._watch()
        crashed = np.array([vehicle.crashed for vehicle in vehicles])
        comparison = Comparison(
            steps=1,
            position_error=0.0 if self.crawled else away,
            crawling_error=away if self.crawled else 0.0,
            observation_error=0.0 if self.crawled else self._observation_error(observation),
            crash_mismatches=int((crashed != mine["crashed"]).sum()),
            reward_mismatches=int(not abs(reward - our_reward) <= REWARD_TOLERANCE * max(1.0, abs(reward))),
            ending_mismatches=int((bool(terminated), bool(truncated)) != (our_terminated, our_truncated)),
        )
        return comparison, bool(terminated or truncated)

    def _observation_error(self, observation) -> float:
        theirs, ours = observed(observation), self.ours.observation()
        return max(float(np.abs(theirs[name] - ours[name]).max()) for name in theirs)


def compare_episode(
    env: gymnasium.Env, actions: Iterator, steps_after_end: int = STEPS_AFTER_END, resync: bool = False
) -> Comparison:
    """A whole episode of a highway-env environment that has just been reset, in both simulations.

    Args:
        env: the environment.
        actions: what the agents do, step by step.
        steps_after_end: how long both go on after the end, where crashed vehicles roll to a halt.
        resync: see `Pair`.
    """
    pair = Pair(env, resync)
    total, ended, steps = Comparison(episodes=1), False, 0
    while not ended and steps < MAX_STEPS:
        step, ended = pair.step(next(actions))
        total += step
        steps += 1
    total += Comparison(crashes=int(any(vehicle.crashed for vehicle in pair.env.controlled_vehicles)))
    for _ in range(steps_after_end):
        total += pair.step(next(actions))[0]
    return total


def compare_episodes(env_id: str, seeds: range) -> Comparison:
    """Episodes of the seeds: even ones under random actions, odd ones under cautious actions."""
    import highway_env  # noqa: F401  registers its environments

    warnings.filterwarnings("ignore", message=".*is out of date")
    # Noise that a step draws cannot be shared; without it lane keeping observes the state itself.
    silent = {"state_noise": 0.0, "derivative_noise": 0.0}
    # ParkingEnv's variants take no configuration.
    options = {"config": silent} if env_id.startswith("lane-keeping") else {}
    env = gymnasium.make(env_id, **options).unwrapped
    total = Comparison()
    for seed in seeds:
        env.reset(seed=seed)
        choose = cautious_actions if seed % 2 else random_actions
        total += compare_episode(env, choose(env, seed), resync=env_id.startswith("intersection"))
    env.close()
    return total


def environments() -> dict[str, list[str]]:
    """Every environment of highway-env, by family."""
    import highway_env  # noqa: F401

    ids = [name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("highway_env.")]
    families: dict[str, list[str]] = {}
    for env_id in sorted(ids):
        # The wrapped form of the multi-agent environment steps the same environment.
        if env_id != "intersection-multi-agent-v1":
            families.setdefault(env_id.split("-")[0], []).append(env_id)
    return families


@dataclass(frozen=True)
class Args:
    """Compare our simulation with highway-env, whole episodes in float64."""

    episodes: int = 100
    """episodes of each environment, seeds 0, 1, ..."""
    only: tuple[str, ...] = ()
    """families to compare, by the first word of their ids; all of them by default"""
    processes: int = 2
    """processes that share the episodes"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """write the figures to this file as JSON"""


def compare_all(args: Args, console: Console) -> dict[str, Comparison]:
    """Every scenario with a highway-env original, a progress bar the while."""
    families = {name: ids for name, ids in environments().items() if not args.only or name in args.only}
    if not families:
        raise unknown("family", args.only[0], environments())
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
        caption="position: largest difference in metres; crawling: the same once a vehicle has been slower than 0.7 "
        "m/s (at 15 Hz); observed: largest difference; crashed, rewards, endings: how often they differ",
        box=box.SIMPLE_HEAD,
    )
    names = ("episodes", "crashes", "steps", "position", "crawling", "observed", "crashed", "rewards", "endings")
    for column in names:
        table.add_column(column, justify="right")
    for env_id, c in totals.items():
        mismatches = (c.crash_mismatches, c.reward_mismatches, c.ending_mismatches)
        counts = (c.episodes, c.crashes, c.steps)
        errors = (c.position_error, c.crawling_error, c.observation_error)
        table.add_row(env_id, *map(str, counts), *(f"{error:.1e}" for error in errors), *map(str, mismatches))
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
