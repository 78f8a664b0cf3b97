"""Steps a second: ours against highway-env and EnvPool, in turn, in one run.

Machines are shared and noisy, so contestants take turns for several rounds and the medians are compared; a ratio is
the median of the rounds' ratios. EnvPool wants its own environment: name its interpreter by `--envpool-python`.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import torch
import tyro
from rich.console import Console
from rich.table import Table

import envs
from benchmarks import machine
from envs import files, scenarios
from envs.errors import UserError, exit_on_user_error
from envs.simulation import resolve_device

ENVPOOL_IDS = {
    "highway": "Highway-v0",
    "highway-fast": "HighwayFast-v0",
    "merge": "Merge-v0",
    "roundabout": "Roundabout-v0",
    "intersection": "Intersection-v0",
    "intersection-continuous": "Intersection-v1",
    "exit": "Exit-v0",
    "racetrack": "Racetrack-v0",
    "racetrack-large": "RacetrackLarge-v0",
    "racetrack-oval": "RacetrackOval-v0",
    "two-way": "TwoWay-v0",
    "u-turn": "UTurn-v0",
    "parking": "Parking-v0",
    "parking-action-repeat": "ParkingActionRepeat-v0",
    "parking-parked": "ParkingParked-v0",
    "lane-keeping": "LaneKeeping-v0",
}
# EnvPool's own process: 64 environments on two threads is what its authors' figures and ours use.
ENVPOOL_LOOP = """
import sys, time, envpool, numpy as np
pool = envpool.make_gymnasium(sys.argv[1], num_envs=64, num_threads=int(sys.argv[2]), seed=0)
pool.reset()
rng = np.random.default_rng(0)
space = pool.action_space
if hasattr(space, "n"):
    actions = rng.integers(0, space.n, (64, 64)).astype(np.int32)
else:
    actions = rng.uniform(-1.0, 1.0, (64, 64, *space.shape)).astype(np.float32)
