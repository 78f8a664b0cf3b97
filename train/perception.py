"""Train an encoder by self-supervision, on worlds rolled as it goes.

    python -m train.perception --objective atc --env highway --out runs/my-encoder    # an encoder folder, with its card
    python -m train.perception --resume runs/my-encoder                               # go on after an interruption

The folder: encoder.safetensors and encoder.json (written at the end, with the probes' figures), config.json,
TensorBoard files, and while the training is not done checkpoint.safetensors, written once a minute and at SIGTERM or
Ctrl-C.
"""

import ctypes
import dataclasses
import json
import platform
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from agents import checkpoint
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from envs.sensors import rig
from perception import encoders, objectives, probes
from perception.augment import Augmentation
from perception.data import DrivingData
from perception.pretraining import Pretraining, Settings

CHECKPOINT_EVERY = 60.0  # seconds
PROBED = (128, 80)  # worlds and policy steps of each half of the probes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
HELD_OUT = 1_000_003  # added to the seed for the worlds of the probes' two halves


@dataclass(frozen=True)
class Args:
    """Train an encoder by self-supervision."""

    objective: str = "atc"
    """Self-supervised objective (docs/perception.md): atc, latent_prediction, vicreg, vicreg_temporal, lejepa, simclr,
    moco, moco_v3, byol, simsiam, barlow_twins, mae, beta_vae, denoising or rotation."""
    env: str = "highway"
    """Scenario to film."""
    encoder: str = "small"
    """Architecture."""
    total_frames: int = 500_000
    """Camera images to collect; each is learnt from twice."""
    minutes: float | None = None
    """Train for this long instead of for total_frames; then no two runs are equal."""
    num_worlds: int = 256
    """Worlds that drive at once."""
    frames: int = 2
    """Camera frames stacked in one observation, one policy step apart."""
    rig: str = "surround"
    """Camera rig."""
    seed: int = 0
    """Of the worlds, the weights and the augmentation."""
    device: str = "auto"
    """"cpu", "cuda" or "auto"."""
    out: Path | None = None
    """Folder to write; by default runs/ENCODER-ENV-OBJECTIVE-SEED."""
    resume: Path | None = None
    """Folder of an interrupted training to go on with; its own settings hold, all others are ignored."""


class Run:
    """One training, from its settings to the written encoder."""

    def __init__(self, args: Args, folder: Path):
        self.args, self.folder = args, folder
        self.console = Console()
        self.data = worlds(args, args.num_worlds, args.seed)
        shape = self.data.image_shape
        torch.manual_seed(args.seed)
        self.random = (
            encoders.build(args.encoder, *shape).to(self.data.device).requires_grad_(False)
        )  # the probes' floor
        torch.manual_seed(args.seed)
        encoder = encoders.build(args.encoder, *shape).to(self.data.device)
        augmentation = Augmentation(self.data.device, seed=args.seed)
        self.pretraining = Pretraining(encoder, args.objective, self.data, augmentation, Settings(), args.seed)
        self.seconds = 0.0
        self.interrupted: int | None = None

    def progress(self) -> float:
        """Share of the training that is done."""
        if self.args.minutes is not None:
            return self.seconds / (60 * self.args.minutes)
        return self.pretraining.frames / self.args.total_frames

    def train(self) -> None:
        """Iterate until done or interrupted, with a checkpoint now and then."""
        writer = SummaryWriter(self.folder)
        saved = time.monotonic()
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            bars.TextColumn("{task.fields[rate]:,.0f} images/s  loss {task.fields[loss]:.3f}"),
            bars.TimeRemainingColumn(),
        )
        with bars.Progress(*columns, console=self.console) as bar:
            task = bar.add_task("training", total=1.0, rate=0.0, loss=float("nan"), completed=min(self.progress(), 1.0))
            while self.progress() < 1 and self.interrupted is None:
                start, frames = time.monotonic(), self.pretraining.frames
                figures = self.pretraining.iterate(self.progress())
                self.seconds += time.monotonic() - start
                figures["images_per_second"] = (self.pretraining.frames - frames) / (time.monotonic() - start)
                for name, value in figures.items():
                    writer.add_scalar(f"perception/{name}", value, self.pretraining.frames)
                bar.update(
                    task, completed=min(self.progress(), 1.0), rate=figures["images_per_second"], loss=figures["loss"]
                )
                if time.monotonic() - saved > CHECKPOINT_EVERY:
                    self.save()
                    saved = time.monotonic()
        writer.close()

    def save(self) -> None:
        """Write the checkpoint."""
        checkpoint.write(self.folder / checkpoint.NAME, self.pretraining.state(), {"seconds": self.seconds})

    def restore(self) -> None:
        """Go on from the checkpoint."""
        tensors, header = checkpoint.read(self.folder / checkpoint.NAME)
        self.pretraining.set_state(tensors)
        self.seconds = header["seconds"]

    def finish(self) -> None:
        """Probe the encoder on held-out worlds, write it with its card, and drop the checkpoint."""
        self.data.close()
        self.console.print("probing on held-out worlds ...")
        found = {"trained": self.pretraining.encoder, "random": self.random}
        figures = probe_encoders(found, self.args)
        self.console.print(table(figures))
        encoders.save(self.pretraining.encoder, self.folder, self.card(figures))
        (self.folder / checkpoint.NAME).unlink(missing_ok=True)
        self.console.print(f"encoder written to {self.folder}")

    def card(self, figures: dict) -> dict:
        """What a reader of the encoder wants to know."""
        args = self.args
        length = f"--total-frames {args.total_frames}" if args.minutes is None else f"--minutes {args.minutes:g}"
        return {
            "encoder": args.encoder,
            "objective": args.objective,
            "scenario": args.env,
            "rig": encoders.describe(rig.get(args.rig)),
            "frames": args.frames,
            "images": self.pretraining.frames,
            "seconds": round(self.seconds),
            "machine": machine(self.data.device),
            "torch": torch.__version__,
            "seed": args.seed,
            "command": f"python -m train.perception --objective {args.objective} --env {args.env} "
            f"--encoder {args.encoder} {length} --num-worlds {args.num_worlds} --frames {args.frames} "
            f"--rig {args.rig} --seed {args.seed}",
            "probes": figures,
        }


