"""Drives on disk: recorded once, learnt from as often as one likes.

    python -m perception.dataset --env highway --out runs/drives      # 512,000 images, about 10 GB
    python -m train.perception --data runs/drives --out runs/my-encoder

A data set is a folder of shards and, written last, manifest.json, which says what was recorded and holds each shard's
size and SHA-256. A shard is a safetensors file of at most SHARD bytes with T consecutive policy steps of n worlds:

    frames    uint8 [F - 1 + T, n, 3, H, W], the newest camera frame of every step, and those of the F frames of the
              first step's stack that are older
    actions   int64 [T, n], episodes int64 [T, n], see `perception.data.Drive`

A stack is put together again from the frames of its own episode, so a data set takes 1/F of what its images would.
Training on it learns from the same batches as training on the worlds that it was recorded from, to the bit, until it
has been gone through; then it begins again.
"""

import hashlib
import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import tyro
from rich import progress as bars

from envs import files
from envs.errors import UserError, exit_on_user_error
from envs.interruption import Note, noted
from envs.physics.actions import META_ACTIONS
from envs.sensors import rig
from envs.simulation import resolve_device
from perception.data import DRIVERS, Drive, DrivingData
from perception.encoders import describe
from perception.mixture import Mixture, driving_data

MANIFEST, FORMAT = "manifest.json", 1
SHARD = 64_000_000  # bytes
LEAST_STEPS = 8  # that a shard should hold: the older frames of its first stack are stored beside
NUMBERS = 16  # bytes of an action and an episode
HEADER = 1000  # bytes, more than safetensors writes before the tensors of a shard


