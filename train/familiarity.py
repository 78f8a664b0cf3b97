"""Learn what is familiar to a frozen encoder: `python -m train.familiarity --encoder zoo/highway-small`.

Rolls familiar worlds, fits a subspace, a Gaussian and a few small predictors to what the encoder makes of them, and
calibrates their scores on other worlds: see perception.ood. Writes familiarity.safetensors beside the encoder, in a few
minutes on one core; nothing is written before the end.
"""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from agents import familiarity
from envs.errors import UserError, exit_on_user_error
from envs.interruption import interruptible
from envs.simulation import resolve_device
from perception.familiar import Drives, fitted
from perception.transitions import through


@dataclass(frozen=True)
class Args:
    """Learn what is familiar to a frozen encoder."""

    encoder: str = "zoo/highway-small"
    """Folder of an encoder, or of a policy that drives by a frozen one: zoo/NAME or a path."""
    env: str | None = None
    """Familiar scenario, or several with commas between them; by default what the encoder was trained on."""
    out: Path | None = None
    """File to write; by default familiarity.safetensors in the encoder's folder."""
    worlds: int = 128
    """Worlds to learn from; half as many to calibrate on."""
    steps: int = 80
    """Policy steps of each."""
    seed: int = 0
    """Of the worlds and the predictors."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def main(args: Args) -> None:
    """Fit and write. See the module."""
    if args.worlds < 16 or args.steps < 10 or args.seed < 0:
        raise UserError(
            "at least 16 worlds and 10 steps are needed, and a seed from 0 on; "
            f"not {args.worlds}, {args.steps} and {args.seed}"
        )
    folder, device = familiarity.folder_of(args.encoder), resolve_device(args.device)
    path = args.out or folder / familiarity.NAME
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise UserError(f"--out must be a .safetensors file in a directory that exists, not {path}")
    encoder, about = familiarity.frozen_encoder(folder, device)
    scenario = args.env or about["scenario"]
    if scenario is None:
        raise UserError(f"the card in {folder} does not say what the encoder was trained on: name it with --env")
    drives = Drives(scenario, about["rig"], about["frames"], args.worlds, args.steps, args.seed, str(device))
    console, start = Console(), time.monotonic()
    with interruptible() as interruption:
        try:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            with Progress(*columns, console=console) as bar:
                known, count = fitted(drives, {"encoder": through(encoder)}, stages(bar))["encoder"]
        except KeyboardInterrupt:
            print("interrupted; nothing was written", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    header = {
        "scenario": scenario,
        "rig": about["rig"],
        "frames": about["frames"],
        "worlds": args.worlds,
        "steps": args.steps,
        "seed": args.seed,
        "transitions": count,
        "seconds": round(time.monotonic() - start),
        "command": shlex.join(["python", "-m", "train.familiarity", *sys.argv[1:]]),
    }
    familiarity.write(path, known, encoder, header)
    console.print(f"{count:,} familiar transitions in {header['seconds']} s; written to {path}")


def stages(bar: Progress) -> Callable[[str, int], Callable[[], None]]:
    """A bar for each stage: its name and its steps -> what is called after each of them."""

    def begin(name: str, steps: int) -> Callable[[], None]:
        task = bar.add_task(name, total=steps)
        return lambda: bar.advance(task)

    return begin


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Args)))
