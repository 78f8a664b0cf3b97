"""Studies of several seeds: the figures of those that are done are kept until all are, and the same command goes on."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from envs.errors import UserError
from envs.files import write
from envs.interruption import interruptible
from evaluation.probes.benchmark import Row

DONE = ".seeds"  # folder in --out of the seeds that are done
# Rows of one seed, given the seed and what is to be called with the units of progress that have passed.
Measure = Callable[[int, Callable[[float], None]], list[Row]]


def digest(about: dict[str, Any]) -> str:
    """16 hexadecimal digits that belong to these settings alone."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def rows(measure: Measure, about: dict[str, Any], seeds: int, units: float, out: Path) -> list[list[Row]]:
    """The rows of each seed, measured where they are not kept.

    Args:
        measure: what gives the rows of a seed.
        about: all that the rows depend on but the seed.
        seeds: how many; they count from 0.
        units: of progress that a seed takes.
        out: folder of the results; made if it is missing.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    found = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=seeds * units)
        for seed in range(seeds):
            progress.update(bar, description=f"seed {seed + 1} of {seeds}")
            path = out / DONE / f"{digest(about)}-{seed}.json"
            kept = _read(path)
            if kept is None:
                kept = measure(seed, lambda passed: progress.advance(bar, passed))
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, json.dumps(kept))
            progress.update(bar, completed=(seed + 1) * units)
            found.append(kept)
    return found


def forget(out: Path) -> None:
    """Remove what is kept of single seeds, once the results are written."""
    shutil.rmtree(out / DONE, ignore_errors=True)


def going_on(work: Callable[[], None]) -> None:
    """Do what can be gone on with: SIGTERM and Ctrl-C end it with one line and the exit code of the signal."""
    with interruptible() as interruption:
        try:
            work()
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with what is not done", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None


def check_out(out: Path) -> None:
    """Raises UserError where the results cannot go into such a folder."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")


def _read(path: Path) -> list[Row] | None:
    """The rows of a seed that is done, None where it is not."""
    try:
        return [Row(*row) for row in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None
