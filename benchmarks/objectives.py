"""Objectives against each other: each trained alike with several seeds, then probed on the same pictures.

    python -m benchmarks.objectives                              objectives over time and objectives of one moment
    python -m benchmarks.objectives --objectives atc mae --seeds 5

Every encoder is a run of `train.perception` in --runs; those that are there are not trained again. Linear probes read
their features, with all labels, of other episodes and other maps (docs/probes.md); "random" is the architecture
untrained. Skill is 1 - error / error of the best guess without a picture, mean over the labels.
"""

import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from envs import files, scenarios
from envs.errors import UserError, exit_on_user_error
from envs.sensors.rig import SURROUND
from evaluation import pretrained, transfer
from evaluation.kept_seeds import going_on
from evaluation.probes import benchmark, fits
from evaluation.probes.benchmark import Row
from evaluation.probes.labels import LABELS
from evaluation.probes.scores import figures
from evaluation.probes.summary import interval
from perception import encoders, objectives

TEMPORAL = ("atc", "latent_prediction", "vicreg_temporal")
STATIC = ("vicreg", "simclr", "mae")
RANDOM, GUESS = "random", transfer.GUESS
TESTS = ("episodes", "maps")
SHOWN = (
    "lead_presence AUROC", "lead_distance 10-20 m", "lead_speed MAE", "own_speed MAE", "lane_offset MAE",
    "heading_error MAE", "ttc_below_3s AUROC", "brake_needed AUROC", "signal macro-F1",
)  # fmt: skip
FRAMES = 2
# objective -> a figure of a seed, by seed
Found = dict[str, dict[tuple[str, str], dict[int, float]]]


@dataclass(frozen=True)
class Args:
    """Train encoders with several objectives and seeds, and compare what their features know."""

    objectives: tuple[str, ...] = (*TEMPORAL, *STATIC)
    """Objectives."""
    env: str = "highway"
    """Scenario to train and to probe in."""
    encoder: str = "small"
    """Architecture."""
    seeds: int = 3
    """Trainings of each, and sets of pictures."""
    total_frames: int = 150_000
    """Images of a training."""
    worlds: int = 384
    """Worlds whose pictures the probes learn from."""
    runs: Path = Path("runs/objectives")
    """Where the trained encoders go."""
    out: Path | None = None
    """JSON file to write."""


def trained(objective: str, seed: int, args: Args) -> Path:
    """The folder of an encoder, trained if it is not there.

    Raises:
        UserError: the training failed.
    """
    folder = args.runs / f"{args.env}-{args.encoder}-{objective}-{args.total_frames}-{seed}"
    wanted = {"objective": objective, "env": args.env, "encoder": args.encoder, "total-frames": args.total_frames}
    wanted |= {"frames": FRAMES, "seed": seed, "out": folder, "device": "cpu"}
    pretrained.train(folder, [part for name, value in wanted.items() for part in (f"--{name}", str(value))])
    return folder


@torch.no_grad()
def probed(encoder: encoders.Encoder | None, pictures: benchmark.Pictures, seed: int) -> dict[tuple[str, str], float]:
    """(test, figure) -> value, of an encoder's features; without one, of the best guess."""
    train, labels = pictures.train, pictures.labels
    fit = fits.constant if encoder is None else fits.linear
    read = fit(train.images if encoder is None else encoder(train.images), labels, train.worlds, seed)
    found = {}
    for test in TESTS:
        if test in pictures.tests:
            recording = pictures.tests[test]
            given = recording.images if encoder is None else encoder(recording.images)
            found |= {(test, name): value for name, value in figures(read(given), recording.labels).items()}
    return found


