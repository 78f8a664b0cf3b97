"""What becomes of an encoder in another scenario: `python -m evaluation.transfer --encoder zoo/NAME --env merge`.

Compared by linear probes (docs/probes.md) on the same pictures of the other scenario: the encoder frozen as it is,
fine-tuned there by self-supervision with all weights or with low-rank adapters, one trained there from scratch, and
random weights. Writes transfer.json; the encoders stay in --out and are not trained again, and an interrupted study
goes on with the same command. docs/transfer.md has the protocol.
"""

import json
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from envs.errors import UserError, exit_on_user_error
from envs.files import write
from evaluation import kept_seeds, pretrained
from evaluation.probes import __main__ as probes
from evaluation.probes import benchmark, fits, report, summary
from evaluation.probes.benchmark import Row, Subject
from evaluation.probes.labels import LABELS
from evaluation.probes.scores import FIGURES, figures
from evaluation.statistics import CONFIDENCE
from perception import encoders, lora, objectives

FORMAT = 1
TRAINED = ("all", "lora", "scratch")  # by self-supervision, in the new scenario
WAYS = ("frozen", *TRAINED, "random")
GUESS = "constant"
TESTS = ("episodes", "maps")
PROBING = 3 * benchmark.RECORDING + len(WAYS)  # units of progress of a seed
MEAN = "mean"  # of all labels


@dataclass(frozen=True)
class Args:
    """Compare an encoder in another scenario frozen, fine-tuned, adapted, trained from scratch and random."""

    encoder: str
    """What goes to another scenario: an encoder folder, or zoo/NAME."""
    env: str
    """The other scenario."""
    objective: str | None = None
    """Self-supervised objective there; by default the encoder's own."""
    total_frames: int = 100_000
    """Camera images of each training there."""
    num_worlds: int = 256
    """Worlds of each training."""
    rank: int = 8
    """Of the adapters."""
    seeds: int = 3
    """How often all is done anew: trainings, random weights, pictures. Five or more for intervals that are worth
    reading."""
    worlds: int = 384
    """Worlds whose pictures the probes learn from."""
    out: Path | None = None
    """Directory of the results; runs/transfer/ENCODER-ENV by default. Earlier results there are replaced."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        args: the settings.
        subject: the encoder as it is, and where it is probed.
        about: what a reader of the results has to know of them.
        out: folder of the results.
    """

    args: Args
    subject: Subject
    about: dict[str, Any]
    out: Path

    def folder(self, way: str, seed: int) -> Path:
        """Of an encoder that is trained; other settings have other folders."""
        settings = {name: value for name, value in self.about.items() if name not in ("asked", "worlds")}
        return self.out / "encoders" / f"{way}-{seed}-{kept_seeds.digest(settings)}"

    def told(self, way: str, seed: int) -> list[str]:
        """Arguments of `train.perception` for a training."""
        about, architecture = self.about, self.subject.architecture
        wanted = {"env": about["scenario"], "objective": about["objective"], "rig": about["rig"], "seed": seed}
        wanted |= {"total-frames": about["total_frames"], "num-worlds": about["num_worlds"]}
        wanted |= {"device": self.args.device, "out": self.folder(way, seed)}
        if way == "scratch":
            wanted |= {"encoder": architecture["encoder"], "frames": about["frames"]}
        else:
            wanted |= {"init": self.args.encoder, "tune": way}
        if way == "lora":
            wanted |= {"rank": about["rank"]}
        told = [part for name, value in wanted.items() for part in (f"--{name}", str(value))]
        return told + ["--separate-cameras"] * (way == "scratch" and "cameras" in architecture)


def prepared(args: Args) -> Study:
    """The study that the settings ask for.

    Raises:
        UserError: bad input.
    """
    if min(args.total_frames, args.num_worlds, args.rank) < 1:
        raise UserError("--total-frames, --num-worlds and --rank must be at least 1")
    asked = probes.Args(args.encoder, args.env, seeds=args.seeds, worlds=args.worlds, device=args.device)
    subject, about = probes.prepared(asked)
    objective = args.objective or about["objective"]
    if objective is None:
        raise UserError(f"the card of '{args.encoder}' names no objective: give one with --objective")
    objectives.get(objective)
    lengths = {"total_frames": args.total_frames, "num_worlds": args.num_worlds, "rank": args.rank}
    out = args.out or Path("runs/transfer") / f"{Path(args.encoder).name}-{subject.scenario.name}"
    kept_seeds.check_out(out)
    return Study(args, subject, {"format": FORMAT, **about, "objective": objective, **lengths}, out)


# --- training ---------------------------------------------------------------------------------------------------------


def train(study: Study, way: str, seed: int) -> None:
    """Train an encoder, or go on with that, if it is not there. Raises UserError: the training failed."""
    pretrained.train(study.folder(way, seed), study.told(way, seed))


def learnt_numbers(subject: Subject, rank: int) -> dict[str, int]:
    """How many of the encoder's numbers learn in the new scenario, by way."""

    def count(encoder: encoders.Encoder) -> int:
        return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)

    whole = count(encoders.rebuild(subject.architecture))
    adapters = count(lora.adapt(encoders.rebuild(subject.architecture), rank))
    return {"frozen": 0, "all": whole, "lora": adapters, "scratch": whole, "random": 0}


