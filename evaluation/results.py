"""What an evaluation found: a value for every metric and episode, summaries with intervals, and the files for them."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from envs.files import replaced, write
from evaluation import metrics, replay
from evaluation.recorder import HELD_OUT_SEED, Policy, record_episodes
from evaluation.replay import Replay
from evaluation.statistics import CONFIDENCE, bootstrap_mean, clopper_pearson, zero_failure_bound

FORMAT = 1


@dataclass(frozen=True)
class Setting:
    """What the policies of an evaluation have in common."""

    scenario: str
    backend: str
    episodes: int
    seed: int

    @property
    def held_out(self) -> bool:
        """True if training cannot have seen these episodes."""
        return self.seed >= HELD_OUT_SEED


@dataclass(frozen=True)
class Outcome:
    """How one policy did. E: episodes.

    Attributes:
        name: of the policy, as shown.
        spec: what the user named it by.
        values: metric -> values, float64. Shape: (E,).
        valid: metric -> whether the value means anything, bool. Shape: (E,).
        replays: number of the episode -> its recording: the first failures, and one success.
        seconds: that the episodes took, with simulation and policy.
        steps: policy steps in these episodes.
    """

    name: str
    spec: str
    values: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    replays: dict[int, Replay]
    seconds: float
    steps: int

    @cached_property
    def summary(self) -> dict[str, dict]:
        """Metric -> summary, see `summarise`."""
        return {
            name: summarise(metric, self.values[name], self.valid[name]) for name, metric in metrics.METRICS.items()
        }


def evaluate(
    make_worlds: Callable[[int], object],
    policy: Policy,
    spec: str,
    setting: Setting,
    keep: int = 0,
    on_step: Callable[[int], None] = lambda worlds: None,
) -> Outcome:
    """Roll a policy over the episodes of a setting and measure them.

    Args:
        make_worlds: number of worlds -> worlds.
        policy: drives the egos.
        spec: what the user named it by.
        setting: episodes and seed.
        keep: failures to be kept as replays; if any, one success is kept too. A failure is a collision, or an episode
            that ended without reaching the goal that the scenario has.
        on_step: called after every policy step with the number of worlds that took it.
    """
    start = time.perf_counter()
    results: dict[str, list] = {name: [] for name in metrics.METRICS}
    failures: dict[int, Replay] = {}
    success: dict[int, Replay] = {}
    steps = 0
    for first, worlds, trajectory in record_episodes(make_worlds, policy, setting.episodes, setting.seed, on_step):
        block = metrics.compute(trajectory)
        for name, result in block.items():
            results[name].append([part.double().cpu().numpy() for part in result])
        steps += int(trajectory.steps.sum())
        reached, has_goal = (part.tolist() for part in block["success"])
        for world, hit in enumerate(trajectory.hit.tolist()):
            what = _ending(hit, bool(reached[world]), has_goal[world])
            failed = what in ("collision", "goal not reached")
            kept, limit = (failures, keep) if failed else (success, min(keep, 1))
            if len(kept) < limit:
                episode = first + world
                about = {
                    "policy": policy.name,
                    "backend": setting.backend,
                    "episode": episode,
                    "seed": setting.seed,
                    "end": what,
                    "collision_time": round(int(trajectory.hit_frame[world]) * trajectory.dt, 3) if hit else None,
                    "metrics": {name: _number(r.value[world], r.valid[world]) for name, r in block.items()},
                }
                title = f"{policy.name}, episode {episode}: {what}"
                kept[episode] = replay.of(trajectory, world, worlds, title, about)
    stacked = {name: np.concatenate(parts, axis=1) for name, parts in results.items()}
    return Outcome(
        name=policy.name,
        spec=spec,
        values={name: value for name, (value, _) in stacked.items()},
        valid={name: valid.astype(bool) for name, (_, valid) in stacked.items()},
        replays=failures | success,
        seconds=time.perf_counter() - start,
        steps=steps,
    )


def _ending(hit: bool, reached: bool, has_goal: bool) -> str:
    """How an episode ended, in words."""
    if hit:
        return "collision"
    if not has_goal:
        return "no collision"
    return "goal reached" if reached else "goal not reached"


def summarise(metric: metrics.Metric, values: np.ndarray, valid: np.ndarray) -> dict:
    """A metric over episodes, with 95 % intervals.

    Args:
        metric: what the values are of.
        values, valid: Shape: (E,).

    Returns:
        "n": valid episodes; "value": their mean, or None without any; "low", "high": its interval, Clopper-Pearson for
        a rate and bootstrap for a mean. For a rate "count", and where it is 0 the one-sided "bound". For a mean the
        "quantiles" 0, 5, 25, 50, 75, 95 and 100 %, and with a threshold "critical": the rate of episodes below it.
    """
    values = values[valid]
    if len(values) == 0:
        return {"n": 0, "value": None, "low": None, "high": None}
    if metric.kind == "rate":
        return _rate(int(values.sum()), len(values))
    low, high = bootstrap_mean(values)
    quantiles = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    summary = {
        "n": len(values),
        "value": float(values.mean()),
        "low": low,
        "high": high,
        "quantiles": quantiles.tolist(),
    }
    if metric.threshold is not None:
        summary["critical"] = _rate(int((values < metric.threshold).sum()), len(values))
    return summary


def _rate(count: int, n: int) -> dict:
    low, high = clopper_pearson(count, n)
    rate = {"n": n, "count": count, "value": count / n, "low": low, "high": high}
    return rate if count else rate | {"bound": zero_failure_bound(n)}


def document(setting: Setting, outcomes: Sequence[Outcome], files: dict[int, dict[str, str]]) -> dict:
    """Everything that was found, for results.json.

    Args:
        setting: of the evaluation.
        outcomes: one a policy, the policy under test first.
        files: episode of the policy under test -> {"replay": path, "video": path}, relative to the results.
    """
    return {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "evaluation", *sys.argv[1:]]),
        "scenario": setting.scenario,
        "backend": setting.backend,
        "episodes": setting.episodes,
        "seed": setting.seed,
        "held_out": setting.held_out,
        "confidence": CONFIDENCE,
        "machine": machine(),
        "versions": versions(),
        "metrics": {
            name: {
                key: getattr(m, key) for key in ("title", "unit", "kind", "better", "definition", "threshold", "source")
            }
            for name, m in metrics.METRICS.items()
        },
        "policies": [
            {
                "name": outcome.name,
                "spec": outcome.spec,
                "seconds": round(outcome.seconds, 3),
                "steps": outcome.steps,
                "summary": outcome.summary,
                "recordings": [{"episode": e} | paths for e, paths in sorted(files.items()) if outcome is outcomes[0]],
                "episodes": list(_rows(setting, outcome)),
            }
            for outcome in outcomes
        ],
    }


def _rows(setting: Setting, outcome: Outcome):
    for episode in range(setting.episodes):
        yield {"episode": episode} | {
            name: _number(outcome.values[name][episode], outcome.valid[name][episode]) for name in metrics.METRICS
        }


def _number(value, valid) -> float | None:
    """A value as JSON can hold it: None where it means nothing."""
    return round(float(value), 6) if valid else None


def write_json(path: Path, found: dict) -> None:
    """Write results.json. NaN and infinity have no place in it."""
    write(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def write_parquet(path: Path, found: dict) -> None:
    """Write episodes.parquet: one row a policy and episode, a column a metric, null where it is not valid."""
    rows = [{"policy": policy["name"]} | row for policy in found["policies"] for row in policy["episodes"]]
    real = [pyarrow.field(name, pyarrow.float64()) for name in metrics.METRICS]
    names = [pyarrow.field("policy", pyarrow.string()), pyarrow.field("episode", pyarrow.int64())]
    schema = pyarrow.schema(names + real)
    with replaced(path) as beside:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), beside)


def machine() -> dict:
    """The machine this runs on, as far as it matters for speed."""
    found = {"system": platform.system(), "processor": _processor(), "cores": len(os.sched_getaffinity(0))}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions() -> dict:
    """Versions of what takes part in a result."""
    found = {"python": platform.python_version()}
    for name in ("lanewise", "torch", "warp-lang", "gymnasium", "highway-env", "stable-baselines3", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
