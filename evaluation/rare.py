"""Rates of rare failures from few episodes: adaptive importance sampling by the cross-entropy method.

A scene is a point u of the unit cube, all points equally likely, and its score says how near it came to a failure,
which is a score at or below a threshold. Everything happens in z = Phi^-1(u), where the nominal density phi is that of
independent standard normals.

Levels. The first batch is drawn from phi. After every batch the best of all points so far, the elite, are those below
a level, and a mixture is fitted to them: the next batch comes from it. The level falls until it is the threshold. The
fit minimises the cross-entropy to phi restricted to the elite, so a point x weighs phi(x) / q(x), where q is the
mixture of all densities that were sampled so far (the balance heuristic).

Every component of the last mixture has a level of its own, and its elite the same total weight. Otherwise the one
region of failures whose scores fall fastest would take the whole elite before the others are looked at.

Estimate. The levels are used for nothing but the last mixture. The rest of the budget is drawn from

    q = a phi + (1 - a) sum_k share_k t_k        rate = mean of phi(x) / q(x) over draws, 0 where there is no failure

and that is unbiased whatever the mixture is. No weight exceeds 1 / a. Components are Student's t, whose tails are
heavier than phi's, in place of the usual normals.

Where only a part of the cube is meant, points outside are drawn like all others and cost nothing; `budget` counts only
what is scored. The rate is then divided by the share of that part, which is known to about 1 %.

What this cannot do: a region of failures that no level has come near is sampled by the share a alone. `Found.plain`
and `Found.plain_high` say what the plain draws from phi bound by themselves, without trust in the mixture.

Sources: Rubinstein and Kroese, The Cross-Entropy Method (2004); Veach and Guibas, Optimally Combining Sampling
Techniques (SIGGRAPH 1995), the balance heuristic; Hesterberg, Weighted Average Importance Sampling and Defensive
Mixture Distributions (Technometrics 37, 1995); Cappe et al., Adaptive Importance Sampling in General Mixture Classes
(Statistics and Computing 18, 2008), t components; Fay and Feuer, Confidence Intervals for Directly Standardized
Rates (Statistics in Medicine 16, 1997), the interval.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from evaluation.statistics import CONFIDENCE, clopper_pearson

# Chosen on the regions of `benchmarks.rare_events`.
BATCH = 400  # points a level
LEVELS = 5  # at most
QUANTILE = 0.1  # of a component's newest points, which the level does not fall below in one step
ELITE = 0.1125  # of a batch's points, that a component's elite has at least, in effective points
SMALLEST = 10  # effective points, the same for small batches
DEFENSIVE = 0.1  # a, share of the nominal density
FREEDOM = 4.0  # degrees of freedom of the components
SPREAD = 1.3  # by which the elite's covariances are scaled
COMPONENTS = (1, 2, 3, 4, 6, 8)  # numbers of them that are tried
SHRINK = 0.3  # times the covariance of all elite, a prior worth d + 2 points
ROUNDS = 20  # of expectation maximisation
FEWEST = 2.0  # effective points; components of fewer are dropped
FREE = 20_000  # points that tell how large the part of the cube is that is meant

Score = Callable[[np.ndarray], np.ndarray]
Valid = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Found:
    """What a search found. D: dimensions, E: episodes, of which the last F estimated the rate.

    Attributes:
        rate: estimated probability of a failure under the nominal density.
        low, high: its interval.
        effective: Kish's effective number of failures behind the estimate, (sum w)^2 / sum w^2.
        episodes: E, points that were scored.
        valid_share: share of the cube that is meant.
        points: of the unit cube. Shape: (E, D).
        scores: of the points. Shape: (E,).
        weights: phi / q, divided such that those of failures sum to `rate`. Shape: (F,).
        levels: highest level of the elite after every batch.
        reached: whether every component's level came down to the threshold.
        plain: plain draws from the nominal density among all episodes.
        plain_failures: failures among these.
        plain_high: upper end of the rate by these alone (Clopper and Pearson), whatever the mixture has missed.
    """

    rate: float
    low: float
    high: float
    effective: float
    episodes: int
    valid_share: float
    points: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    levels: tuple[float, ...]
    reached: bool
    plain: int
    plain_failures: int
    plain_high: float


def search(
    score: Score,
    dimension: int,
    threshold: float = 0.0,
    budget: int = 4000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    valid: Valid | None = None,
) -> Found:
    """Find failures, and their rate.

    Args:
        score: of n points of the unit cube, (n, D) -> (n,); a failure at or below `threshold`. It may be random.
        dimension: D.
        threshold: of failure.
        budget: episodes in all, at least 10. Half of them look for failures, at most.
        seed: of the draws.
        confidence: of the intervals.
        valid: (n, D) -> (n,) bool, the part of the cube that is meant; None for all of it. The number of episodes is
            then a matter of chance, and hardly ever more than the budget.

    Raises:
        ValueError: no dimension, too small a budget, no valid points, or a score that is not a number.
    """
    if dimension < 1 or budget < 10:
        raise ValueError(f"a search needs a dimension and 10 episodes, not {dimension} and {budget}")
    rng = np.random.default_rng(seed)
    history = _History(score, dimension, rng, valid)
    share = history.valid_share(None)
    batch = min(BATCH, budget // (2 * LEVELS))
    elite = max(ELITE * batch, SMALLEST)
    levels: list[float] = []
    settled, mixture = 0, None
    while len(levels) < LEVELS and settled < 2:  # once more at the threshold
        before = history.count
        history.run(mixture, batch)
        mixture, level = _next(history, mixture, threshold, np.arange(history.count) >= before, elite, rng)
        levels.append(level)
        settled += level <= threshold

    before = history.count
    drawn = history.run(mixture, budget - before)
    points, scores = history.z, history.scores
    last, failed = slice(before, None), history.scores <= threshold
    weights = np.exp(_log_nominal(points[last]) - _log_density(points[last], mixture)) / (drawn * share)
    hits = weights[failed[last]]
    plain, plain_failures = int(history.plain.sum()), int((history.plain & failed).sum())
    plain_high = clopper_pearson(plain_failures, plain, confidence)[1]
    low, high = weighted_interval(hits, confidence) if len(hits) else (0.0, plain_high)
    return Found(
        rate=float(hits.sum()),
        low=low,
        high=min(high, 1.0),
        effective=_effective(hits) if len(hits) else 0.0,
        episodes=history.count,
        valid_share=share,
        points=_cube(points),
        scores=scores,
        weights=weights,
        levels=tuple(levels),
        reached=settled > 0,
        plain=plain,
        plain_failures=plain_failures,
        plain_high=plain_high,
    )


def weighted_interval(weights: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a rate that is a sum of weights, one for each failure: Fay and Feuer's, by the gamma distribution.

    With equal weights it is the exact interval of a Poisson count. The weight of a failure that was not seen is taken
    to be no more than the greatest of those that were.

    Args:
        weights: of the failures. Shape: (k,), k >= 1.
        confidence: of the interval.
    """
    tail = (1.0 - confidence) / 2.0
    total, variance, most = float(weights.sum()), float((weights**2).sum()), float(weights.max())
    low = _gamma_quantile(tail, total**2 / variance) * variance / total
    total, variance = total + most, variance + most**2
    return low, _gamma_quantile(1.0 - tail, total**2 / variance) * variance / total


