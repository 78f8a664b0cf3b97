"""Train an encoder by self-supervision, on worlds rolled as it goes or on recorded drives.

    python -m train.perception --objective atc --env highway --out runs/my-encoder    # an encoder folder, with its card
    python -m train.perception --resume runs/my-encoder                               # go on after an interruption
    python -m train.perception --data runs/drives                                     # see perception.dataset
    python -m train.perception --env highway,intersection-signals,crossing,town       # for several scenarios at once
    python -m train.perception --env town --init zoo/highway-small --tune lora        # from one scenario to another

The folder: encoder.safetensors and encoder.json (written at the end, with the probes' figures), config.json,
TensorBoard files, and while the training is not done checkpoint.safetensors, written once a minute and at SIGTERM or
Ctrl-C; with --tune lora also adapters.safetensors, all that was learnt.
"""

import ctypes
import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich import progress as bars
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from agents import checkpoint
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from envs.interruption import Note, noted
from envs.sensors import rig
from perception import encoders, lora, objectives
from perception.augment import Augmentation
from perception.dataset import RecordedData, read_manifest
from perception.encoders import Encoder
from perception.pretraining import Pretraining, Settings
from train import perception_report as report
from train.common import found

CHECKPOINT_EVERY = 60.0  # seconds
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
TUNES = ("all", "lora", "none")


@dataclass(frozen=True)
class Args:
    """Train an encoder by self-supervision."""

    objective: str = "atc"
    """Self-supervised objective (docs/perception.md): atc, atc_behaviour, latent_prediction, vicreg, vicreg_temporal,
    lejepa, simclr, moco, moco_v3, byol, simsiam, barlow_twins, mae, beta_vae, denoising or rotation."""
    env: str = "highway"
    """Scenario to film, or several with commas between them, which share the worlds."""
    encoder: str = "small"
    """Architecture: small, small_opponent, nature, impala or vit_tiny."""
    separate_cameras: bool = False
    """A rig's pictures each by itself, those of one size through shared weights, in place of one stacked image."""
    init: str | None = None
    """Folder of an encoder to go out from, "zoo/NAME" or a path; its architecture and number of frames hold."""
    tune: str = "all"
    """What of it learns: all, lora (low-rank adapters alone) or none (it is measured in the scenario as it is)."""
    rank: int = 8
    """Of the adapters."""
    data: str | None = None
    """Folder of recorded drives (python -m perception.dataset) to learn from; their scenario, worlds, frames and rig
    hold."""
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
    """Folder to write; by default in runs/, named after the settings."""
    resume: Path | None = None
    """Folder of an interrupted training to go on with; its own settings hold, all others are ignored."""


class Run:
    """One training, from its settings to the written encoder."""

    def __init__(self, args: Args, folder: Path):
        self.args, self.folder = args, folder
        self.console = Console()
        if args.data is None:
            self.data = report.worlds(args, args.num_worlds, args.seed)
        else:
            self.data = RecordedData(args.data, args.device)
        self.initial = None if args.init is None else self.loaded()
        torch.manual_seed(args.seed)
        self.random = self.built()  # the probes' floor
        torch.manual_seed(args.seed)
        if args.init is None:
            encoder = self.built().requires_grad_(True)
        elif args.tune == "lora":
            encoder = lora.adapt(self.loaded(), args.rank)
        else:
            encoder = self.loaded().requires_grad_(args.tune == "all")
        augmentation = Augmentation(self.data.device, seed=args.seed)
        self.pretraining = Pretraining(encoder, args.objective, self.data, augmentation, Settings(), args.seed)
        self.seconds = 0.0

    def built(self) -> Encoder:
        """An encoder of the settings' architecture, frozen."""
        cameras = [camera.height for camera in rig.get(self.args.rig).cameras] if self.args.separate_cameras else None
        encoder = encoders.build(self.args.encoder, *self.data.image_shape, cameras)
        return encoder.to(self.data.device).requires_grad_(False)

    def loaded(self) -> Encoder:
        """The encoder to go out from, frozen."""
        return encoders.load(found(self.args.init), self.data.device, self.data.image_shape, rig.get(self.args.rig))

    def progress(self) -> float:
        """Share of the training that is done."""
        if self.args.tune == "none":
            return 1.0
        if self.args.minutes is not None:
            return self.seconds / (60 * self.args.minutes)
        return self.pretraining.frames / self.args.total_frames

    def train(self, note: Note) -> None:
        """Iterate until done or a signal was noted, with a checkpoint now and then."""
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
            while self.progress() < 1 and note.number is None:
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
        trained = self.pretraining.encoder
        if self.args.tune == "lora":
            trained = lora.merge(trained, self.built())
        compared = {} if self.args.tune == "none" else {"trained": trained}
        if self.initial is not None:
            compared["initial"] = self.initial
        figures = report.probe_encoders(compared | {"random": self.random}, self.args)
        known = any(figures.values())
        self.console.print(report.table(figures) if known else f"no probe is defined in '{self.args.env}'")
        card = report.card(self.args, self.data.device, self.pretraining.frames, self.seconds, figures)
        if self.args.init is not None:
            base = encoders.read_card(found(self.args.init))["sha256"]
            card["init"] = {"folder": self.args.init, "sha256": base}
            if self.args.tune == "lora":
                lora.save(self.pretraining.encoder, self.folder / lora.NAME, base)
        if self.args.data is not None:
            card["data"] = {"folder": self.args.data, "sha256": self.data.digest.hex()}
        encoders.save(trained, self.folder, card)
        (self.folder / checkpoint.NAME).unlink(missing_ok=True)
        self.console.print(f"encoder written to {self.folder}")


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
    for what, name, known in (("encoder", args.encoder, encoders.ENCODERS), ("--tune", args.tune, TUNES)):
        if name not in known:
            raise unknown(what, name, known)
    if args.total_frames < 1 or (args.minutes is not None and args.minutes <= 0):
        raise UserError("the training's length must be positive")
    if args.init is None and args.tune != "all":
        raise UserError(f"--tune {args.tune} needs an encoder to go out from, --init")
    if args.init is not None:
        card = encoders.read_card(found(args.init))
        origin = {"encoder": card["encoder"], "frames": card["in_channels"] // 3, "separate_cameras": "cameras" in card}
        args = dataclasses.replace(args, **origin)
    if args.data is not None:
        recorded, _ = read_manifest(Path(args.data))
        taken = {"env": "scenario", "num_worlds": "worlds", "frames": "frames"}
        args = dataclasses.replace(args, rig=recorded["rig"]["name"], **{k: recorded[v] for k, v in taken.items()})
    parts = [args.encoder, args.env, args.objective, *([] if args.init is None else [args.tune]), str(args.seed)]
    folder = args.out or Path("runs") / "-".join(parts)
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

    with noted() as note:
        run.train(note)
    run.save()
    if note.number is not None:
        run.console.print(f"stopped; go on with: python -m train.perception --resume {folder}")
        raise SystemExit(128 + note.number)
    run.finish()


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Args)))