for line in sys.stdin:
    seconds, steps = float(line), 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        pool.step(actions[steps // 64 % 64])
        steps += 64
    print(steps / (time.perf_counter() - start), flush=True)
"""


@dataclass
class Args:
    scenarios: tuple[str, ...] = ("highway", "highway-fast")
    """Scenarios to measure; "all" for every one."""
    device: str = "auto"
    """Where ours runs: auto, cpu or cuda."""
    num_worlds: int = 1024
    """Worlds simulated at once."""
    seconds: float = 4.0
    """Time of one contestant's turn."""
    rounds: int = 5
    """Turns each contestant takes."""
    envpool_python: str | None = None
    """Interpreter of an environment that holds envpool; without it EnvPool is left out."""
    cameras: bool = True
    """Measure the camera too."""
    out: Path | None = None
    """JSON file to write."""


def rate(step: Callable[[], None], worlds: int, seconds: float, device: torch.device) -> float:
    """World steps a second of a callable that steps all worlds once."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count * worlds / (time.perf_counter() - start)


def batched(scenario: str, args: Args, device: torch.device, **options) -> Callable[[float], float]:
    """Ours through `envs.make_vec`, with random actions."""
    env = envs.make_vec(scenario, args.num_worlds, device=device, **options)
    env.reset(seed=0)
    agents = () if env.scenario.agents == 1 else (env.scenario.agents,)
    if env.action_names:
        actions = torch.randint(0, len(env.action_names), (64, args.num_worlds, *agents), device=device)
    else:
        actions = 2 * torch.rand((64, args.num_worlds, *agents, env.scenario.actions.size), device=device) - 1
    turn = iter(range(2**62))
    return lambda seconds: rate(lambda: env.step(actions[next(turn) % 64]), args.num_worlds, seconds, device)


def filming(scenario: str, args: Args, rig: str) -> Callable[[float], float]:
    """The camera alone, on one thread: frames a second and core."""
    env = envs.make_vec(scenario, 128, device="cpu", rig=rig)
    env.reset(seed=0)
    shape = env.single_action_space.shape
    still = torch.zeros((128, *shape)) if not env.action_names else torch.ones((128, *shape), dtype=torch.int64)
    for _ in range(5):
        env.step(still)
    return lambda seconds: rate(lambda: env.sim.film_on_one_thread(), 128, seconds, torch.device("cpu"))


def one_world(scenario: str) -> Callable[[float], float]:
    """Ours through `gymnasium.make`, one world with the state observation."""
    return _gymnasium_loop(gymnasium.make(f"lanewise/{scenario}-v0", observation="state"))


def highway_env(scenario: str) -> Callable[[float], float]:
    """highway-env in this process."""
    import highway_env  # noqa: F401  registers its environments

    return _gymnasium_loop(gymnasium.make(scenarios.get(scenario).upstream_id))


def _gymnasium_loop(env: gymnasium.Env) -> Callable[[float], float]:
    env.reset(seed=0)
    env.action_space.seed(0)

    def step() -> None:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()

    return lambda seconds: rate(step, 1, seconds, torch.device("cpu"))


def envpool(scenario: str, args: Args) -> Callable[[float], float]:
    """EnvPool in its own interpreter, kept alive between turns."""
    command = [args.envpool_python, "-c", ENVPOOL_LOOP, ENVPOOL_IDS[scenario], str(machine.describe()["cores"])]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise UserError(f"cannot run --envpool-python {args.envpool_python}: {error.strerror}") from None

    def turn(seconds: float) -> float:
        print(seconds, file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            raise UserError(f"{args.envpool_python} could not run EnvPool; is envpool installed there?")
        return float(answer)

    return turn


def measure(scenario: str, args: Args, device: torch.device, console: Console) -> dict[str, list[float]]:
    """Every contestant's rates, a number a round."""
    contestants: dict[str, Callable[[float], float]] = {}
    if scenarios.get(scenario).upstream_id:
        contestants["highway-env, 1 process"] = highway_env(scenario)
    if args.envpool_python and scenario in ENVPOOL_IDS:
        contestants["EnvPool, 64 environments"] = envpool(scenario, args)
    contestants[f"ours, state, {args.num_worlds} worlds"] = batched(scenario, args, device, observation="state")
    contestants["ours, state, 1 world, gymnasium.make"] = one_world(scenario)
    rigs = ("surround", "front") if args.cameras else ()
    for rig in rigs:
        contestants[f"ours, camera '{rig}', {args.num_worlds} worlds"] = batched(scenario, args, device, rig=rig)
    if device.type == "cpu":
        for rig in rigs:
            contestants[f"camera '{rig}' alone, frames/s of one core"] = filming(scenario, args, rig)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(args.rounds):
        for name, contestant in contestants.items():
            console.print(f"{scenario}: round {turn + 1}/{args.rounds}, {name}", end="\r", highlight=False)
            rates[name].append(contestant(args.seconds))
    return rates


def report(scenario: str, rates: dict[str, list[float]], console: Console) -> list[dict]:
    """Print a table; return its rows."""
    table = Table(title=scenario)
    for column in ("contestant", "steps/s", "lowest", "highest", "x highway-env", "x EnvPool"):
        table.add_column(column, justify="left" if column == "contestant" else "right")
    rivals = [name for name in rates if name.startswith(("highway-env", "EnvPool"))]
    rows = []
    for name, values in rates.items():
        row = {"scenario": scenario, "contestant": name, "rounds": values}
        row["steps_per_second"] = statistics.median(values)
        for rival in rivals:
            ratios = [a / b for a, b in zip(values, rates[rival], strict=True)]
            row[f"ratio to {rival.split(',')[0]}"] = statistics.median(ratios)
        rows.append(row)
        ratio = [f"{row[key]:,.1f}" if key in row else "" for key in ("ratio to highway-env", "ratio to EnvPool")]
        table.add_row(name, f"{row['steps_per_second']:,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}", *ratio)
    console.print(table)
    return rows


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    console = Console()
    if args.scenarios == ("all",):
        args.scenarios = tuple(scenarios.SCENARIOS)
    for scenario in args.scenarios:
        scenarios.get(scenario)
    device = resolve_device(args.device)
    if args.envpool_python is None:
        print("EnvPool is left out: name its interpreter by --envpool-python", file=sys.stderr)
    rows = []
    for scenario in args.scenarios:
        rows += report(scenario, measure(scenario, args, device, console), console)
    console.print(machine.sentence(), highlight=False)
    if args.out:
        result = {"machine": machine.describe(), "arguments": sys.argv[1:], "rows": rows}
        files.write(args.out, json.dumps(result, indent=1))


if __name__ == "__main__":
    exit_on_user_error(main)
