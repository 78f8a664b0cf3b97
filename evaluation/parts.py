"""A part of an evaluation: what a policy did in a block of consecutive episodes, measured, and as a file.

A part's file is a safetensors file of ours, with its SHA-256, and beside it a replay for every episode that is kept. It
is written last and whole, so a part is there or it is not.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from agents import checkpoint
from envs.errors import UserError
from envs.scenarios.stage import Case
from evaluation import endings, metrics, replay
from evaluation.endings import Endings
from evaluation.faults import NOT_FINITE, OK, Block, rolled
from evaluation.recorder import Policy
from evaluation.replay import Replay
from evaluation.spread import spread

KIND = "part of an evaluation"


@dataclass(frozen=True)
class Part:
    """What a policy did in a block of consecutive episodes. n: episodes.

    Attributes:
        first: number of the first one.
        values, valid: metric -> see `evaluation.results.Outcome`. Shape: (n,).
        status, errors: see `evaluation.results.Outcome`. Length n.
        endings: how each episode ended.
        failures, successes: number of the episode -> its recording, or the file it is in.
        seconds: that it took.
        steps: policy steps.
    """

    first: int
    values: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    status: list[str]
    errors: list[str]
    endings: Endings
    failures: dict[int, Replay | Path]
    successes: dict[int, Replay | Path]
    seconds: float
    steps: int


def measured(
    make_worlds: Callable[[int], object],
    policy: Policy,
    backend: str,
    seed: int,
    first: int,
    count: int,
    keep: int = 0,
    on_step: Callable[[int], None] = lambda worlds: None,
    cases: Sequence[Case] | None = None,
    world: int | None = None,
) -> Part:
    """Roll a block of episodes and measure them.

    Args:
        make_worlds: number of worlds -> worlds.
        policy: drives the egos.
        backend: what simulates, for the notes of replays.
        seed: of the episodes.
        first, count: which episodes.
        keep: failures to be kept as replays, chosen as `evaluation.spread` says, and if any, one success. A failure is
            what `evaluation.endings` names one.
        on_step: called after every policy step with the number of worlds that took it.
        cases: of the whole evaluation, one an episode; None where the episodes are a scenario's.
        world: identity of the first episode's world in the random streams; `first` by default.
    """
    start, pieces = time.perf_counter(), []
    about = {"policy": policy.name, "backend": backend, "seed": seed}
    world = first if world is None else world
    for block in rolled(make_worlds, policy, world, count, seed, on_step):
        pieces.append(_measure(replace(block, first=block.first - world + first), about, keep, cases))
    ended = endings.joined([piece.endings for piece in pieces])
    failures = {episode: kept for piece in pieces for episode, kept in piece.failures.items()}
    successes = {episode: kept for piece in pieces for episode, kept in piece.successes.items()}
    chosen = chosen_among(failures, ended, first, keep, cases)
    return Part(
        first=first,
        values={name: np.concatenate([piece.values[name] for piece in pieces]) for name in metrics.METRICS},
        valid={name: np.concatenate([piece.valid[name] for piece in pieces]) for name in metrics.METRICS},
        status=[status for piece in pieces for status in piece.status],
        errors=[error for piece in pieces for error in piece.errors],
        endings=ended,
        failures={episode: failures[episode] for episode in chosen},
        successes=dict(list(successes.items())[: min(keep, 1)]),
        seconds=time.perf_counter() - start,
        steps=sum(piece.steps for piece in pieces),
    )


def _measure(block: Block, about: dict, keep: int, cases: Sequence[Case] | None) -> Part:
    """The metrics of a block that was rolled, and its recordings; `seconds` is left at 0."""
    status, errors = [OK] * block.count, [""] * block.count
    for world, fault in block.faults.items():
        status[world], errors[world] = fault
    trajectory = block.trajectory
    if trajectory is None:
        values = {name: np.full(block.count, np.nan) for name in metrics.METRICS}
        valid = {name: np.zeros(block.count, bool) for name in metrics.METRICS}
        ended = endings.unknown(block.count)
        return Part(block.first, values, valid, status, errors, ended, {}, {}, 0.0, 0)
    found = {name: [part.cpu().numpy() for part in result] for name, result in metrics.compute(trajectory).items()}
    values = {name: value.astype(np.float64) for name, (value, _) in found.items()}
    means = np.array([world not in block.lost for world in range(block.count)])
    valid = {name: valid.astype(bool) & means for name, (_, valid) in found.items()}
    without_numbers = [world for world in range(block.count) if status[world] == NOT_FINITE]
    ended = endings.endings(trajectory, values, valid, block.lost, without_numbers)

    def recording(episode: int) -> Replay:
        world = episode - block.first
        hit = bool(trajectory.hit[world])
        notes = about | {
            "episode": episode,
            "end": ended.name(world) or ("goal reached" if valid["success"][world] else "no collision"),
            "status": status[world],
            "collision_time": round(int(trajectory.hit_frame[world]) * trajectory.dt, 3) if hit else None,
            "metrics": {name: number(values[name][world], valid[name][world]) for name in metrics.METRICS},
        }
        name = f"episode {episode}"
        if cases is not None:
            notes["case"] = name = cases[episode].id
        title = f"{about['policy']}, {name}: {notes['end']}"
        return replay.of(trajectory, world, block.worlds, title, notes)

    failed = (block.first + np.flatnonzero(ended.failed)).tolist()
    fine = (block.first + np.flatnonzero(~ended.failed & means)).tolist()
    failures = {e: recording(e) for e in chosen_among(failed, ended, block.first, keep, cases)}
    successes = {e: recording(e) for e in fine[: min(keep, 1)]}
    steps = int(trajectory.steps.sum())
    return Part(block.first, values, valid, status, errors, ended, failures, successes, 0.0, steps)


def chosen_among(
    failures: Iterable[int], ended: Endings, first: int, keep: int, cases: Sequence[Case] | None
) -> list[int]:
    """The failures to be kept as recordings, in order.

    Args:
        failures: numbers of the episodes to choose from.
        ended: how episodes ended.
        first: number of the first episode of these.
        keep: how many to keep at most.
        cases: of the whole evaluation, one an episode; None where the episodes are a scenario's.
    """
    names = dict.fromkeys(case.family for case in cases or ())
    order = {name: place for place, name in enumerate(names)}
    families = ((episode, 0 if cases is None else order[cases[episode].family]) for episode in failures)
    return sorted(spread(((family, int(ended.kind[e - first]), e) for e, family in families), keep))


def number(value, valid) -> float | None:
    """A value as JSON can hold it: None where it means nothing."""
    return round(float(value), 6) if valid else None


def save(part: Part, path: Path) -> None:
    """Write a part, its recordings first.

    Raises:
        OSError: something could not be written; then the part is not there.
    """
    for episode, recording in (part.failures | part.successes).items():
        replay.save(recording, _recording(path, episode))
    tensors = {f"values.{name}": torch.from_numpy(value) for name, value in part.values.items()}
    tensors |= {f"valid.{name}": torch.from_numpy(valid) for name, valid in part.valid.items()}
    tensors |= {f"endings.{name}": torch.from_numpy(values) for name, values in part.endings.arrays.items()}
    names = ("first", "status", "errors", "seconds", "steps")
    header = {"kind": KIND} | {name: getattr(part, name) for name in names}
    header |= {"failures": list(part.failures), "successes": list(part.successes)}
    checkpoint.write(path, tensors, header)


def load(path: Path) -> Part | None:
    """Read a part; None where it is not there, or damaged."""
    try:
        tensors, header = checkpoint.read(path)
    except UserError:
        return None
    kept = {group: {e: _recording(path, e) for e in header[group]} for group in ("failures", "successes")}
    if not all(file.exists() for files in kept.values() for file in files.values()):
        return None

    def group(name: str, members: Iterable[str] = metrics.METRICS) -> dict[str, np.ndarray]:
        return {member: tensors[f"{name}.{member}"].numpy() for member in members}

    return Part(
        **{name: header[name] for name in ("first", "status", "errors", "seconds", "steps")},
        values=group("values"),
        valid=group("valid"),
        endings=Endings(**group("endings", [each.name for each in fields(Endings)])),
        **kept,
    )


def _recording(path: Path, episode: int) -> Path:
    """The file of a recording that belongs to a part."""
    return path.with_name(f"{path.stem}-episode-{episode:05}{path.suffix}")
