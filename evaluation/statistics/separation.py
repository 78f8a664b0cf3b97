"""How well a score tells frames of one kind of drives from frames of another, with intervals over drives."""

from typing import NamedTuple

import numpy as np

from evaluation.statistics.intervals import CONFIDENCE

RESAMPLES = 1000
ACCEPTED = 0.95  # share of the negatives that FPR95 accepts


class Separation(NamedTuple):
    """AUROC is the chance that a positive scores above a negative, ties counting half; `low` and `high` are the ends of
    its interval. FPR95 is the share of the positives that score no higher than ACCEPTED of the negatives: what passes
    as negative where few negatives are stopped."""

    auroc: float
    low: float
    high: float
    fpr95: float


def separation(
    negatives: np.ndarray,
    negative_worlds: np.ndarray,
    positives: np.ndarray,
    positive_worlds: np.ndarray,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Separation:
    """AUROC with its percentile bootstrap interval, and FPR95.

    What is drawn again are the worlds of either kind, with all of their frames, since those of one drive are alike.

    Args:
        negatives, positives: scores. Shape: (n,) and (m,), at least one of each.
        negative_worlds, positive_worlds: where each comes from. Worlds of the two kinds have nothing in common.
        confidence: of the interval.
        seed: of the draws.
    """
    low = [np.sort(negatives[negative_worlds == world]) for world in np.unique(negative_worlds)]
    high = [positives[positive_worlds == world] for world in np.unique(positive_worlds)]
    # Of each pair of worlds how often the positive wins, from which the AUROC of every resample follows.
    every, starts = np.concatenate(high), np.cumsum([0, *map(len, high[:-1])])
    wins = np.empty((len(low), len(high)))
    for row, part in enumerate(low):
        won = (np.searchsorted(part, every, "left") + np.searchsorted(part, every, "right")) / 2
        wins[row] = np.add.reduceat(won, starts)
    sizes = np.array([len(part) for part in low], float), np.array([len(part) for part in high], float)
    rng = np.random.default_rng(seed)
    times = [rng.multinomial(len(size), np.full(len(size), 1 / len(size)), RESAMPLES) for size in sizes]
    areas = np.einsum("ri,ij,rj->r", times[0], wins, times[1], optimize=True)
    areas /= (times[0] @ sizes[0]) * (times[1] @ sizes[1])
    ends = np.quantile(areas, [(1 - confidence) / 2, (1 + confidence) / 2])
    fpr95 = float((positives <= np.quantile(negatives, ACCEPTED)).mean())
    return Separation(float(wins.sum() / (len(negatives) * len(positives))), float(ends[0]), float(ends[1]), fpr95)