def worlds(args: Args, num_worlds: int, seed: int) -> DrivingData:
    """The data engine that the settings describe."""
    return DrivingData(args.env, num_worlds, args.device, args.frames, seed, rig=args.rig)


def probe_encoders(found: dict[str, torch.nn.Module], args: Args) -> dict:
    """The probes' figures of each encoder, on the same worlds, none of which the training saw.

    Returns:
        {encoder's name: {label: figure}}, see `perception.probes.probe`.
    """
    num_worlds, steps = PROBED
    halves = []
    for half in range(2):
        data = worlds(args, num_worlds, args.seed + HELD_OUT + half)
        halves.append(probes.record(data, found, steps))
        data.close()
    return {name: probes.probe(halves[0][name], halves[1][name]) for name in found}


def table(figures: dict) -> Table:
    """The probes' figures, a row a label and range, a column an encoder."""
    result = Table(
        "probe",
        *figures,
        title="linear probes on held-out worlds",
        caption="presence: AUROC; distance: relative error; lane: accuracy; else mean error",
    )
    first, *_ = figures.values()
    for label, figure in first.items():
        if isinstance(figure, dict):
            for part in figure:
                result.add_row(
                    f"{label} {part} m",
                    *(f"{column[label].get(part, float('nan')):.3f}" for column in figures.values()),
                )
        else:
            result.add_row(label, *(f"{column.get(label, float('nan')):.3f}" for column in figures.values()))
    return result


def machine(device: torch.device) -> str:
    """What the training ran on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def prepare(args: Args) -> tuple[Args, Path]:
    """The settings to train with and the folder to write, after checking both.

    Raises:
        UserError: a bad setting, a folder that holds something already, or one that cannot be resumed.
    """
    if args.resume is not None:
        config = args.resume / "config.json"
        if not config.exists():
            raise UserError(f"nothing to resume in '{args.resume}': config.json is missing")
        if not (args.resume / checkpoint.NAME).exists():
            raise UserError(
                f"nothing to resume in '{args.resume}': {checkpoint.NAME} is missing; "
                "the training is done, or had not saved yet"
            )
        try:
            return dataclasses.replace(args, **json.loads(config.read_bytes())), args.resume
        except (ValueError, TypeError) as error:
            raise UserError(f"{config} is damaged ({error})") from None
    objectives.get(args.objective)
    if args.encoder not in encoders.ENCODERS:
        raise unknown("encoder", args.encoder, encoders.ENCODERS)
    if args.total_frames < 1 or (args.minutes is not None and args.minutes <= 0):
        raise UserError("the training's length must be positive")
    folder = args.out or Path("runs") / f"{args.encoder}-{args.env}-{args.objective}-{args.seed}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder}' exists already; give another --out, or go on with it by --resume {folder}")
    return args, folder


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: the next batch needs as much, and getting it from the system again, page by
    page, costs a tenth of a training's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(parameter, 1 << 30)


def main(args: Args) -> None:
    """Train, or go on training. See the module."""
    args, folder = prepare(args)
    keep_freed_memory()
    run = Run(args, folder)
    if args.resume is not None:
        run.restore()
    else:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in dataclasses.asdict(args).items() if name not in ("out", "resume")}
        files.write(folder / "config.json", json.dumps(kept, indent=2) + "\n")

    def interrupt(number: int, _) -> None:
        run.interrupted = number
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    run.train()
    run.save()
    if run.interrupted is not None:
        run.console.print(f"stopped; go on with: python -m train.perception --resume {folder}")
        raise SystemExit(128 + run.interrupted)
    run.finish()


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Args)))