def measured(args: Args, console: Console) -> Found:
    """Every figure of every objective and seed."""
    found: Found = defaultdict(lambda: defaultdict(dict))
    shape = (3 * FRAMES, SURROUND.height, SURROUND.width)
    asked = tuple(name for name, kind in LABELS.items() if kind.kind != "map")
    for seed in range(args.seeds):
        folders = {objective: trained(objective, seed, args) for objective in args.objectives}
        torch.manual_seed(seed)
        networks: dict[str, Any] = {GUESS: None, RANDOM: encoders.build(args.encoder, *shape).requires_grad_(False)}
        networks |= {name: encoders.load(folder, "cpu", shape, SURROUND) for name, folder in folders.items()}
        scenario, some = scenarios.get(args.env), networks[RANDOM]
        subject = benchmark.Subject(some, {}, SURROUND, FRAMES, scenario, args.worlds, (), "cpu")
        pictures = benchmark.pictures(subject, seed)
        pictures = pictures._replace(labels={name: v for name, v in pictures.labels.items() if name in asked})
        for name, network in networks.items():
            console.print(f"seed {seed}: probing {name}")
            for place, value in probed(network, pictures, seed).items():
                found[name][place][seed] = value
    return found


def skills(found: Found, name: str, test: str) -> list[float]:
    """Of each seed, the mean skill over the labels, see `evaluation.transfer.skills`."""
    seeds = sorted({seed for values in found[name].values() for seed in values})
    rows = {
        seed: [
            Row(figure, at, who, "", 1.0, values[seed])
            for who in (name, GUESS)
            for (at, figure), values in found[who].items()
            if seed in values
        ]
        for seed in seeds
    }
    return [transfer.skills(rows[seed])[test, name, transfer.MEAN] for seed in seeds]


def text(values: list[float], digits: int = 3) -> str:
    """A mean and its interval."""
    mean = interval(values)
    if mean["low"] is None:
        return f"{mean['value']:.{digits}f}"
    return f"{mean['value']:.{digits}f} ({mean['low']:.{digits}f}-{mean['high']:.{digits}f})"


def tables(found: Found, args: Args) -> list[Table]:
    """Skill of each objective, figures that are asked for most, and objectives over time less those of one moment."""
    names = [*sorted(args.objectives, key=lambda name: -np.mean(skills(found, name, "episodes"))), RANDOM]
    tests = [test for test in TESTS if any(at == test for at, _ in found[RANDOM])]
    first = Table("objective", *(f"skill, {test}" for test in tests), box=box.SIMPLE, title="linear probes, mean skill")
    for name in names:
        first.add_row(name, *(text(skills(found, name, test)) for test in tests))
    shown = [figure for figure in SHOWN if ("episodes", figure) in found[RANDOM]]
    second = Table("figure", *names, GUESS, box=box.SIMPLE, title="on other episodes, mean over the seeds")
    for figure in shown:
        values = [statistics.fmean(found[name]["episodes", figure].values()) for name in (*names, GUESS)]
        second.add_row(figure, *(f"{value:.3f}" for value in values))
    made = [first, second]
    groups = [[name for name in args.objectives if name in group] for group in (TEMPORAL, STATIC)]
    if all(groups):
        third = Table("test", "over time less of one moment", box=box.SIMPLE, title="mean skill, paired by seed")
        for test in tests:
            over, moment = (np.mean([skills(found, name, test) for name in group], axis=0) for group in groups)
            third.add_row(test, text(list(over - moment)))
        made.append(third)
    return made


def main() -> None:
    args = tyro.cli(Args)
    for name in args.objectives:
        objectives.get(name)
    if min(args.seeds, args.total_frames) < 1:
        raise UserError("--seeds and --total-frames must be at least 1")
    console = Console()
    found = measured(args, console)
    for table in tables(found, args):
        console.print(table)
    console.print(machine.sentence())
    if args.out:
        rows = [
            {"objective": name, "test": test, "figure": figure, "seeds": values}
            for name, places in found.items()
            for (test, figure), values in places.items()
        ]
        files.write(args.out, json.dumps({"machine": machine.describe(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    exit_on_user_error(lambda: going_on(main))
