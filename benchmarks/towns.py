"""Generated towns: how long one takes to make, and whether a batch of worlds drives in 256 of them.

    python -m benchmarks.towns

That every destination can be reached from every entry is `pytest -m slow tests/envs/test_town.py`, over 10,000 seeds.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import envs
from benchmarks import machine
from envs.errors import UserError, exit_on_user_error
from envs.roads import town


@dataclass
class Args:
    towns: int = 1000
    """Towns to be generated, of the seeds from 0 on."""
    maps: int = 256
    """Different towns in one batch."""
    num_worlds: int = 1024
    """Worlds in that batch."""
    steps: int = 50
    """Policy steps that the batch is driven for."""


def milliseconds(towns: int) -> np.ndarray:
    """What the generation of each town took. Shape: (towns,)."""
    took = []
    for seed in track(range(towns), "generating", transient=True):
        start = time.perf_counter()
        town.generate(seed)
        took.append(1e3 * (time.perf_counter() - start))
    return np.array(took)


def main() -> None:
    args = tyro.cli(Args, description=__doc__)
    if min(args.towns, args.maps, args.num_worlds, args.steps) < 1:
        raise UserError("--towns, --maps, --num-worlds and --steps must be at least 1")
    took = milliseconds(args.towns)

    start = time.perf_counter()
    worlds = envs.make_vec(
        replace(envs.scenarios.get("town"), map_count=args.maps), args.num_worlds, device="cpu", observation="state"
    )
    worlds.reset(seed=0)
    loaded = time.perf_counter() - start
    driven_in = worlds.state.map.unique().numel()
    actions = torch.randint(0, 5, (args.steps, args.num_worlds), generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    for action in actions:
        worlds.step(action)
    speed = args.steps * args.num_worlds / (time.perf_counter() - start)

    table = Table("figure", "value", box=box.SIMPLE)
    for name, value in zip(("median", "99 %", "worst"), np.percentile(took, (50, 99, 100)), strict=True):
        table.add_row(f"generation of a town, {name} of {args.towns}", f"{value:.1f} ms")
    table.add_row(f"{args.maps} towns made, loaded and entered by {args.num_worlds} worlds", f"{loaded:.1f} s")
    table.add_row("different towns in that batch", str(driven_in))
    table.add_row("policy steps a second in it, state", f"{speed:,.0f}")
    Console().print(table, machine.sentence())


if __name__ == "__main__":
    exit_on_user_error(main)
