"""What an evaluation found: a value for every metric and episode, summaries with intervals, and the files for them."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch

from envs.files import replaced, write
from envs.scenarios.stage import Case
from evaluation import endings, metrics, recorder, replay
from evaluation.avoidable import avoidable, reference_among
from evaluation.endings import Endings
from evaluation.faults import OK
from evaluation.parts import Part, chosen_among, measured, number
from evaluation.recorder import HELD_OUT_SEED, Policy
from evaluation.replay import Replay
from evaluation.statistics import CONFIDENCE, bootstrap_mean, clopper_pearson, zero_failure_bound

FORMAT = 3
# Of the bootstrap of one metric: at most, at least, and how many values are drawn in between.
RESAMPLES, FEWEST_RESAMPLES, DRAWS = 10_000, 1_000, 2_500_000
# What results.json says about a metric.
DESCRIBED = ("title", "unit", "kind", "better", "definition", "threshold", "limit", "source")
POSE = ("x", "y", "heading")  # [m], [rad]
# Options of the command that say where the work is done, not what is done.
WHERE = ("--workers", "--ray-address")


@dataclass(frozen=True)
class Setting:
    """What the policies of an evaluation have in common.

    Attributes:
        scenario: its name; "stage" where cases are driven.
        backend: what simulates.
        episodes: how many; of cases, each one.
        seed: of the episodes, or of the draws of cases.
        suite: name of the suite that the cases are of, None where there are none.
    """

    scenario: str
    backend: str
    episodes: int
    seed: int
    suite: str | None = None

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
        endings: how each episode ended.
        replays: number of the episode -> its recording: failures, spread over families and kinds, and one success.
        seconds: that the episodes took, with simulation and policy.
        steps: policy steps in these episodes.
        cases: what was driven, one an episode; None where the episodes are a scenario's.
        status: what went wrong beside the driving, see `evaluation.faults`: "ok" or the kind of fault. Length E, or 0
            where nothing did.
        errors: the text of the fault, "" without one. As long as `status`.
    """

    name: str
    spec: str
    values: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    endings: Endings
    replays: dict[int, Replay]
    seconds: float
    steps: int
    cases: list[Case] | None = None
    status: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @cached_property
    def summary(self) -> dict[str, dict]:
        """Metric -> summary, see `summarise`."""
        episodes = len(next(iter(self.values.values())))
        # Intervals of many episodes need fewer resamples for the same time, and are as good.
        return self._summary(np.arange(episodes), int(np.clip(DRAWS // max(1, episodes), FEWEST_RESAMPLES, RESAMPLES)))

    @cached_property
    def families(self) -> dict[str, dict[str, dict]]:
        """Family of cases -> metric -> summary, in the order of the suite; empty without cases."""
        names = np.array([case.family for case in self.cases or ()])
        return {
            name: self._summary(np.flatnonzero(names == name), FEWEST_RESAMPLES)
            for name in dict.fromkeys(names.tolist())
        }

    @property
    def faults(self) -> dict[str, int]:
        """Kind of fault -> episodes with it."""
        return dict(Counter(status for status in self.status if status != OK))

    def _summary(self, episodes: np.ndarray, resamples: int) -> dict[str, dict]:
        return {
            name: summarise(metric, self.values[name][episodes], self.valid[name][episodes], resamples)
            for name, metric in metrics.METRICS.items()
        }


def evaluate(
    make_worlds: Callable[[int], object],
    policy: Policy,
    spec: str,
    setting: Setting,
    keep: int = 0,
    on_step: Callable[[int], None] = lambda worlds: None,
    cases: Sequence[Case] | None = None,
) -> Outcome:
    """Roll a policy over the episodes of a setting and measure them, in this process and in memory.

    Args:
        make_worlds: number of worlds -> worlds.
        policy: drives the egos.
        spec: what the user named it by.
        setting: episodes and seed.
        keep: failures to be kept as replays; if any, one success is kept too. See `evaluation.parts.measured`.
        on_step: called after every policy step with the number of worlds that took it.
        cases: one an episode, where the worlds are staged.
    """
    parts = []
    for first in range(0, setting.episodes, recorder.BLOCK):
        count = min(recorder.BLOCK, setting.episodes - first)
        parts.append(measured(make_worlds, policy, setting.backend, setting.seed, first, count, keep, on_step, cases))
    return merged(policy.name, spec, parts, keep, cases)


def merged(name: str, spec: str, parts: Iterable[Part], keep: int, cases: Sequence[Case] | None = None) -> Outcome:
    """The outcome of a policy from all its parts, in whatever order. For the arguments see `evaluate`."""
    parts = sorted(parts, key=lambda part: part.first)

    ended = endings.joined([part.endings for part in parts])
    failures = {episode: kept for part in parts for episode, kept in part.failures.items()}
    successes = {episode: kept for part in parts for episode, kept in part.successes.items()}
    chosen = {episode: failures[episode] for episode in chosen_among(failures, ended, 0, keep, cases)}
    chosen |= {episode: successes[episode] for episode in sorted(successes)[: min(keep, 1)]}
    return Outcome(
        name=name,
        spec=spec,
        values={metric: np.concatenate([part.values[metric] for part in parts]) for metric in metrics.METRICS},
        valid={metric: np.concatenate([part.valid[metric] for part in parts]) for metric in metrics.METRICS},
        endings=ended,
        replays={e: replay.load(kept) if isinstance(kept, Path) else kept for e, kept in chosen.items()},
        seconds=sum(part.seconds for part in parts),
        steps=sum(part.steps for part in parts),
        cases=None if cases is None else list(cases),
        status=[status for part in parts for status in part.status],
        errors=[error for part in parts for error in part.errors],
    )


def summarise(metric: metrics.Metric, values: np.ndarray, valid: np.ndarray, resamples: int = RESAMPLES) -> dict:
    """A metric over episodes, with 95 % intervals.

    Args:
        metric: what the values are of.
        values, valid: Shape: (E,).
        resamples: of the bootstrap.

    Returns:
        "n": valid episodes; "value": their mean, or None without any; "low", "high": its interval, Clopper-Pearson for
        a rate and bootstrap for a mean. For a rate "count", and where it is 0 the one-sided "bound". For a mean the
        "quantiles" 0, 5, 25, 50, 75, 95 and 100 %, and with a threshold "critical": the rate of episodes below it, with
        a limit above it.
    """
    values = values[valid]
    if len(values) == 0:
        return {"n": 0, "value": None, "low": None, "high": None}
    if metric.kind == "rate":
        return _rate(int(values.sum()), len(values))
    low, high = bootstrap_mean(values, resamples=resamples)
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
    elif metric.limit is not None:
        summary["critical"] = _rate(int((values > metric.limit).sum()), len(values))
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
        "command": _command(),
        "scenario": setting.scenario,
        "suite": setting.suite,
        "cases": setting.episodes if setting.suite else None,
        "backend": setting.backend,
        "episodes": setting.episodes,
        "seed": setting.seed,
        "held_out": setting.held_out,
        "confidence": CONFIDENCE,
        "machine": machine(),
        "versions": versions(),
        "metrics": {name: {key: getattr(m, key) for key in DESCRIBED} for name, m in metrics.METRICS.items()},
        "policies": [
            {
                "name": outcome.name,
                "spec": outcome.spec,
                "seconds": round(outcome.seconds, 3),
                "steps": outcome.steps,
                "faults": outcome.faults,
                "summary": outcome.summary,
                "families": outcome.families,
                "avoidable": _avoidable(outcome, outcomes),
                "recordings": [{"episode": e} | paths for e, paths in sorted(files.items()) if outcome is outcomes[0]],
                "episodes": list(_rows(outcome)),
            }
            for outcome in outcomes
        ],
    }


def _command() -> str:
    """The command that was given, without what has no part in the result."""
    given, kept = iter(sys.argv[1:]), []
    for word in given:
        if word in WHERE:
            next(given, None)
        elif not word.startswith(tuple(f"{option}=" for option in WHERE)):
            kept.append(word)
    return shlex.join(["python", "-m", "evaluation", *kept])


def _avoidable(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict | None:
    """Crashes that the reference driver did not have, see `evaluation.avoidable`; None where it drove no cases."""
    name = reference_among(other.name for other in outcomes)
    if outcome.cases is None or name in (None, outcome.name):
        return None
    reference = next(other for other in outcomes if other.name == name)
    values = (which.values["collision"] for which in (outcome, reference))
    return avoidable(name, *values, *(which.valid["collision"] for which in (outcome, reference)))


def _rows(outcome: Outcome) -> Iterator[dict]:
    """One row an episode, as JSON holds it."""
    total = len(next(iter(outcome.values.values())))
    status, errors = outcome.status or [OK] * total, outcome.errors or [""] * total
    for episode in range(total):
        row: dict = {"episode": episode}
        if outcome.cases is not None:
            case = outcome.cases[episode]
            row |= {"case": case.id, "family": case.family, "parameters": dict(case.parameters)}
        row |= {"status": status[episode], "error": errors[episode] or None}
        row |= _ending(outcome, episode)
        yield row | {
            name: number(outcome.values[name][episode], outcome.valid[name][episode]) for name in metrics.METRICS
        }


def _ending(outcome: Outcome, episode: int) -> dict:
    """How an episode ended, as a row holds it: None where nothing was driven, or nothing failed."""
    ended = outcome.endings
    driven = ended.map[episode] >= 0
    row: dict = {"failure": ended.name(episode) or None, "map": str(ended.map[episode]) if driven else None}
    if outcome.cases is not None:
        row["map"] = outcome.cases[episode].map
    for when, poses in (("failure", ended.failure), ("end", ended.end)):
        for name, value in zip(POSE, poses[episode], strict=True):
            row[f"{when}_{name}"] = number(value, np.isfinite(value))
    return row


def write_json(path: Path, found: dict) -> None:
    """Write results.json. NaN and infinity have no place in it."""
    write(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def write_parquet(path: Path, found: dict) -> None:
    """Write episodes.parquet: one row a policy and episode, a column a metric, null where it is not valid, and how the
    episode ended, see `evaluation.endings`. Where cases were driven also "case", "family", and "parameter.NAME" for
    every parameter of any family, null where it has none.
    """
    text, real = pyarrow.string(), pyarrow.float64()
    staged = found["suite"] is not None
    columns = {"policy": text, "episode": pyarrow.int64()}
    if staged:
        columns |= {"case": text, "family": text}
    columns |= {"status": text, "error": text, "failure": text, "map": text}
    columns |= dict.fromkeys((f"{when}_{name}" for when in ("failure", "end") for name in POSE), real)
    columns |= dict.fromkeys(metrics.METRICS, real)
    rows = []
    for policy in found["policies"]:
        for row in policy["episodes"]:
            parameters = {f"parameter.{name}": value for name, value in row.get("parameters", {}).items()}
            columns |= dict.fromkeys(parameters, real)
            rows.append({"policy": policy["name"]} | row | parameters)
    schema = pyarrow.schema(list(columns.items()))
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