def _gamma_quantile(probability: float, shape: float) -> float:
    """Of the gamma distribution of scale 1, by bisection."""
    low, high = 0.0, shape + 20.0 * math.sqrt(shape) + 50.0
    shaped = torch.tensor(shape, dtype=torch.float64)
    for _ in range(100):
        middle = 0.5 * (low + high)
        below = float(torch.special.gammainc(shaped, torch.tensor(middle, dtype=torch.float64))) < probability
        low, high = (middle, high) if below else (low, middle)
    return 0.5 * (low + high)


# --- levels -----------------------------------------------------------------------------------------------------------


class _History:
    """All points so far that were scored, and the densities that they were drawn from."""

    def __init__(self, score: Score, dimension: int, rng: np.random.Generator, valid: Valid | None):
        self._score, self._rng, self._valid = score, rng, valid
        self.z = np.empty((0, dimension))
        self.scores, self.plain = np.empty(0), np.empty(0, dtype=bool)
        self._sampled: list[tuple[Mixture | None, int]] = []  # with the number of points, the others included

    @property
    def count(self) -> int:
        return len(self.z)

    def valid_share(self, mixture: "Mixture | None") -> float:
        """The share of what is drawn that is to be scored."""
        if self._valid is None:
            return 1.0
        share = float(np.mean(self._valid(_cube(self._draw(mixture, FREE)[0]))))
        if share == 0.0:
            raise ValueError(f"none of {FREE} points is valid")
        return share

    def run(self, mixture: "Mixture | None", count: int) -> int:
        """Draw points of which about `count` are to be scored, and score those.

        Returns:
            how many were drawn.
        """
        drawn = count
        if self._valid is not None:
            # Chosen before any of them is seen, as the estimate needs it; fewer, so that they are rarely too many.
            drawn = max(1, int((count - 2.0 * math.sqrt(count)) / self.valid_share(mixture)))
        z, plain = self._draw(mixture, drawn)
        if self._valid is not None:
            valid = self._valid(_cube(z))
            z, plain = z[valid], plain[valid]
        scores = np.asarray(self._score(_cube(z)), dtype=np.float64)
        if scores.shape != (len(z),) or np.isnan(scores).any():
            raise ValueError(f"scores of {len(z)} points must be as many numbers")
        self.z, self.scores = np.concatenate([self.z, z]), np.concatenate([self.scores, scores])
        self.plain = np.concatenate([self.plain, plain])
        self._sampled.append((mixture, drawn))
        return drawn

    def _draw(self, mixture: "Mixture | None", count: int) -> tuple[np.ndarray, np.ndarray]:
        """Points, and which of them come from the nominal density."""
        plain = count
        if mixture is None:
            z = self._rng.standard_normal((count, self.z.shape[1]))
        else:
            plain, *each = _divided(count, np.append(DEFENSIVE, (1.0 - DEFENSIVE) * mixture.shares))
            nominal = self._rng.standard_normal((plain, self.z.shape[1]))
            z = np.concatenate([nominal, mixture.draw(each, self._rng)])
        return z, np.arange(count) < plain

    def weights(self) -> np.ndarray:
        """phi / q of all points, q being the mixture of what was sampled."""
        total = sum(drawn for _, drawn in self._sampled)
        parts = [_log_density(self.z, mixture) + math.log(drawn / total) for mixture, drawn in self._sampled]
        return np.exp(_log_nominal(self.z) - np.logaddexp.reduce(parts, axis=0))


