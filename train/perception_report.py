"""What is said of a trained encoder: its probes, as a table and on its card."""

import dataclasses
import platform
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from envs.sensors import rig
from perception import encoders, probes
from perception.data import DrivingData
from perception.mixture import SEPARATOR, Mixture, driving_data

PROBED = (128, 80)  # worlds and policy steps of each half of the probes
HELD_OUT = 1_000_003  # added to the seed for the worlds of the probes' two halves


def card(args: Any, device: torch.device, images: int, seconds: float, figures: dict) -> dict:
    """What a reader of the encoder wants to know.

    Args:
        args: the settings of `train.perception`.
        device: that it was trained on.
        images: that it was trained on.
        seconds: that it took.
        figures: of the probes.
    """
    return {
        "encoder": args.encoder,
        "objective": args.objective,
        "scenario": args.env,
        "rig": encoders.describe(rig.get(args.rig)),
        "frames": args.frames,
        "images": images,
        "seconds": round(seconds),
        "machine": machine(device),
        "torch": torch.__version__,
        "seed": args.seed,
        "command": command(args),
        "probes": figures,
    }


def command(args: Any) -> str:
    """The command that trains so again, whatever the defaults become."""
    told = {field.name: getattr(args, field.name) for field in dataclasses.fields(args)}
    silent = {"out", "resume", "device", "minutes" if args.minutes is None else "total_frames"}
    silent |= {"tune", "rank"} if args.init is None else {"encoder", "frames", "separate_cameras"}
    silent |= {"rank"} if args.tune != "lora" else set()
    silent |= {"env", "num_worlds", "frames", "rig"} if args.data is not None else set()
    options = []
    for name, value in told.items():
        if name not in silent and value is not None and value is not False:
            options.append(f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}"))
    return " ".join(["python -m train.perception", *options])


def worlds(args: Any, num_worlds: int, seed: int) -> Mixture:
    """The data engine that the settings describe."""
    return driving_data(args.env, num_worlds, args.device, args.frames, seed, args.rig)


def probe_encoders(found: dict[str, torch.nn.Module], args: Any) -> dict:
    """The probes' figures of each encoder, on the same worlds, none of which the training saw; of several scenarios in
    the first.

    Returns:
        {encoder's name: {label: figure}}, see `perception.probes.probe`.
    """
    num_worlds, steps = PROBED
    halves = []
    for half in range(2):
        seed = args.seed + HELD_OUT + half
        data = DrivingData(args.env.split(SEPARATOR)[0], num_worlds, args.device, args.frames, seed, rig=args.rig)
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