# --- recording ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How N worlds are cut into shards: each of at most `worlds` worlds and `steps` steps."""

    worlds: int
    steps: int

    @staticmethod
    def of(num_worlds: int, frames: int, frame_bytes: int) -> "Layout":
        """As few groups of worlds as leave room for LEAST_STEPS steps of stacks of `frames` frames."""
        each, full, older = frame_bytes + NUMBERS, SHARD - HEADER, frames - 1
        groups = math.ceil(num_worlds * each * (LEAST_STEPS + older) / full)
        worlds = math.ceil(num_worlds / min(groups, num_worlds))
        return Layout(worlds, max(1, full // (worlds * each) - older))


def record(
    data: DrivingData | Mixture, folder: Path, steps: int, about: dict[str, Any], note: Note | None = None
) -> None:
    """Drive on and write what is seen.

    Args:
        data: the worlds and their drivers.
        folder: to be made.
        steps: policy steps of each world.
        about: what else the manifest is to say; "scenario", "rig" (from `describe`) and "frames" are read again.
        note: ends the recording early, with what there is, once a signal was noted.

    Raises:
        UserError: the folder exists, or the disk has not the room.
        OSError: a file could not be written; without a manifest the folder is no data set.
    """
    frames = about["frames"]
    frame_bytes = data.image[0].numel() // frames
    layout = Layout.of(data.num_worlds, frames, frame_bytes)
    room(folder, data.num_worlds * steps * (1 + (frames - 1) / layout.steps) * frame_bytes)
    folder.mkdir(parents=True)
    shards: list[dict[str, Any]] = []
    counts = {"steps": 0, "episodes": 0, "actions": [0] * len(META_ACTIONS)}
    seen = torch.full((data.num_worlds,), -1, device=data.device)
    columns = (bars.TextColumn("recording"), bars.BarColumn(), bars.TaskProgressColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns) as bar:
        task = bar.add_task("", total=steps)
        while counts["steps"] < steps and not (note and note.number):
            drive = data.collect(min(layout.steps, steps - counts["steps"]))
            for worlds in torch.arange(data.num_worlds).split(layout.worlds):
                shards.append(_write(folder, len(shards), drive, worlds, counts["steps"], frames))
            counts["steps"] += len(drive.actions)
            counts["episodes"] += int((torch.cat([seen[None], drive.episodes]).diff(dim=0) != 0).sum())
            taken = torch.bincount(drive.actions.flatten(), minlength=len(META_ACTIONS)).tolist()
            counts["actions"] = [sum(pair) for pair in zip(counts["actions"], taken, strict=True)]
            seen = drive.episodes[-1].clone()
            bar.update(task, completed=counts["steps"])
    drivers = torch.bincount(data.drivers, minlength=len(DRIVERS)).tolist()
    manifest = {
        "format": FORMAT,
        **about,
        "image": list(data.image.shape[1:]),
        "worlds": data.num_worlds,
        "drivers": dict(zip(DRIVERS, drivers, strict=True)),
        **counts,
        "images": counts["steps"] * data.num_worlds,
        "actions": dict(zip(META_ACTIONS, counts["actions"], strict=True)),
        "shards": shards,
    }
    files.write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def room(folder: Path, needed: float) -> None:
    """Raise UserError where a folder cannot be made or would not find room for so many bytes."""
    if folder.exists():
        raise UserError(f"'{folder}' exists already; give another --out")
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(f"the data set takes {needed / 1e9:.1f} GB and '{there}' has {free / 1e9:.1f} left")


def _write(folder: Path, number: int, drive: Drive, worlds: torch.Tensor, start: int, frames: int) -> dict[str, Any]:
    """Write one shard; returns what the manifest says of it."""
    mine = worlds.to(drive.actions.device)
    newest = drive.images[:, mine, -3:]
    older = drive.images[0, mine, :-3].unflatten(1, (frames - 1, 3)).transpose(0, 1) if frames > 1 else newest[:0]
    tensors = {
        "frames": torch.cat([older, newest]),
        "actions": drive.actions[:, mine],
        "episodes": drive.episodes[:, mine],
    }
    written = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    name = f"shard-{number:06d}.safetensors"
    files.write(folder / name, written)
    return {
        "file": name,
        "bytes": len(written),
        "sha256": hashlib.sha256(written).hexdigest(),
        "steps": [start, start + len(drive.actions)],
        "worlds": [int(worlds[0]), int(worlds[-1]) + 1],
    }


# --- reading --------------------------------------------------------------------------------------------------------


class RecordedData:
    """A data set in the place of the worlds that it was recorded from: see `perception.data.DrivingData`.

    Sizes are compared at once, checksums when a shard is read.

    Args:
        folder: of the data set.
        device: where drives are wanted.

    Attributes:
        manifest: see `record`.
        num_worlds, num_actions, device: as of the worlds.
        image_shape: (C, H, W).

    Raises:
        UserError: no data set, or shards are missing or damaged.
    """

    num_actions = len(META_ACTIONS)

    def __init__(self, folder: str | Path, device: str = "auto"):
        self.folder, self.device = Path(folder), resolve_device(device)
        self.manifest, self.digest = read_manifest(self.folder)
        self.num_worlds, self.steps = self.manifest["worlds"], self.manifest["steps"]
        self.image_shape = tuple(self.manifest["image"])
        for shard in self.manifest["shards"]:
            path = self.folder / shard["file"]
            if not path.exists():
                raise UserError(f"the data set in '{folder}' is not whole: {shard['file']} is missing")
            if path.stat().st_size != shard["bytes"]:
                raise _damaged(path, f"it has {path.stat().st_size:,} bytes in place of {shard['bytes']:,}")
        self.position = 0
        self._loaded: dict[str, Drive] = {}

    def collect(self, steps: int, into: Drive | None = None) -> Drive:
        """The next `steps` policy steps of every world; from the beginning again where fewer are left.

        Raises:
            UserError: it has not so many steps, or a shard is damaged.
        """
        if steps > self.steps:
            raise UserError(f"the data set in '{self.folder}' has {self.steps} policy steps, a drive takes {steps}")
        if self.position + steps > self.steps:
            self.position = 0
        start, stop = self.position, self.position + steps
        drive = into or Drive.empty(steps, torch.empty(self.num_worlds, *self.image_shape, device=self.device))
        overlapping = [s for s in self.manifest["shards"] if s["steps"][0] < stop and s["steps"][1] > start]
        self._loaded = {s["file"]: self._loaded.get(s["file"]) or self._load(s) for s in overlapping}
        for shard in overlapping:
            first, last = max(start, shard["steps"][0]), min(stop, shard["steps"][1])
            part, worlds = self._loaded[shard["file"]], slice(*shard["worlds"])
            for mine, its in (
                (drive.images, part.images),
                (drive.actions, part.actions),
                (drive.episodes, part.episodes),
            ):
                mine[first - start : last - start, worlds] = its[first - shard["steps"][0] : last - shard["steps"][0]]
        self.position = stop
        return drive

    def _load(self, shard: dict[str, Any]) -> Drive:
        """A shard as the drive that it was."""
        path = self.folder / shard["file"]
        try:
            written = path.read_bytes()
        except OSError as error:
            raise UserError(f"the data set in '{self.folder}' is not whole: {error}") from None
        if hashlib.sha256(written).hexdigest() != shard["sha256"]:
            raise _damaged(path, "its checksum differs")
        tensors = safetensors.torch.load(written)
        return Drive(stacked(tensors["frames"], tensors["episodes"]), tensors["actions"], tensors["episodes"])

    def state(self) -> dict[str, torch.Tensor]:
        """Everything needed to go on exactly."""
        return {"position": torch.tensor(self.position), "manifest": torch.tensor(list(self.digest), dtype=torch.uint8)}

    def set_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from what `state` gave.

        Raises:
            UserError: it was given by another data set.
        """
        if bytes(state["manifest"].tolist()) != self.digest:
            raise UserError(f"'{self.folder}' does not hold the data set that the training began with")
        self.position = int(state["position"])

    def close(self) -> None:
        """Let go of what was read."""
        self._loaded = {}


def stacked(frames: torch.Tensor, episodes: torch.Tensor) -> torch.Tensor:
    """Stacks of camera frames from single ones. In an episode's first steps the oldest frame stands for those before.

    Args:
        frames: uint8 [F - 1 + T, n, 3, H, W], of which the first F - 1 belong to the first stack alone.
        episodes: int64 [T, n].

    Returns:
        uint8 [T, n, 3 F, H, W].
    """
    steps, worlds = episodes.shape
    before = len(frames) - steps
    step = torch.arange(steps)[:, None].expand(steps, worlds)
    begins = torch.zeros_like(step)
    begins[1:] = torch.where(episodes[1:] != episodes[:-1], step[1:], 0)
    begun = begins.cummax(0).values  # 0 for the episode that the shard begins in, whose older frames are there
    back = step[..., None] - torch.arange(before, -1, -1)
    chosen = torch.where(begun[..., None] > 0, torch.maximum(back, begun[..., None]), back) + before
    rows = chosen * worlds + torch.arange(worlds)[:, None]
    return frames.flatten(0, 1).index_select(0, rows.flatten()).view(steps, worlds, -1, *frames.shape[3:])


def read_manifest(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of a data set, and the SHA-256 of the file.

    Raises:
        UserError: there is none, it cannot be read, or its cameras are not those of today.
    """
    path = folder / MANIFEST
    try:
        written = path.read_bytes()
        manifest = json.loads(written)
        if manifest["format"] != FORMAT:
            raise UserError(f"{path} has format {manifest['format']}, this version reads format {FORMAT}")
        covered = sum(math.prod(b - a for a, b in (s["steps"], s["worlds"])) for s in manifest["shards"])
        if covered != manifest["steps"] * manifest["worlds"]:
            raise UserError(f"{path} does not list every shard; record it again")
        name = manifest["rig"]["name"]
        known = {"scenario": str, "frames": int, "seed": int, "image": list, "drivers": dict}
        if wrong := [key for key, kind in known.items() if not isinstance(manifest[key], kind)]:
            raise ValueError(f"{wrong[0]} is {manifest[wrong[0]]!r}")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no data set in '{folder}': {MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the manifest of a data set ({type(error).__name__}: {error})") from None
    if describe(rig.get(name)) != manifest["rig"]:
        raise UserError(f"the data set in '{folder}' was filmed with other cameras than rig '{name}' has now")
    return manifest, hashlib.sha256(written).digest()


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{path} is damaged: {how}; copy the data set again, or record it again")


# --- the command ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Args:
    """Record drives to train encoders on."""

    env: str = "highway"
    """Scenario to film, or several with commas between them, which share the worlds."""
    steps: int = 2000
    """Policy steps of each world."""
    num_worlds: int = 256
    """Worlds that drive at once."""
    frames: int = 2
    """Camera frames stacked in one observation, one policy step apart."""
    rig: str = "surround"
    """Camera rig."""
    seed: int = 0
    """Of the worlds and their drivers."""
    device: str = "auto"
    """"cpu", "cuda" or "auto"."""
    out: Path | None = None
    """Folder to make; by default runs/data-ENV-SEED."""


def main(args: Args) -> None:
    """Record. See the module."""
    args = replace(args, out=args.out or Path("runs") / f"data-{args.env}-{args.seed}")
    if args.steps < 1:
        raise UserError(f"--steps must be at least 1, not {args.steps}")
    room(args.out, 0)
    data = driving_data(args.env, args.num_worlds, args.device, args.frames, args.seed, args.rig)
    about = {"scenario": args.env, "rig": describe(rig.get(args.rig)), "frames": args.frames, "seed": args.seed}
    with noted() as note:
        record(data, args.out, args.steps, about, note)
    data.close()
    steps = read_manifest(args.out)[0]["steps"]
    print(f"{steps * args.num_worlds:,} images in {args.out}; learn from them with: ", end="")
    print(f"python -m train.perception --data {args.out}")
    if note.number is not None:
        print(f"stopped early, after {steps} of {args.steps} steps; what there is, is whole")
        raise SystemExit(128 + note.number)


if __name__ == "__main__":
    exit_on_user_error(lambda: main(tyro.cli(Args)))
