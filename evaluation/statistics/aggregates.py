"""Aggregates over several runs of several tasks: runs are training seeds, say, and tasks scenarios.

A handful of runs is noisy, and one task on which a policy shines can carry a mean. The interquartile mean leaves the
best and the worst quarter of all scores out, a performance profile shows the whole distribution, and the probability
of improvement asks only which of two scores is higher. Each has an interval by stratified bootstrap: within every task
its runs are drawn again, so that the tasks themselves stay as they are.

Scores are arrays of shape (..., R, T): R runs, T tasks. At least five runs are needed for intervals worth reading.

Source: Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021.
"""

from collections.abc import Callable

import numpy as np

from evaluation.statistics.intervals import CONFIDENCE


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all scores, a quarter of them, rounded down, being cut off at either end.

    Args:
        scores: Shape: (..., R, T).

    Returns:
        Shape: (...).
    """
    flat = np.sort(np.asarray(scores, dtype=np.float64).reshape(*np.shape(scores)[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of the scores above each threshold.

    Args:
        scores: Shape: (..., R, T).
        thresholds: Shape: (K,).

    Returns:
        Shape: (..., K).
    """
    return np.stack([(np.asarray(scores) > threshold).mean((-2, -1)) for threshold in thresholds], axis=-1)


def probability_of_improvement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Probability that a run of A scores above a run of B on the same task, a tie counting half; mean over the tasks.

    Args:
        a: scores of A. Shape: (..., R, T).
        b: scores of B. Shape: (..., Q, T).

    Returns:
        between 0 and 1. Shape: (...).
    """
    apart = np.sign(np.asarray(a)[..., :, None, :] - np.asarray(b)[..., None, :, :])
    return 0.5 + 0.5 * apart.mean((-3, -2, -1))


def stratified_bootstrap(
    statistic: Callable[..., np.ndarray],
    *scores: np.ndarray,
    confidence: float = CONFIDENCE,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of an aggregate, the runs of every task being drawn with replacement, each task by itself.

    Args:
        statistic: scores -> aggregate; its arguments have the number of the resample as an axis in front.
        scores: what it takes: one or more arrays of shape (R, T), drawn independently of each other.
        confidence: probability that such an interval holds the truth, for many runs.
        resamples: how often the runs are drawn.
        seed: of the draws, so that the same scores give the same interval.

    Returns:
        lower and upper end, each of the shape of the aggregate.
    """
    scores = [np.asarray(each, dtype=np.float64) for each in scores]
    generator = np.random.default_rng(seed)
    # A few resamples at a time, so that memory does not grow with their number.
    chunk = max(1, 500_000 // max(each.size for each in scores))
    drawn = []
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn.append(statistic(*(_redraw(each, count, generator) for each in scores)))
    low, high = np.quantile(np.concatenate(drawn), [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0], axis=0)
    return low, high


def _redraw(scores: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Shape: (R, T) -> (count, R, T)."""
    runs, tasks = scores.shape
    return scores[generator.integers(0, runs, (count, runs, tasks)), np.arange(tasks)]
