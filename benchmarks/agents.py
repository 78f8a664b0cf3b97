"""Returns after training: our agents against stable-baselines3's, in turn, with the same settings and seeds.

    python -m benchmarks.agents --algorithm dqn --env CartPole-v1 --seeds 5
    python -m benchmarks.agents --algorithm ppo --env highway-fast

Any environment of Gymnasium with discrete actions, stepped by stable-baselines3's own vector environment, so that only
the agents differ; or a scenario of lanewise, observed as its state and stepped as one batch. stable-baselines3 has no
PQN: ours is put beside its PPO.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import stable_baselines3
import torch
import tyro
from gymnasium import spaces
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

import envs
from agents.dqn import DQN
from agents.ppo import PPO
from agents.pqn import PQN
from benchmarks import machine
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from envs.sb3 import SB3VecEnv

# A rate that falls to 0, and a target network that stands still for longer than usual on CartPole: without either, what
# a run ends with is an accident of its last steps, ours as stable-baselines3's.
DQN_SETTINGS: dict[str, Any] = {
    "learning_rate": lambda remaining: 1e-3 * remaining,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "batch_size": 64,
    "train_freq": 32,
    "gradient_steps": 64,
    "target_update_interval": 512,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
PPO_SETTINGS: dict[str, Any] = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gae_lambda": 0.8, "gamma": 0.98}
PQN_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 64,
    "n_epochs": 8,
    "gamma": 0.98,
    "q_lambda": 0.9,
    "learning_rate": lambda remaining: 2e-3 * remaining,
    "exploration_fraction": 0.3,
}
# The additions to the original algorithm that stable-baselines3 does not have, left out.
PLAIN = {"double": False, "duelling": False, "n_steps": 1}

Contestants = dict[str, tuple[type[BaseAlgorithm], dict[str, Any]]]
ALGORITHMS: dict[str, Contestants] = {
    "dqn": {
        "ours, as stable-baselines3's": (DQN, DQN_SETTINGS | PLAIN),
        "ours, double, duelling, 3 steps": (DQN, DQN_SETTINGS),
        "stable-baselines3": (stable_baselines3.DQN, DQN_SETTINGS),
    },
    "ppo": {
        "ours": (PPO, PPO_SETTINGS | {"learning_rate": 1e-3}),
        "stable-baselines3": (stable_baselines3.PPO, PPO_SETTINGS | {"learning_rate": 1e-3}),
    },
    "pqn": {
        "ours": (PQN, PQN_SETTINGS),
        "stable-baselines3's PPO": (stable_baselines3.PPO, PPO_SETTINGS | {"learning_rate": 1e-3}),
    },
}


@dataclass
class Args:
    algorithm: str = "dqn"
    """dqn, pqn or ppo."""
    env: str = "CartPole-v1"
    """Environment of Gymnasium, or scenario."""
    seeds: int = 5
    """Runs of each contestant."""
    total_steps: int = 50_000
    """Steps of a run."""
    num_envs: int = 8
    """Environments at once."""
    episodes: int = 50
    """Episodes in which what was learnt is tried, without exploration."""
    device: str = "cpu"
    """Where the agents learn."""
    out: Path | None = None
    """JSON file to write."""


def check(args: Args) -> None:
    """Raise UserError for the first impossible setting."""
    if args.algorithm not in ALGORITHMS:
        raise unknown("algorithm", args.algorithm, ALGORITHMS)
    for name in ("seeds", "total_steps", "num_envs", "episodes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    if args.env in envs.list_scenarios():
        return
    try:
        space = gymnasium.make(args.env).action_space
    except gymnasium.error.Error as error:
        raise UserError(f"no environment '{args.env}' in Gymnasium ({str(error).splitlines()[0]})") from None
    if not isinstance(space, spaces.Discrete):
        raise UserError(f"'{args.env}' has continuous actions; choose one with discrete actions, as CartPole-v1")


def worlds(args: Args, seed: int) -> VecEnv:
    """The environments to learn or to be tried in."""
    if args.env in envs.list_scenarios():
        batch = envs.make_vec(args.env, args.num_envs, device=args.device, observation="state", seed=seed)
        return VecMonitor(SB3VecEnv(batch))
    return make_vec_env(args.env, args.num_envs, seed)


def once(kind: type[BaseAlgorithm], settings: dict[str, Any], args: Args, seed: int) -> dict[str, float]:
    """Train with one seed: mean return afterwards, and steps a second while learning."""
    settings = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    learning = worlds(args, seed)
    network = "MultiInputPolicy" if isinstance(learning.observation_space, spaces.Dict) else "MlpPolicy"
    model = kind(network, learning, seed=seed, device=args.device, **settings)
    start = time.perf_counter()
    model.learn(args.total_steps)
    seconds = time.perf_counter() - start
    tried = worlds(args, 1_000_000 + seed)
    mean, _ = evaluate_policy(model, tried, n_eval_episodes=args.episodes)
    for used in (learning, tried):
        used.close()
    return {"return": float(mean), "steps_per_second": model.num_timesteps / seconds}


def measure(args: Args, told: Callable[[str], None] = lambda line: None) -> dict[str, list[dict[str, float]]]:
    """The runs of every contestant, who take turns seed by seed."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ALGORITHMS[args.algorithm]}
    for seed in range(args.seeds):
        for name, (kind, settings) in ALGORITHMS[args.algorithm].items():
            runs[name].append(once(kind, settings, args, seed))
            told(f"seed {seed}: {name}: {runs[name][-1]['return']:.1f}")
    return runs


def main() -> None:
    args = tyro.cli(Args)
    check(args)
    torch.set_num_threads(1)  # more gain nothing on networks this small, and fight over busy cores
    console = Console()
    console.print(machine.sentence())
    runs = measure(args, console.print)
    title = f"{args.algorithm} on {args.env}: return after {args.total_steps:,} steps, {args.seeds} seeds"
    table = Table("contestant", "mean", "lowest", "highest", "steps/s", title=title)
    for name, done in runs.items():
        returns = [run["return"] for run in done]
        speed = statistics.median(run["steps_per_second"] for run in done)
        numbers = (statistics.mean(returns), min(returns), max(returns))
        table.add_row(name, *(f"{number:.1f}" for number in numbers), f"{speed:,.0f}")
    console.print(table)
    if args.out:
        report = {"machine": machine.describe(), "settings": vars(args) | {"out": str(args.out)}, "runs": runs}
        files.write(args.out, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    exit_on_user_error(main)
