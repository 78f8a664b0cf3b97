"""From the figures of every seed to what is reported: means with intervals, and what follows from comparing them."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from evaluation.probes.benchmark import CORRUPTIONS, SHARES, Row
from evaluation.probes.labels import LABELS
from evaluation.probes.scores import FIGURES, Figure
from evaluation.statistics import CONFIDENCE, bootstrap_mean

CLOSED = 0.8  # of the gap from random to supervised features that good ones close
FEW = SHARES[0]  # of the labels, with which good features are as good as random ones with all
STRENGTH, GROWTH = 3, 0.15  # of corruptions, and by how much errors may then grow
# What a mean is of: test, features, probe, share.
Where = tuple[str, str, str, float]
Means = dict[str, dict[Where, dict[str, Any]]]


def means(seeds: Sequence[Iterable[Row]]) -> Means:
    """Figure -> where -> "value", the mean over the seeds that have it, "low" and "high", its interval (None of one
    seed), and "seeds", their own.
    """
    values: dict[str, dict[Where, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows in seeds:
        for row in rows:
            values[row.figure][row.test, row.features, row.probe, row.share].append(row.value)
    return {
        figure: {where: interval(found) for where, found in values[figure].items()}
        for figure in FIGURES
        if figure in values
    }


def interval(values: list[float]) -> dict[str, Any]:
    """Mean of the seeds' values, with its bootstrap interval."""
    low, high = bootstrap_mean(np.array(values), CONFIDENCE) if len(values) > 1 else (None, None)
    return {"value": statistics.fmean(values), "low": low, "high": high, "seeds": values}


def value(
    found: Means,
    figure: str,
    features: str,
    test: str = "episodes",
    share: float = 1.0,
    probe: str | None = None,
    end: str = "value",
) -> float | None:
    """A mean, or an end of its interval, None where there is none; by default of the linear probe, or the decoder."""
    if features in ("pixels", "constant"):
        probe = ""
    elif probe is None:
        probe = "decoder" if LABELS[FIGURES[figure].label].kind == "map" else "linear"
    entry = found[figure].get((test, features, probe, share))
    return None if entry is None else entry[end]


def judged(found: Means) -> dict[str, dict[str, Any]]:
    """What comparing the features says of each figure, None where it says nothing.

    Returns:
        figure -> "bar" and "bar_met", whether the encoder's linear probe reaches it; "gap_closed", the share of the gap
        from random to supervised features that the encoder closes, and "gap_met"; "few_labels", its error with 1 % of
        the labels over that of random features with all, and "few_met"; "growth", of its error at corruption strength
        3, mean over the kinds of "growth_by_kind", and "growth_met".
    """
    return {name: _judged(found, FIGURES[name]) for name in found}


def _judged(found: Means, figure: Figure) -> dict[str, Any]:
    def error(features: str, **place: Any) -> float | None:
        mean = value(found, figure.name, features, **place)
        return None if mean is None else figure.error(mean)

    mine, chance, best = error("encoder"), error("random"), error("supervised")
    few = error("encoder", share=FEW)
    gap = None if None in (mine, chance, best) or chance <= best else (chance - mine) / (chance - best)
    ratio = None if None in (few, chance) or chance == 0 else few / chance
    growth = {
        kind: grown
        for kind in CORRUPTIONS
        if (grown := _growth(error("encoder", test="clean"), error("encoder", test=f"{kind} {STRENGTH}"))) is not None
    }
    grown = statistics.fmean(growth.values()) if growth else None
    reached = None
    if figure.bar is not None and mine is not None:
        reached = mine <= figure.error(figure.bar)
    return {
        "bar": figure.bar,
        "bar_met": reached,
        "gap_closed": gap,
        "gap_met": None if gap is None else gap >= CLOSED,
        "few_labels": ratio,
        "few_met": None if ratio is None else ratio <= 1.0,
        "growth": grown,
        "growth_by_kind": growth,
        "growth_met": None if grown is None else grown <= GROWTH,
    }


def _growth(clean: float | None, spoilt: float | None) -> float | None:
    return None if not clean or spoilt is None else spoilt / clean - 1.0


def skill(found: Means, figure: str, features: str, end: str = "value", **place: Any) -> float | None:
    """1 - error / error of the best guess without a picture on other episodes: 0 knows nothing, 1 everything. Not below
    -1. None where the guess is right already. See `value` for the arguments.
    """
    guess, mine = value(found, figure, "constant"), value(found, figure, features, end=end, **place)
    if guess is None or mine is None or FIGURES[figure].error(guess) <= 0:
        return None
    return max(-1.0, 1.0 - FIGURES[figure].error(mine) / FIGURES[figure].error(guess))


def skills(found: Means, places: Sequence[dict[str, Any]]) -> list[float | None]:
    """Mean skill in each of several places, over the figures that have one in all of them.

    Args:
        places: arguments of `skill`.
    """
    rows = [[skill(found, figure, **place) for place in places] for figure in found]
    rows = [row for row in rows if None not in row]
    return [statistics.fmean(column) for column in zip(*rows, strict=True)] or [None] * len(places)


def sentences(verdicts: dict[str, dict[str, Any]]) -> list[str]:
    """Which bars are met, in words."""
    asked = [name for name, verdict in verdicts.items() if verdict["bar"] is not None]
    missed = [name for name in asked if not verdicts[name]["bar_met"]]

    def counted(key: str, what: str) -> str:
        judged = [verdict[key] for verdict in verdicts.values() if verdict[key] is not None]
        return f"{sum(judged)} of {len(judged)} figures {what}."

    met = [name for name in asked if name not in missed]
    return [
        f"Bars reached: {', '.join(met) or 'none'}.",
        f"Bars missed: {', '.join(missed) or 'none'}.",
        counted("gap_met", f"close {CLOSED:.0%} or more of the gap from random to supervised features"),
        counted("few_met", f"are with {FEW:.0%} of the labels as good as random features with all"),
        counted("growth_met", f"have errors that grow by {GROWTH:.0%} or less at corruption strength {STRENGTH}"),
    ]