# --- probing ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(study: Study, seed: int, advance: Callable[[float], None]) -> list[Row]:
    """The figures of one seed, of linear probes with all labels; `features` are a way, or "constant"."""
    subject = study.subject
    shape = (3 * subject.frames, subject.rig.height, subject.rig.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = encoders.rebuild(subject.architecture).to(subject.device).eval()
    networks = {"frozen": subject.encoder, "random": untrained}
    for way in TRAINED:
        networks[way] = encoders.load(study.folder(way, seed), subject.device, shape, subject.rig)
    pictures = benchmark.pictures(subject, seed, advance)
    train, tests = pictures.train, {test: pictures.tests[test] for test in TESTS if test in pictures.tests}
    guess = fits.constant(train.images, pictures.labels, train.worlds)
    rows = [
        Row(figure, test, GUESS, "", 1.0, value)
        for test, seen in tests.items()
        for figure, value in figures(guess(seen.images), seen.labels).items()
    ]
    for way in WAYS:
        network = networks[way]
        read = fits.linear(network(train.images), pictures.labels, train.worlds, seed)
        for test, seen in tests.items():
            found = figures(read(network(seen.images)), seen.labels)
            rows += [Row(figure, test, way, "linear", 1.0, value) for figure, value in found.items()]
        advance(1)
    return rows


def skills(rows: list[Row]) -> dict[tuple[str, str, str], float]:
    """Skills of one seed: 1 - error / error of the best guess in the same test, not below -1; of a label the mean over
    its figures, and as `MEAN` that over the labels. What the guess has right already has none.

    Returns:
        (test, way, label) -> skill.
    """
    values = {(row.test, row.features, row.figure): FIGURES[row.figure].error(row.value) for row in rows}
    parts: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for (test, way, figure), error in values.items():
        guess = values.get((test, GUESS, figure), 0.0)
        if way != GUESS and guess > 0:
            parts[test, way, FIGURES[figure].label].append(max(-1.0, 1.0 - error / guess))
    found = {place: statistics.fmean(several) for place, several in parts.items()}
    labels: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (test, way, _), skill in found.items():
        labels[test, way].append(skill)
    return found | {(*place, MEAN): statistics.fmean(several) for place, several in labels.items()}


def compared(seeds: list[list[Row]]) -> list[dict[str, Any]]:
    """Skills with their intervals over seeds, and how much they are above those of the frozen encoder, by seed.

    Returns:
        for each test, way and label "test", "way", "label", "skill" and "above_frozen"; both hold "value", "low",
        "high" and "seeds", see `summary.interval`.
    """
    each = [skills(rows) for rows in seeds]
    made = []
    for test in TESTS:
        for label in (*LABELS, MEAN):
            for way in WAYS:
                found = [one for one in each if (test, way, label) in one and (test, "frozen", label) in one]
                if found:
                    mine = [one[test, way, label] for one in found]
                    gained = [one[test, way, label] - one[test, "frozen", label] for one in found]
                    row = {"test": test, "way": way, "label": label}
                    made.append(row | {"skill": summary.interval(mine), "above_frozen": summary.interval(gained)})
    return made


# --- what is shown ----------------------------------------------------------------------------------------------------


def text(entry: dict[str, Any], sign: str = "") -> str:
    """A mean and its interval."""
    if entry["low"] is None:
        return f"{entry['value']:{sign}.3f}"
    return f"{entry['value']:{sign}.3f} ({entry['low']:{sign}.3f} to {entry['high']:{sign}.3f})"


def tables(found: list[dict[str, Any]], numbers: dict[str, int], title: str) -> list[Table]:
    """Mean skill of each way with what it learns, and on other episodes the skill of each label."""
    at = {(row["test"], row["way"], row["label"]): row for row in found}
    tests = [test for test in TESTS if (test, "frozen", MEAN) in at]
    columns = [part for test in tests for part in (f"skill, other {test}", "above frozen")]
    first = Table("way", "learnt numbers", *columns, box=box.SIMPLE, title=f"{title}: mean skill of linear probes")
    for way in WAYS:
        means = [at[test, way, MEAN] for test in tests]
        cells = [cell for mean in means for cell in (text(mean["skill"]), text(mean["above_frozen"], "+"))]
        first.add_row(way, f"{numbers[way]:,}", *cells)
    second = Table("label", *WAYS, box=box.SIMPLE, title="skill of each label on other episodes")
    for label in LABELS:
        if ("episodes", "frozen", label) in at:
            cells = [text(at["episodes", way, label]["skill"]) for way in WAYS]
            second.add_row(label.replace("_", " "), *cells)
    return [first, second]


def main() -> None:
    args = tyro.cli(Args)
    study = prepared(args)
    name = study.subject.scenario.name

    def work() -> None:
        note = Console(stderr=True)
        trainings = [(seed, way) for seed in range(args.seeds) for way in TRAINED]
        for k, (seed, way) in enumerate(trainings):
            note.print(f"training {k + 1} of {len(trainings)}: {way}, seed {seed}")
            train(study, way, seed)
        seeds = kept_seeds.rows(
            lambda seed, advance: measure(study, seed, advance), study.about, args.seeds, PROBING, study.out
        )
        found, numbers = compared(seeds), learnt_numbers(study.subject, args.rank)
        console = Console()
        for table in tables(found, numbers, f"{args.encoder} in {name}, {args.seeds} seed{'s' * (args.seeds > 1)}"):
            console.print(table)
        command = shlex.join(["python", "-m", "evaluation.transfer", *sys.argv[1:]])
        content = {"command": command, **study.about, "seeds": args.seeds, "confidence": CONFIDENCE}
        content |= {"learnt_numbers": numbers, "skills": found, "figures": report.records(summary.means(seeds))}
        write(study.out / "transfer.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        kept_seeds.forget(study.out)
        print(f"Results: {study.out / 'transfer.json'}")

    kept_seeds.going_on(work)


if __name__ == "__main__":
    exit_on_user_error(main)
