"""Memory of a batch of worlds: what it takes beyond an interpreter with torch loaded, and whether it grows."""

import gc
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

import envs
from benchmarks import machine
from envs import files
from envs.errors import UserError, exit_on_user_error

MIB = 2**20


@dataclass
class Args:
    env: str = "highway"
    """Scenario."""
    num_worlds: int = 1024
    """Worlds simulated at once."""
    steps: int = 1_000_000
    """World steps over which growth is measured."""
    observation: str = "camera"
    """camera or state."""
    out: Path | None = None
    """JSON file to write."""


def resident() -> int:
    """Resident memory of this process in bytes, from Linux's /proc.

    Raises:
        UserError: the system has no /proc.
    """
    gc.collect()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise UserError("memory is read from /proc/self/status, which only Linux has") from None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    console = Console()
    torch.ones(1024, 1024) @ torch.ones(1024, 1024)  # torch's own thread pools and libraries are loaded
    before = resident()
    env = envs.make_vec(args.env, args.num_worlds, device="cpu", observation=args.observation)
    env.reset(seed=0)
    actions = torch.randint(0, 5, (64, args.num_worlds))
    for k in range(64):
        env.step(actions[k])
    made = resident()
    start = time.perf_counter()
    rounds = max(1, args.steps // args.num_worlds)
    with Progress(*Progress.get_default_columns(), TimeRemainingColumn(), console=console) as progress:
        for k in progress.track(range(rounds), description="stepping"):
            env.step(actions[k % 64])
    after = resident()
    result = {
        "environment": args.env,
        "observation": args.observation,
        "num_worlds": args.num_worlds,
        "beyond_torch_mib": (made - before) / MIB,
        "steps": rounds * args.num_worlds,
        "growth_mib": (after - made) / MIB,
        "seconds": time.perf_counter() - start,
        "machine": machine.describe(),
        "arguments": sys.argv[1:],
    }
    console.print(
        f"{args.num_worlds} worlds of {args.env} with {args.observation}: {result['beyond_torch_mib']:.0f} MiB beyond "
        f"torch; {result['growth_mib']:+.1f} MiB over {result['steps']:,} steps ({machine.sentence()})",
        highlight=False,
    )
    if args.out:
        files.write(args.out, json.dumps(result, indent=1))


if __name__ == "__main__":
    exit_on_user_error(main)
