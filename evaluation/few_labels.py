"""How many labels an encoder saves: `python -m evaluation.few_labels --encoder zoo/NAME --env intersection-signals`.

A signal classifier and a segmentation head are learnt from 1, 3, 10, 30 and 100 % of the labels, from the encoder and
from random weights, each in three ways: the head alone, with low-rank adapters, with all weights. Writes
few_labels.json and few_labels.png. After an interruption the same command goes on with the seeds that are not done.
docs/transfer.md has the protocol.
"""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import replaced, write
from evaluation import kept_seeds, tuning
from evaluation.probes import __main__ as probes
from evaluation.probes import benchmark, fits, report, summary
from evaluation.probes.benchmark import Pictures, Row, Subject
from evaluation.probes.dense import most_frequent
from evaluation.statistics import CONFIDENCE
from perception import encoders

FORMAT = 1
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the labels
STARTS = ("encoder", "random")
TESTS = ("episodes", "maps")
RECORDING, LEARNING = 30.0, 3.0  # units of progress: of the pictures of a seed, of one task, share and start
COLOURS = {"encoder": "#2f5fa8", "random": "#c58a3a"}
STYLES = dict(zip(tuning.WAYS, ("-", "--", ":"), strict=True))


@dataclass(frozen=True)
class Args:
    """Compare ways to learn from few labels: a head alone, with low-rank adapters, with all weights."""

    encoder: str
    """What to go out from: an encoder folder, or zoo/NAME."""
    env: str
    """Scenario whose pictures are labelled."""
    tasks: tuple[str, ...] = ()
    """signal, segmentation, or both; by default those that the scenario has."""
    rank: int = 8
    """Of the adapters."""
    seeds: int = 3
    """How often all is done anew: worlds, labels, random weights, heads. Five or more for intervals that are worth
    reading."""
    worlds: int = 512
    """Worlds whose pictures are learnt from."""
    out: Path | None = None
    """Directory of the results; runs/few-labels/ENCODER-ENV by default. Earlier results there are replaced."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def drawn(pictures: tuning.Labelled, share: float, seed: int) -> Tensor:
    """Rows of some of the pictures, ascending: smaller shares are parts of larger ones. Never fewer than two."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).to(pictures.images.device)
    return order[: max(2, round(share * len(pictures)))].sort().values


def measure(
    subject: Subject, tasks: tuple[str, ...], rank: int, seed: int, advance: Callable[[float], None]
) -> list[Row]:
    """The figures of one seed: as `features` a start or "constant", as `probe` a way. See `Row`.

    Raises:
        UserError: the scenario lacks a task that is asked for.
    """
    found = benchmark.pictures(subject, seed, lambda units: advance(units * RECORDING / (3 * benchmark.RECORDING)))
    there = [name for name in tuning.TASKS if name in found.asked]
    for name in tasks:
        if name not in there:
            raise UserError(f"'{subject.scenario.name}' has no label '{name}' to learn (it has: {', '.join(there)})")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = encoders.rebuild(subject.architecture).to(subject.device).eval().requires_grad_(False)
    starts = dict(zip(STARTS, (subject.encoder, untrained), strict=True))
    chosen = tasks or there
    rows = []
    for name in chosen:
        kind = tuning.TASKS[name]
        pictures = kind.seen(found.train)
        tests = {test: kind.seen(found.tests[test]) for test in TESTS if test in found.tests}
        tests = {test: seen for test, seen in tests.items() if len(seen)}
        rows += _guessed(name, kind, found, tests)
        for start, encoder in starts.items():
            with torch.no_grad():
                parts = pictures.images.split(tuning.CHUNK)
                given = torch.cat([kind.given(encoder, part) for part in parts])
            for share in SHARES:
                some = drawn(pictures, share, seed)
                for way, net in tuning.learn(kind, encoder, pictures, given, some, rank, seed):
                    for test, seen in tests.items():
                        value = kind.score(net.read(seen.images), seen.target)
                        rows.append(Row(kind.FIGURE, test, start, way, share, float(value)))
                advance(LEARNING * len(tuning.TASKS) / len(chosen))
    return rows


