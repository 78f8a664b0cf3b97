"""How fast trajectories are measured: `python -m benchmarks.metrics`.

Synthetic traffic on four parallel lanes, recorded like an evaluation's blocks: vehicles at constant speed, of which
some swing between two lanes. A step is one frame of one world with all its vehicles. What several metrics need (who may
concern the ego, its leader, its place on its lane) is worked out once a block and has rows of its own.
"""

import time
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.machine import sentence
from envs.roads.parallel import ParallelRoad
from envs.state import IDM
from evaluation.lanes import Lanes
from evaluation.metrics import METRICS
from evaluation.trajectory import Trajectory

LANES, WIDTH = 4, 4.0
DT = 1 / 15  # s
SHARED = (
    "driving", "finder", "concerning", "nearness", "leader", "meeting", "on_lane", "outside", "against", "travelled",
)  # fmt: skip


@dataclass(frozen=True)
class Args:
    """Measure the speed of every metric on synthetic trajectories."""

    frames: int = 1000
    """Of an episode."""
    worlds: int = 1000
    """In all."""
    block: int = 50
    """Worlds that are measured together, as an evaluation does it."""
    vehicles: int = 50
    """Of a world, the ego among them."""
    threads: int = 1
    """Of torch."""


def synthetic(frames: int, worlds: int, vehicles: int, generator: torch.Generator) -> Trajectory:
    """Traffic with 25 m a vehicle in each of four lanes; every fourth vehicle swings about its lane by half of it."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    time = DT * torch.arange(frames)[:, None, None]
    speed = 20 + 10 * draw(worlds, vehicles)
    start = 25.0 / LANES * (torch.arange(vehicles) - 0.2 * vehicles) + 3 * draw(worlds, vehicles)
    lane = torch.arange(vehicles) % LANES
    swings = (draw(worlds, vehicles) < 0.25) * 0.5 * WIDTH
    rate = 2 * torch.pi / 12.0  # rad/s
    phase = rate * time + 6.28 * draw(worlds, vehicles)
    x = start + speed * time
    y = WIDTH * lane + swings * phase.sin()
    heading = torch.atan(swings * rate * phase.cos() / speed)
    one = torch.ones_like(x)
    nearest = (y / WIDTH).round().clamp(0, LANES - 1).int()
    return Trajectory(
        x=x,
        y=y,
        heading=heading,
        speed=speed.expand_as(x).contiguous(),
        acceleration=0 * one,
        lane=nearest,
        target_lane=nearest,
        crashed=torch.zeros_like(x, dtype=torch.bool),
        kind=torch.full_like(x, IDM, dtype=torch.int8),
        length=5 * one,
        width=2 * one,
        height=one,
        form=torch.zeros_like(x, dtype=torch.int8),
        frames=torch.full((worlds,), frames),
        actions=torch.zeros(frames, worlds, dtype=torch.int64),
        rewards=torch.zeros(frames, worlds),
        steps=torch.full((worlds,), frames),
        dt=DT,
        frames_per_step=1,
        lanes=Lanes([ParallelRoad(LANES, lane_width=WIDTH)]),
    )


def measure(args: Args) -> tuple[dict[str, float], int]:
    """Seconds that each thing took over all blocks, and the steps they had."""
    generator = torch.Generator().manual_seed(0)
    spent: dict[str, float] = {}
    steps = 0
    for first in range(0, args.worlds, args.block):
        trajectory = synthetic(args.frames, min(args.block, args.worlds - first), args.vehicles, generator)
        steps += trajectory.driving.numel()
        for name in (*SHARED, *METRICS):
            begin = time.perf_counter()
            if name in METRICS:
                METRICS[name].compute(trajectory)
            else:
                getattr(trajectory, name)
            label = name if name in METRICS else f"({name})"
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - begin
    return spent, steps


def main() -> None:
    args = tyro.cli(Args)
    torch.set_num_threads(args.threads)
    spent, steps = measure(args)
    title = f"{steps:,} steps of {args.vehicles} vehicles, {args.threads} thread(s), {sentence()}"
    table = Table(title=title, title_justify="left")
    table.add_column("in brackets: shared by several")
    table.add_column("s / million steps", justify="right")
    table.add_column("steps / s", justify="right")
    for name, seconds in [*spent.items(), ("all", sum(spent.values()))]:
        table.add_row(name, f"{1e6 * seconds / steps:.3f}", f"{steps / max(seconds, 1e-9):,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
