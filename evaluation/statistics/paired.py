"""Two policies on the same cases: how far apart they are, and whether that can be chance.

A case that is hard for one policy is hard for the other, so only differences within cases count. A rate is compared by
the cases that only one of the two failed (McNemar), a mean by turning the signs of the differences at random
(permutation). Several metrics get Holm's correction, since of twenty metrics one differs "significantly" by chance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from evaluation.statistics.intervals import CONFIDENCE, binomial_cdf, bootstrap_mean

# Up to so many differences, all ways to turn their signs are gone through.
EXACT = 14


@dataclass(frozen=True)
class Pairs:
    """A metric of two policies, A and B, on the same cases.

    Attributes:
        n: cases in which the metric means something for both.
        a, b: mean or rate over these cases.
        difference: b - a.
        low, high: its interval.
        lower, equal, higher: cases in which B's value is below, equal to and above A's.
        p: probability of a difference as large as this, or larger, if A and B were the same.
    """

    n: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    lower: int
    equal: int
    higher: int
    p: float


def compare_pairs(a: np.ndarray, b: np.ndarray, kind: str, confidence: float = CONFIDENCE) -> Pairs:
    """Compare the values of two policies, case by case.

    Args:
        a, b: values of the same n >= 1 cases. Shape: (n,).
        kind: "rate" for values of 0 and 1: Newcombe's interval and McNemar's test; else bootstrap interval and
            permutation test of the mean difference.
        confidence: of the interval.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    apart = b - a
    lower, higher = int((apart < 0).sum()), int((apart > 0).sum())
    if kind == "rate":
        low, high = newcombe(int(((a > 0) & (b > 0)).sum()), higher, lower, len(a), confidence)
    else:
        low, high = bootstrap_mean(apart, confidence)
    return Pairs(
        n=len(a),
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float(apart.mean()),
        low=low,
        high=high,
        lower=lower,
        equal=len(a) - lower - higher,
        higher=higher,
        p=paired_p(a, b, kind),
    )


def paired_p(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    """The p of `compare_pairs` alone: `mcnemar` for a rate, else `sign_flip`."""
    apart = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    return mcnemar(int((apart < 0).sum()), int((apart > 0).sum())) if kind == "rate" else sign_flip(apart)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: were both the same, each would fail alone as often as the other.

    Args:
        only_a, only_b: cases that only A and that only B failed.

    Source: McNemar, Psychometrika 12 (1947), with the binomial distribution in place of its approximation.
    """
    discordant = only_a + only_b
    return 1.0 if discordant == 0 else min(1.0, 2.0 * binomial_cdf(min(only_a, only_b), discordant, 0.5))


def sign_flip(differences: np.ndarray, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p of the mean difference by permutation: were both the same, each difference could have either sign.

    Up to 14 differences other than 0, all signs are gone through and p is exact. Beyond, signs are drawn, and the
    observed ones count as one of the draws, so that p is never 0 nor too small.

    Args:
        differences: of the cases. Shape: (n,).
        resamples: how often signs are drawn.
        seed: of the draws.

    Source: Fisher, The design of experiments (1935), section 21; Phipson and Smyth (2010) for the drawn signs.
    """
    differences = np.asarray(differences, dtype=np.float64)
    differences = differences[differences != 0]
    n = len(differences)
    if n == 0:
        return 1.0
    # Sums that are equal but for rounding are equal.
    reached = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if n <= EXACT:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float((np.abs((1.0 - 2.0 * bits) @ differences) >= reached).mean())
    generator = np.random.default_rng(seed)
    extreme, chunk = 0, max(1, 2_000_000 // n)
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        bits = np.unpackbits(generator.integers(0, 256, (count, -(-n // 8)), dtype=np.uint8), axis=1, count=n)
        extreme += int((np.abs((1.0 - 2.0 * bits) @ differences) >= reached).sum())
    return (extreme + 1) / (resamples + 1)


def newcombe(both: int, only_b: int, only_a: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the difference of two rates on the same cases, B's minus A's.

    Wilson's intervals of the two rates, put together with their correlation. It has a width even where no case tells
    the two apart, which a bootstrap has not.

    Args:
        both: cases that both failed.
        only_b, only_a: cases that only one of them failed.
        trials: all cases, >= 1.
        confidence: probability that such an interval holds the true difference, about.

    Source: Newcombe, Statistics in Medicine 17 (1998) 2635, method 10.
    """
    neither = trials - both - only_a - only_b
    rate_a, rate_b = (both + only_a) / trials, (both + only_b) / trials
    low_a, high_a = _wilson(rate_a, trials, confidence)
    low_b, high_b = _wilson(rate_b, trials, confidence)
    margins = (both + only_a) * (both + only_b) * (neither + only_a) * (neither + only_b)
    product = both * neither - only_a * only_b
    if product > 0:
        product = max(0.0, product - trials / 2)  # continuity correction
    phi = product / math.sqrt(margins) if margins else 0.0

    def reach(below: float, above: float) -> float:
        return math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))

    difference = rate_b - rate_a
    return difference - reach(rate_b - low_b, high_a - rate_a), difference + reach(high_b - rate_b, rate_a - low_a)


def _wilson(rate: float, trials: int, confidence: float) -> tuple[float, float]:
    """Score interval of a rate."""
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    middle = rate + z**2 / (2 * trials)
    half = z * math.sqrt(rate * (1.0 - rate) / trials + z**2 / (4 * trials**2))
    scale = 1.0 + z**2 / trials
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number: were all hypotheses true, one or more would fall below 0.05 with probability
    0.05 at most, whatever their dependence.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    corrected, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected
