"""What pre-training's time goes into, and what encoders cost: `python -m benchmarks.perception`.

The first table is of one iteration of `train.perception`: milliseconds a batch of each phase, by the clock and of the
calling thread's own processor time, the least of several; and how long that makes of 500,000 images. Phases share the
threads, so a phase whose processor time is near its time by the clock leaves the other cores idle or busy alike.

The second is of encoders, on a CPU, in microseconds of processor time an image: with and without gradients, in bfloat16
and in float32.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.machine import sentence
from envs.errors import exit_on_user_error
from perception import encoders
from perception.augment import Augmentation
from perception.data import DrivingData
from perception.pretraining import Pretraining, Settings
from train.perception import keep_freed_memory

IMAGES = 500_000
BATCH = 32  # images of the encoders' table


@dataclass(frozen=True)
class Args:
    """Time a training's phases, and encoders."""

    env: str = "highway"
    """Scenario."""
    objective: str = "atc"
    """Self-supervised objective."""
    encoder: str = "small"
    """Architecture."""
    num_worlds: int = 256
    """Worlds that drive at once."""
    threads: int = 0
    """Of torch; 0 leaves it to torch."""
    repeats: int = 20
    """Of every measurement, of which the least counts."""


def least(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds by the clock and of this thread's processor time, the least of each."""
    run()
    clock, own = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.thread_time()
        run()
        clock.append(time.perf_counter() - start[0])
        own.append(time.thread_time() - start[1])
    return min(clock), min(own)


def phases(args: Args) -> Table:
    """Of one iteration."""
    keep_freed_memory()
    data = DrivingData(args.env, args.num_worlds, "cpu")
    encoder = encoders.build(args.encoder, *data.image_shape)
    training = Pretraining(encoder, args.objective, data, Augmentation(), Settings())
    settings = training.settings
    drive = data.collect(settings.steps)
    count = settings.passes * -(-args.num_worlds // settings.worlds_per_batch)  # batches of an iteration
    stream = iter(())

    def batch():
        nonlocal stream
        following = next(stream, None)
        if following is None:
            stream = training.batches(drive)
            following = next(stream)
        return following

    held = batch()
    measured = {
        "simulate and film": (lambda: data.collect(settings.steps, drive), max(2, args.repeats // 8), count),
        "gather and augment": (batch, args.repeats, 1),
        "learn": (lambda: training.learn(held), args.repeats, 1),
        "of that, encode forwards": (lambda: encoder(held.plain.flatten(0, 1)), args.repeats, 1),
    }
    title = f"{args.objective}, {args.encoder}, {args.env}, {torch.get_num_threads()} threads, {sentence()}"
    table = Table("phase", "ms a batch", "of this thread's CPU time", title=title, title_justify="left")
    total = 0.0
    for name, (run, repeats, batches) in measured.items():
        clock, own = least(run, repeats)
        total += clock / batches if not name.startswith("of that") else 0
        table.add_row(name, f"{1e3 * clock / batches:.1f}", f"{1e3 * own / batches:.1f}")
    minutes = total * count * IMAGES / (settings.steps * args.num_worlds) / 60
    table.add_section()
    table.add_row("all", f"{1e3 * total:.1f}", f"{minutes:.1f} min for {IMAGES:,} images")
    data.close()
    return table


def costs(repeats: int) -> Table:
    """Of every encoder."""
    columns = [f"{what}, {type}" for what in ("features", "features and gradients") for type in ("bfloat16", "float32")]
    table = Table("encoder", *columns, title="CPU microseconds an image, 64x96 of 6 channels", title_justify="left")
    images = torch.randint(0, 256, (BATCH, 6, 64, 96), dtype=torch.uint8)
    for name in encoders.ENCODERS:
        encoder = encoders.build(name, *images.shape[1:])

        def forwards(encoder=encoder):
            with torch.no_grad():
                encoder(images)

        def both(encoder=encoder):
            encoder(images).square().sum().backward()
            encoder.zero_grad()

        cells = []
        for run in (forwards, both):
            cells.append(least(run, repeats)[1])
            with encoders.single_precision():
                cells.append(least(run, repeats)[1])
        table.add_row(name, *(f"{1e6 * seconds / BATCH:.0f}" for seconds in cells))
    return table


def main() -> None:
    """The command."""
    args = tyro.cli(Args, description=__doc__)
    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console()
    console.print(phases(args))
    torch.set_num_threads(1)
    console.print(costs(max(3, args.repeats // 4)))


if __name__ == "__main__":
    exit_on_user_error(main)
