"""What two runs over the same cases say about their policies: differences metric by metric, and a verdict in words."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evaluation.metrics import METRICS
from evaluation.statistics import CONFIDENCE, clopper_pearson, compare_pairs, holm
from evaluation.verdict import probability

# Metrics that decide the verdict, the first with a difference has the say.
# The most important first: harm, then what leads to it where luck prevents it, then whether the task was done.
DECIDING = (
    "collision",
    "collision_at_fault",
    "collision_with_person",
    "red_lights",
    "off_road",
    "brake_threat_number",
    "rss_longitudinal_r157",
    "mean_lane_offset",
    "success",
)
OK = "ok"


@dataclass(frozen=True)
class Run:
    """One policy over the cases of an evaluation. E: cases.

    Attributes:
        name: of the policy, as shown.
        folder: the results are in.
        found: what results.json holds.
        cases: their names. Length E.
        families: of the cases; empty where they have none.
        status: of the cases, "ok" or a fault. Length E.
        values: metric -> values, NaN where one means nothing. Shape: (E,).
    """

    name: str
    folder: Path
    found: dict
    cases: list[str]
    families: list[str]
    status: list[str]
    values: dict[str, np.ndarray]


def compared(a: Run, b: Run, deciding: Sequence[str] = DECIDING) -> dict:
    """Everything that is found, as compare.json holds it.

    Args:
        a, b: runs over the same cases in the same order.
        deciding: metrics that decide the verdict.

    Returns:
        "verdict": "better", "worse" or "not shown", of B; "sentence": the same in words, "sentences": what else is to
        be known; "metrics": metric -> its `Pairs` with "p_corrected" and a "verdict" of its own, "higher" or "lower"
        where neither is better; "families": family -> collisions; "apart": the cases in which one alone collided.
    """
    metrics = _metrics(a, b, deciding)
    shown = (metric["verdict"] for metric in metrics.values() if metric["deciding"])
    verdict = next((word for word in shown if word != "not shown"), "not shown")
    both = ~(np.isnan(a.values["collision"]) | np.isnan(b.values["collision"]))
    found = {
        "verdict": verdict,
        "confidence": CONFIDENCE,
        "cases": len(a.cases),
        **{key: a.found.get(key) for key in ("suite", "scenario", "backend", "seed", "held_out")},
        "a": _about(a),
        "b": _about(b),
        "metrics": metrics,
        "families": _families(a, b, both),
        "apart": [
            {"case": a.cases[k], "collided": a.name if a.values["collision"][k] > 0 else b.name}
            for k in np.flatnonzero(both & (a.values["collision"] != b.values["collision"])).tolist()
        ],
    }
    sentence, *sentences = _sentences(found)
    return {"verdict": verdict, "sentence": sentence, "sentences": sentences} | found


def _about(run: Run) -> dict:
    faults = {status: run.status.count(status) for status in dict.fromkeys(run.status) if status != OK}
    about = {key: run.found.get(key) for key in ("command", "created", "versions")}
    return {"name": run.name, "folder": str(run.folder), "faults": faults} | about


def _metrics(a: Run, b: Run, deciding: Sequence[str]) -> dict[str, dict]:
    """Metric -> what is found, those that decide first."""
    names = [name for name in (*deciding, *a.values) if name in a.values and name in b.values]
    found = {}
    for name in dict.fromkeys(names):
        both = ~(np.isnan(a.values[name]) | np.isnan(b.values[name]))
        if both.any():
            about = {key: a.found["metrics"][name][key] for key in ("title", "unit", "kind", "better")}
            pairs = compare_pairs(a.values[name][both], b.values[name][both], about["kind"])
            found[name] = about | {"deciding": name in deciding} | asdict(pairs)
            if about["kind"] == "rate":
                found[name]["rates"] = {key: _rate(run.values[name][both]) for key, run in (("a", a), ("b", b))}
    for group in (True, False):
        members = [metric for metric in found.values() if metric["deciding"] == group]
        for metric, corrected in zip(members, holm([metric["p"] for metric in members]), strict=True):
            metric["p_corrected"] = corrected
            metric["verdict"] = _verdict(metric)
    return found


def _rate(values: np.ndarray) -> dict[str, float]:
    """A rate with its interval."""
    low, high = clopper_pearson(int(values.sum()), len(values))
    return {"value": float(values.mean()), "low": low, "high": high}


def _verdict(metric: dict) -> str:
    if metric["p_corrected"] >= 1 - CONFIDENCE or metric["difference"] == 0:
        return "not shown"
    direction = "higher" if metric["difference"] > 0 else "lower"
    if not metric["better"]:
        return direction
    return "better" if direction == metric["better"] else "worse"


def _families(a: Run, b: Run, both: np.ndarray) -> dict[str, dict[str, int]]:
    """Family -> cases, and in how many of them A, B, A alone and B alone collided."""
    found = {}
    for family in dict.fromkeys(a.families):
        here = both & (np.array(a.families) == family)
        hit_a, hit_b = a.values["collision"][here] > 0, b.values["collision"][here] > 0
        counts = {"n": here, "a": hit_a, "b": hit_b, "only_a": hit_a & ~hit_b, "only_b": hit_b & ~hit_a}
        found[family] = {name: int(count.sum()) for name, count in counts.items()}
    return found


# --- in words ---------------------------------------------------------------------------------------------------------


def amount(metric: dict, name: str, value: float, signed: bool = False, unit: bool = True) -> str:
    """A value of a metric as text."""
    sign = "+" if signed else ""
    if metric["kind"] == "rate" or metric["unit"] == "%":
        return f"{100 * value:{sign}.1f}" + (" %" if unit else "")
    digits = METRICS[name].digits if name in METRICS else 2
    return f"{value:{sign}.{digits}f}" + (f" {metric['unit']}" if unit and metric["unit"] else "")


def _sentences(found: dict) -> list[str]:
    """The verdict, and what else is to be known."""
    a, b, metrics = found["a"]["name"], found["b"]["name"], found["metrics"]
    deciding = {name: metric for name, metric in metrics.items() if metric["deciding"]}
    said = {
        word: [_against(name, metric) for name, metric in deciding.items() if metric["verdict"] == word]
        for word in ("better", "worse", "higher", "lower", "not shown")
    }
    verdict = found["verdict"]
    if not deciding:
        sentence = f"Nothing is shown: none of the metrics that decide means anything in these {found['cases']} cases."
    elif verdict == "not shown":
        sentence = f"Neither is shown to be better, {a} or {b}: {'; '.join(said['not shown'])}."
    else:
        sentence = f"{b} is {verdict} than {a}: {'; '.join(said[verdict])}."
        against = said["worse" if verdict == "better" else "better"]
        if against:
            sentence += f" But it is {'worse' if verdict == 'better' else 'better'} in: {'; '.join(against)}."
    return [sentence, *_intervals(deciding), *_others(metrics), *_faults(found), *_notes(found)]


def _against(name: str, metric: dict) -> str:
    title = metric["title"]
    if not title[:2].isupper():  # an abbreviation
        title = title[0].lower() + title[1:]
    values = f"{amount(metric, name, metric['b'])} against {amount(metric, name, metric['a'])}"
    return f"{title} {values}, {probability(metric['p_corrected'])}"


def _intervals(deciding: dict[str, dict]) -> Iterable[str]:
    """How large the differences are that decide, and in how many cases there is one."""
    for name, metric in deciding.items():
        low, high = (amount(metric, name, metric[key], signed=True, unit=False) for key in ("low", "high"))
        difference = amount(metric, name, metric["difference"], signed=True)
        percent = " percentage points" if metric["kind"] == "rate" else ""
        difference = difference.removesuffix(" %") + percent if percent else difference
        yield (
            f"{metric['title']}: a difference of {difference} (95 % interval {low} to {high}); B is above A in "
            f"{metric['higher']}, below it in {metric['lower']} and equal in {metric['equal']} of {metric['n']} cases."
        )


def _others(metrics: dict[str, dict]) -> Iterable[str]:
    """The other metrics in which a difference is shown."""
    others = [metric for metric in metrics.values() if not metric["deciding"]]
    for word in ("better", "worse"):
        titles = [metric["title"] for metric in others if metric["verdict"] == word]
        if titles:
            yield f"Of the {len(others)} other metrics B is {word} in: {', '.join(titles)}."


def _faults(found: dict) -> Iterable[str]:
    for run in (found["a"], found["b"]):
        if run["faults"]:
            counts = ", ".join(f"{status} in {count}" for status, count in run["faults"].items())
            yield f"Beside the driving, {run['name']} had faults: {counts} of {found['cases']} cases."


def _notes(found: dict) -> Iterable[str]:
    if found["held_out"] is False:
        yield f"The cases are not held out: seed {found['seed']} is one that training may have used."
