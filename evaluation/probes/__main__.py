"""Say what the features of a frozen encoder know about the road: `python -m evaluation.probes --encoder zoo/NAME`.

Writes probes.json (every figure of every seed), probes.png, and pictures.png, a sheet of pictures with their labels.
Seeds that are done are kept until all are, so that the same command goes on after an interruption.
"""

import hashlib
import json
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.policies import ZOO
from envs import scenarios
from envs.errors import UserError, exit_on_user_error, unknown
from envs.files import replaced, write
from envs.interruption import interruptible
from envs.sensors import rig
from envs.simulation import resolve_device
from evaluation.probes import benchmark, report, sheet, summary
from evaluation.probes.benchmark import Row, Subject
from evaluation.probes.labels import LABELS
from evaluation.probes.looks import HELD_OUT
from evaluation.probes.recording import FEWEST
from evaluation.statistics import CONFIDENCE
from perception import encoders
from perception.mixture import SEPARATOR

FORMAT = 1
DONE = ".seeds"  # folder in --out of the seeds that are done, while others are not
SHEET = "pictures.png"


@dataclass(frozen=True)
class Args:
    """Measure what the features of a frozen encoder know about the road."""

    encoder: str
    """What to probe: an encoder folder, or zoo/NAME."""
    env: str | None = None
    """Scenario to look at; by default the one that the encoder was trained on, of several the first."""
    labels: tuple[str, ...] = ()
    """Labels to probe, see docs/probes.md; by default all that the scenario has."""
    out: Path | None = None
    """Directory of the results; runs/probes/ENCODER-ENV by default. Earlier results there are replaced."""
    seeds: int = 3
    """How often all is done anew: worlds, random and supervised encoders, probes. Five or more for intervals that are
    worth reading."""
    worlds: int = 512
    """Worlds whose pictures are trained on."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""


def main() -> None:
    args = tyro.cli(Args)
    subject, about = prepared(args)
    out = args.out or Path("runs/probes") / f"{Path(args.encoder).name}-{subject.scenario.name}"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")
    with interruptible() as interruption:
        try:
            found = run(subject, about, args.seeds, out)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with the seeds that are not done", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
    console = Console()
    title = f"{args.encoder} in {subject.scenario.name}, {args.seeds} seed{'s' * (args.seeds > 1)}"
    verdicts = summary.judged(found)
    for table in report.tables(found, verdicts, title):
        console.print(table)
    lines = summary.sentences(verdicts)
    print("\n".join(lines))
    with replaced(out / "probes.png") as beside:
        report.plot(found, beside, title)
    content = {
        "format": FORMAT,
        "command": shlex.join(["python", "-m", "evaluation.probes", *sys.argv[1:]]),
        **about,
        "seeds": args.seeds,
        "confidence": CONFIDENCE,
        "labels": list(LABELS),
        "held_out_looks": HELD_OUT,
        "verdicts": verdicts,
        "sentences": lines,
        "figures": report.records(found),
    }
    write(out / "probes.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    shutil.rmtree(out / DONE, ignore_errors=True)
    print(f"Results: {out / 'probes.json'}")


def prepared(args: Args) -> tuple[Subject, dict]:
    """What is to be probed, and what a reader of the results has to know of it.

    Raises:
        UserError: bad input.
    """
    for name in args.labels:
        if name not in LABELS:
            raise unknown("label", name, LABELS)
    if args.seeds < 1 or args.worlds < 4 * FEWEST:
        raise UserError(f"probes need a seed or more and at least {4 * FEWEST} worlds, not {args.seeds}, {args.worlds}")
    folder = Path(args.encoder)
    if args.encoder.startswith("zoo/") and not folder.exists():
        folder = ZOO / args.encoder.removeprefix("zoo/")
    if not folder.is_dir():
        shipped = sorted(f"zoo/{path.parent.name}" for path in ZOO.glob(f"*/{encoders.CARD}"))
        raise unknown("encoder", args.encoder, [*shipped, "the path of an encoder folder"])
    card = encoders.read_card(folder)
    name = args.env or card.get("scenario", "").split(SEPARATOR)[0]
    if not name:
        raise UserError(f"the card in {folder} does not say which scenario the encoder is for: name it with --env")
    scenario = scenarios.get(name)
    mounted = rig.get((card.get("rig") or {}).get("name", "surround"))
    frames = int(card.get("frames", card["in_channels"] // 3))
    device = resolve_device(args.device)
    encoder = encoders.load(folder, device, (3 * frames, mounted.height, mounted.width), mounted)
    about = {
        "encoder": args.encoder,
        "architecture": card["encoder"],
        "objective": card.get("objective"),
        "trained_on": card.get("scenario"),
        "sha256": card["sha256"],
        "scenario": scenario.name,
        "rig": mounted.name,
        "frames": frames,
        "asked": list(args.labels),
        "worlds": args.worlds,
    }
    made = Subject(
        encoder, encoders.architecture(card), mounted, frames, scenario, args.worlds, args.labels, str(device)
    )
    return made, about


def run(subject: Subject, about: dict, seeds: int, out: Path) -> summary.Means:
    """All seeds, those that are done already read back."""
    key = hashlib.sha256(json.dumps([FORMAT, about]).encode()).hexdigest()[:16]
    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    found: list[list[Row]] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=seeds * benchmark.TOTAL)
        for seed in range(seeds):
            progress.update(bar, description=f"seed {seed + 1} of {seeds}")
            path = out / DONE / f"{key}-{seed}.json"
            rows = _done(path)
            if rows is None:
                pictures, rows = benchmark.run(subject, seed, lambda units: progress.advance(bar, units))
                path.parent.mkdir(parents=True, exist_ok=True)
                if seed == 0:
                    with replaced(out / SHEET) as beside:
                        sheet.draw(pictures.tests["episodes"], beside, f"{subject.scenario.name}: labels")
                write(path, json.dumps(rows))
                del pictures
            progress.update(bar, completed=(seed + 1) * benchmark.TOTAL)
            found.append(rows)
    return summary.means(found)


def _done(path: Path) -> list[Row] | None:
    """The figures of a seed that is done, None where it is not."""
    try:
        return [Row(*row) for row in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None


if __name__ == "__main__":
    exit_on_user_error(main)
