"""Is the unfamiliar told from the familiar? `python -m evaluation.ood --encoder zoo/highway-small --familiar highway`.

AUROC of each score of `perception.ood`, frame by frame, between held-out familiar drives and drives of scenarios that
the encoder and what was learnt of its features never saw; and between clean and corrupted familiar drives. Intervals
are bootstrapped over worlds. Controls: features of a random encoder and plain statistics of the pixels, learnt from
the same drives; familiar drives at another rate, and not randomised. See docs/ood.md.

Writes ood.json and ood.png.
"""

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from agents import familiarity
from envs.errors import UserError, exit_on_user_error
from envs.files import replaced, write
from envs.interruption import interruptible
from envs.simulation import resolve_device
from evaluation import ood_drives, ood_report
from evaluation.ood_drives import OWN, Setting, corruptions, drive, familiar_rate, familiar_test, pixels
from evaluation.ood_report import CORRUPTED, Row
from evaluation.statistics import CONFIDENCE, bootstrap_mean
from evaluation.statistics.separation import separation
from perception import encoders, ood
from perception.familiar import Drives, fitted
from perception.ood import SCORES, Familiarity
from perception.probes import auroc
from perception.transitions import Look, Transitions, through

FORMAT = 1
TARGET = 0.95  # AUROC
STOPPED = (0.95, 0.99)  # calibrated scores beyond which familiar frames are counted