def _guessed(name: str, kind: type[tuning.Head], found: Pictures, tests: dict[str, tuning.Labelled]) -> list[Row]:
    """The figures of the best guess without a picture, from all labels."""
    rows = []
    for test, seen in tests.items():
        if name == "segmentation":
            guess = most_frequent(found.train)[1].expand_as(seen.target)
        else:
            read = fits.constant(found.train.images, {name: found.labels[name]}, found.train.worlds)
            guess = read(seen.images)[name].argmax(1)
        rows.append(Row(kind.FIGURE, test, "constant", "", 1.0, float(kind.score(guess, seen.target))))
    return rows


def text(entry: dict) -> str:
    """A mean and its interval."""
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} ({entry['low']:.3f}-{entry['high']:.3f})"


def tables(found: summary.Means, title: str) -> list[Table]:
    """A table for each task and test: rows are starts and ways, columns shares of the labels."""
    made = []
    for figure, entries in found.items():
        for test in dict.fromkeys(where[0] for where in entries):
            guess = text(entries[test, "constant", "", 1.0])
            heading = f"{title}: {figure} on other {test} (best guess: {guess})"
            table = Table("from, learns", *(f"{share:.0%}" for share in SHARES), box=box.SIMPLE, title=heading)
            for start in STARTS:
                for way in tuning.WAYS:
                    cells = [text(entries[test, start, way, share]) for share in SHARES]
                    table.add_row(f"{start}, {way}", *cells)
            made.append(table)
    return made


def plot(found: summary.Means, path: Path, title: str) -> None:
    """Write a PNG: each figure on other episodes by share of the labels, with intervals over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sheet, panels = pyplot.subplots(1, len(found), figsize=(5.5 * len(found), 4.2), layout="constrained", squeeze=False)
    percent = [100 * share for share in SHARES]
    for panel, (figure, entries) in zip(panels[0], found.items(), strict=True):
        for start in STARTS:
            for way in tuning.WAYS:
                means = [entries["episodes", start, way, share] for share in SHARES]
                line = [mean["value"] for mean in means]
                panel.plot(percent, line, STYLES[way], color=COLOURS[start], marker="o", ms=3, label=f"{start}, {way}")
                if means[0]["low"] is not None:
                    ends = [[mean[end] for mean in means] for end in ("low", "high")]
                    panel.fill_between(percent, *ends, color=COLOURS[start], alpha=0.12, linewidth=0)
        guess = entries["episodes", "constant", "", 1.0]["value"]
        panel.axhline(guess, color="#9a9a9a", linewidth=1, label="best guess")
        panel.set_xscale("log")
        panel.set_xticks(percent, [f"{share:g}" for share in percent])
        panel.set_xlabel("labels [%]")
        panel.set_ylabel(figure)
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=8)
    sheet.suptitle(title, fontsize=10)
    sheet.savefig(path, dpi=110, format="png")
    pyplot.close(sheet)


def main() -> None:
    args = tyro.cli(Args)
    for name in args.tasks:
        if name not in tuning.TASKS:
            raise unknown("task", name, tuning.TASKS)
    if args.rank < 1:
        raise UserError(f"the rank of adapters must be at least 1, not {args.rank}")
    asked = probes.Args(args.encoder, args.env, seeds=args.seeds, worlds=args.worlds, device=args.device)
    subject, about = probes.prepared(asked)
    out = args.out or Path("runs/few-labels") / f"{Path(args.encoder).name}-{subject.scenario.name}"
    kept_seeds.check_out(out)
    about = {"format": FORMAT, **about, "tasks": list(args.tasks), "rank": args.rank, "shares": SHARES}
    units = RECORDING + LEARNING * len(STARTS) * len(SHARES) * len(tuning.TASKS)
    title = f"{args.encoder} in {subject.scenario.name}, {args.seeds} seed{'s' * (args.seeds > 1)}"

    def work() -> None:
        def of_seed(seed: int, advance: Callable[[float], None]) -> list[Row]:
            return measure(subject, args.tasks, args.rank, seed, advance)

        found = summary.means(kept_seeds.rows(of_seed, about, args.seeds, units, out))
        console = Console()
        for table in tables(found, title):
            console.print(table)
        with replaced(out / "few_labels.png") as beside:
            plot(found, beside, title)
        told = shlex.join(["python", "-m", "evaluation.few_labels", *sys.argv[1:]])
        content = {"command": told, **about, "seeds": args.seeds, "confidence": CONFIDENCE}
        content["figures"] = report.records(found)
        write(out / "few_labels.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        kept_seeds.forget(out)
        print(f"Results: {out / 'few_labels.json'}")

    kept_seeds.going_on(work)


if __name__ == "__main__":
    exit_on_user_error(main)
