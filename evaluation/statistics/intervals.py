"""Intervals: how far a figure from n episodes can be from the truth."""

import math
from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95


def clopper_pearson(failures: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a binomial rate.

    The lower end is the rate at which `failures` or more of `trials` have probability (1 - confidence) / 2, the upper
    end the rate at which `failures` or fewer have it. Both are found by bisection of the binomial tail.

    Args:
        failures: number of events, 0 ... trials.
        trials: number of independent episodes, > 0.
        confidence: probability that such an interval holds the true rate, at least.

    Returns:
        lower and upper end, each between 0 and 1.

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    if not 0 <= failures <= trials or trials < 1:
        raise ValueError(f"{failures} of {trials} is not a count of events")
    tail = (1.0 - confidence) / 2.0
    lower = 0.0 if failures == 0 else _bisect(lambda p: 1.0 - binomial_cdf(failures - 1, trials, p) < tail)
    upper = 1.0 if failures == trials else _bisect(lambda p: binomial_cdf(failures, trials, p) > tail)
    return lower, upper


def zero_failure_bound(trials: int, confidence: float = CONFIDENCE) -> float:
    """Upper bound of the rate after `trials` episodes without a failure: 1 - (1 - confidence)^(1/trials), one-sided."""
    return -math.expm1(math.log(1.0 - confidence) / trials)


def trials_for_bound(rate: float, confidence: float = CONFIDENCE) -> float:
    """Episodes without a failure that bound the rate: ln(1 - confidence) / ln(1 - rate). Round up for a guarantee."""
    return math.log(1.0 - confidence) / math.log1p(-rate)


def bootstrap_mean(
    values: np.ndarray, confidence: float = CONFIDENCE, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean.

    Args:
        values: independent samples. Shape: (n,), n >= 1.
        confidence: probability that such an interval holds the true mean, for large n.
        resamples: how often n values are drawn with replacement.
        seed: of the draws, so that the same values give the same interval.

    Returns:
        lower and upper end.

    Source: Efron, Annals of Statistics 7 (1979).
    """
    values = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    # A few resamples at a time, so that memory does not grow with their number times n.
    chunk = max(1, 2_000_000 // len(values))
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        means[start : start + count] = values[generator.integers(0, len(values), (count, len(values)))].mean(1)
    low, high = np.quantile(means, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return float(low), float(high)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Probability of at most k events in n trials of rate p, 0 < p < 1: a sum in logarithms over the shorter tail."""
    if k >= n:
        return 1.0
    lower = k + 1 <= n - k
    low, high = (0, k) if lower else (k + 1, n)
    counts = np.arange(low, high)
    # ln C(n, i) from the first term by C(n, i + 1) = C(n, i) (n - i) / (i + 1).
    first = math.lgamma(n + 1) - math.lgamma(low + 1) - math.lgamma(n - low + 1)
    log_choose = first + np.concatenate([[0.0], np.cumsum(np.log((n - counts) / (counts + 1.0)))])
    i = np.arange(low, high + 1)
    total = float(np.exp(log_choose + i * math.log(p) + (n - i) * math.log1p(-p)).sum())
    return total if lower else 1.0 - total


def _bisect(below: Callable[[float], bool]) -> float:
    """The p in (0, 1) at which `below(p)` turns from True to False."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if below(middle) else (low, middle)
    return 0.5 * (low + high)