@dataclass(frozen=True)
class Args:
    """Measure whether scores of unfamiliarity tell the unfamiliar from the familiar."""

    encoder: str = "zoo/highway-small"
    """Folder of an encoder, or of a policy that drives by a frozen one: zoo/NAME or a path."""
    familiarity: Path | None = None
    """File of python -m train.familiarity; by default the one in the encoder's folder."""
    familiar: str | None = None
    """Familiar scenario, or several with commas between them; by default what the file was learnt from."""
    unfamiliar: str = "crossing,roadworks,racetrack,town,intersection-signals"
    """Scenarios of other families, with commas between them."""
    out: Path | None = None
    """Directory of the results; runs/ood/ENCODER by default. Earlier results there are replaced."""
    worlds: int = 48
    """Worlds of each test; twice as many familiar ones."""
    seconds: int = 40
    """Of each drive. A frame a second is scored."""
    seed: int = 0
    """Of the worlds and the random encoder."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def main(args: Args) -> None:
    """Measure, print and write. See the module."""
    folder, device = familiarity.folder_of(args.encoder), resolve_device(args.device)
    out = args.out or Path("runs/ood") / folder.name
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")
    if args.worlds < 8 or args.seconds < 10 or args.seed < 0:
        raise UserError(
            "at least 8 worlds and 10 seconds are needed, and a seed from 0 on; "
            f"not {args.worlds}, {args.seconds} and {args.seed}"
        )
    encoder, about = familiarity.frozen_encoder(folder, device)
    known, header = familiarity.read(args.familiarity or folder / familiarity.NAME, encoder, device)
    names = args.familiar or header["scenario"]
    setting = Setting(header["rig"], header["frames"], args.worlds, args.seconds, args.seed, str(device))
    tests = ood_drives.planned(names, args.unfamiliar, setting)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        untrained = encoders.rebuild(about["architecture"]).to(device).eval().requires_grad_(False)
    looks: dict[str, Look] = {"encoder": through(encoder), "random": through(untrained), "pixels": pixels}
    taken = (header[name] for name in ("scenario", "rig", "frames", "worlds", "steps", "seed"))
    learnt = Drives(*taken, str(device))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with interruptible() as interruption:
        try:
            with Progress(*columns, console=Console(stderr=True)) as bar:
                rows, shares = _measured(tests, names, looks, known, learnt, setting, bar)
        except KeyboardInterrupt:
            print("interrupted; nothing was written", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    console = Console()
    console.width = max(console.width, ood_report.WIDTH)
    for table in ood_report.tables(rows, names):
        console.print(table)
    lines = list(_sentences(rows, shares))
    print("\n".join(lines))
    out.mkdir(parents=True, exist_ok=True)
    with replaced(out / "ood.png") as beside:
        ood_report.plot(rows, beside, names, TARGET)
    content = {
        "format": FORMAT,
        "command": shlex.join(["python", "-m", "evaluation.ood", *sys.argv[1:]]),
        "encoder": args.encoder,
        "familiar": names,
        "familiarity": header,
        "worlds": args.worlds,
        "seconds": args.seconds,
        "seed": args.seed,
        "confidence": CONFIDENCE,
        "target": TARGET,
        "sentences": lines,
        "familiar_above": shares,
        "figures": [row._asdict() for row in rows],
    }
    write(out / "ood.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(f"Results: {out / 'ood.json'}")


def _measured(
    tests: list[ood_drives.Test],
    names: str,
    looks: dict[str, Look],
    known: Familiarity,
    learnt: Drives,
    setting: Setting,
    bar: Progress,
) -> tuple[list[Row], list[dict]]:
    """All figures, and the shares of familiar frames beyond each of STOPPED."""
    rate = familiar_rate(names)
    task = bar.add_task("", total=None)

    def begin(stage: str, steps: int):
        bar.reset(task, total=steps, description=stage)
        return lambda: bar.advance(task)

    def driven(test: ood_drives.Test, looks: dict[str, Look], number: int, many: Setting = setting):
        bar.reset(task, total=1.0, description=f"driving {test.name}")
        return drive(test, looks, many, number, rate, lambda share: bar.advance(task, share))

    controls = fitted(learnt, {name: look for name, look in looks.items() if name != "encoder"}, begin)
    familiar = {"encoder": known} | {name: found[0] for name, found in controls.items()}
    twice = Setting(setting.rig, setting.frames, 2 * setting.worlds, setting.seconds, setting.seed, setting.device)
    negatives = _scored(driven(familiar_test(names, setting), looks, 0, twice)[OWN], familiar)
    rows: list[Row] = []
    for number, test in enumerate(tests, start=2):
        for spacing, found in driven(test, looks, number).items():
            rows += _compared(test.name, test.kind, spacing, negatives, _scored(found, familiar))
    test = familiar_test(names, setting)
    spoilt = driven(test, corruptions(looks, setting), 1)[OWN]
    for key, steps in spoilt.items():
        name, kind, strength = key.split("|")
        rows += _compared(f"{kind} {strength}", CORRUPTED, OWN, negatives, _scored({name: steps}, familiar))
    return rows, list(_above(known, *negatives["encoder"]))


Scored = dict[str, tuple[dict[str, torch.Tensor], np.ndarray]]


def _scored(found: dict[str, Transitions], familiar: dict[str, Familiarity]) -> Scored:
    """{look: (scores, worlds)}."""
    return {name: (ood.scores(familiar[name], steps), steps.worlds.cpu().numpy()) for name, steps in found.items()}


def _compared(test: str, kind: str, spacing: str, negatives: Scored, positives: Scored) -> Iterator[Row]:
    for features, (scores, worlds) in positives.items():
        other, other_worlds = negatives[features]
        for name in SCORES:
            sides = [(other[name].cpu().numpy(), other_worlds), (scores[name].cpu().numpy(), worlds)]
            means = [_means(*side) for side in sides]
            drives = auroc(torch.cat(means), torch.arange(sum(map(len, means))) >= len(means[0]))
            names, counts = (test, kind, spacing, features, name), (len(means[1]), len(worlds))
            yield Row(*names, *separation(*sides[0], *sides[1]), drives, *counts)


def _means(scores: np.ndarray, worlds: np.ndarray) -> torch.Tensor:
    """The mean score of each world."""
    _, place = np.unique(worlds, return_inverse=True)
    return torch.from_numpy(np.bincount(place, scores) / np.bincount(place))


def _above(known: Familiarity, scores: dict[str, torch.Tensor], worlds: np.ndarray) -> Iterator[dict]:
    """The share of held-out familiar frames whose calibrated score is beyond each of STOPPED; intervals over worlds."""
    shown = ood.calibrated(known, scores[ood.COMBINED]).cpu().numpy()
    for limit in STOPPED:
        each = np.array([(shown[worlds == world] > limit).mean() for world in np.unique(worlds)])
        low, high = bootstrap_mean(each)
        yield {"limit": limit, "share": float(each.mean()), "low": low, "high": high}


def _sentences(rows: list[Row], shares: list[dict]) -> Iterator[str]:
    for row in ood_report.pick(rows, kind="unfamiliar", spacing=OWN, features="encoder", score=ood.COMBINED):
        met = "meets" if row.low >= TARGET else "does not meet" if row.high < TARGET else "may or may not meet"
        yield f"{row.test}: AUROC {ood_report.interval(row)} {met} {TARGET}"
    for share in shares:
        yield (
            f"of held-out familiar frames {100 * share['share']:.1f} % ({100 * share['low']:.1f} to "
            f"{100 * share['high']:.1f}) are shown above {share['limit']}, {100 * (1 - share['limit']):.0f} % should be"
        )


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Args)))