def _next(
    history: _History,
    mixture: "Mixture | None",
    threshold: float,
    newest: np.ndarray,
    needed: float,
    rng: np.random.Generator,
) -> tuple["Mixture", float]:
    """The next mixture, and the highest level of its elite."""
    weights = history.weights()
    owner = np.zeros(history.count, dtype=int)
    if mixture is not None:
        owner = mixture.log_parts(history.z).argmax(1)
    elite, highest = np.zeros(history.count, dtype=bool), -math.inf
    for component in np.unique(owner):
        mine = owner == component
        level = max(threshold, _level(history.scores[mine], weights[mine], needed))
        if (mine & newest).any():
            level = max(level, float(np.quantile(history.scores[mine & newest], QUANTILE)))
        chosen = mine & (history.scores <= level)
        weights[chosen] /= weights[chosen].sum()
        elite |= chosen
        highest = max(highest, level)
    return fitted(history.z[elite], weights[elite] / weights[elite].sum(), rng), highest


def _level(scores: np.ndarray, weights: np.ndarray, needed: float) -> float:
    """The lowest score up to which there are as many effective points as needed, or the highest of all."""
    order = np.argsort(scores, kind="stable")
    sums, squares = np.cumsum(weights[order]), np.cumsum(weights[order] ** 2)
    enough = np.flatnonzero(sums**2 >= needed * squares)
    return float(scores[order[enough[0]]] if len(enough) else scores.max())


def _effective(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def _divided(count: int, shares: np.ndarray) -> list[int]:
    """A number divided by shares into whole numbers, the largest remainders rounded up."""
    exact = count * shares / shares.sum()
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: count - whole.sum()]] += 1
    return whole.tolist()


# --- densities --------------------------------------------------------------------------------------------------------


def _cube(z: np.ndarray) -> np.ndarray:
    """Phi(z): points of the unit cube."""
    return torch.special.ndtr(torch.from_numpy(z)).numpy()


def _log_nominal(z: np.ndarray) -> np.ndarray:
    return -0.5 * (z**2).sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


def _log_density(z: np.ndarray, mixture: "Mixture | None") -> np.ndarray:
    """Of what a batch is drawn from: the nominal density, with the mixture where there is one."""
    if mixture is None:
        return _log_nominal(z)
    parts = np.logaddexp.reduce(mixture.log_parts(z), axis=1)
    return np.logaddexp(math.log(DEFENSIVE) + _log_nominal(z), math.log1p(-DEFENSIVE) + parts)


class Mixture:
    """A mixture of K multivariate densities: Student's t, or normal ones where `freedom` is infinite.

    Args:
        shares: Shape: (K,), their sum 1.
        means: Shape: (K, D).
        covariances: scale matrices of the t, covariances of the normals. Shape: (K, D, D).
        freedom: degrees of freedom.
    """

    def __init__(self, shares: np.ndarray, means: np.ndarray, covariances: np.ndarray, freedom: float = FREEDOM):
        self.shares, self.means, self.covariances, self.freedom = shares, means, covariances, freedom
        self._roots = np.linalg.cholesky(covariances)

    def log_parts(self, z: np.ndarray) -> np.ndarray:
        """log(share_k density_k) of n points. Shape: (n, K)."""
        d, nu = z.shape[1], self.freedom
        parts = np.empty((len(z), len(self.shares)))
        for k, root in enumerate(self._roots):
            away = (np.linalg.solve(root, (z - self.means[k]).T) ** 2).sum(0)
            if math.isinf(nu):
                log = -0.5 * away - 0.5 * d * math.log(2 * math.pi)
            else:
                log = -0.5 * (nu + d) * np.log1p(away / nu) - 0.5 * d * math.log(nu * math.pi)
                log += math.lgamma(0.5 * (nu + d)) - math.lgamma(0.5 * nu)
            parts[:, k] = log - np.log(np.diag(root)).sum() + math.log(self.shares[k])
        return parts

    def draw(self, counts: list[int], rng: np.random.Generator) -> np.ndarray:
        """So many points of each component. Shape: (sum of counts, D)."""
        drawn = []
        for count, mean, root in zip(counts, self.means, self._roots, strict=True):
            wide = 1.0 if math.isinf(self.freedom) else np.sqrt(self.freedom / rng.chisquare(self.freedom, (count, 1)))
            drawn.append(mean + wide * (rng.standard_normal((count, len(mean))) @ root.T))
        return np.concatenate(drawn)


def fitted(z: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> Mixture:
    """The mixture for weighted points, with `SPREAD` and t tails. The number of components is by BIC.

    Args:
        z: Shape: (n, D).
        weights: Shape: (n,), their sum 1.
        rng: chooses where components begin.
    """
    best, least = None, math.inf
    for count in COMPONENTS:
        normals, criterion = _maximised(z, weights, count, rng)
        if best is None or criterion < least:
            best, least = normals, criterion
    return Mixture(best.shares, best.means, best.covariances * SPREAD)


def _maximised(z: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> tuple[Mixture, float]:
    """Up to `count` normals by expectation maximisation, and their BIC."""
    d, effective = z.shape[1], 1.0 / float((weights**2).sum())
    away = z - weights @ z
    everything = (away * weights[:, None]).T @ away + 1e-9 * np.eye(d)
    means = _begin(z / np.sqrt(np.diag(everything)), z, weights, count, rng)
    mixture = Mixture(
        np.full(len(means), 1.0 / len(means)),
        means,
        np.repeat(everything[None] / count ** (2 / d), len(means), 0),
        math.inf,
    )
    prior, worth = SHRINK * np.diag(np.diag(everything)), d + 2.0
    for _ in range(ROUNDS):
        parts = mixture.log_parts(z)
        member = np.exp(parts - np.logaddexp.reduce(parts, axis=1, keepdims=True)) * weights[:, None]
        kept = member.sum(0) * effective > FEWEST
        if kept.any():
            member = member[:, kept]
        shares = member.sum(0)
        means = (member.T @ z) / shares[:, None]
        covariances = np.empty((len(shares), d, d))
        for k, mean in enumerate(means):
            away = z - mean
            scatter = (away * member[:, [k]]).T @ away
            covariances[k] = (effective * scatter + worth * prior) / (effective * shares[k] + worth) + 1e-6 * np.eye(d)
        mixture = Mixture(shares / shares.sum(), means, covariances, math.inf)
    likelihood = float(weights @ np.logaddexp.reduce(mixture.log_parts(z), axis=1))
    parameters = len(mixture.shares) * (1 + d + d * (d + 1) / 2) - 1
    return mixture, -2.0 * effective * likelihood + parameters * math.log(max(effective, 2.0))


def _begin(scaled: np.ndarray, z: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points for components to begin at, far from each other (k-means++). Shape: (up to count, D)."""
    chosen = [rng.choice(len(z), p=weights)]
    while len(chosen) < count:
        away = np.min([((scaled - scaled[k]) ** 2).sum(1) for k in chosen], axis=0) * weights
        if not away.sum() > 0.0:
            break
        chosen.append(rng.choice(len(z), p=away / away.sum()))
    return z[chosen]
