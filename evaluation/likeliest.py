"""The likeliest failure: of all points of a standard normal space that are failures, the one nearest to its middle.

A point z has a score, which is at or below 0 for failures and else a miss distance, and a log-likelihood of -|z|^2 / 2
beside that of the middle. The search maximises the reward of adaptive stress testing,

    log-likelihood, less weight * (miss distance + MISS) where there was no failure

by the cross-entropy method with what is known of failures at hand: a normal distribution with a variance of its own
in each coordinate is fitted to the elite, the best of all points so far, and the next batch is drawn from it. The
weight begins low, so that near misses that are likely lead the search and not the first failure, which is mostly an
unlikely one; it rises while the elite has few failures, and falls while it has many. Half of a batch are children of
failures: a parent that takes some of its coordinates from a new draw and is then drawn a little towards the middle.

It finds a failure and says how likely its path is. It is no estimate of a rate: how many other paths fail, it does not
know. There is no promise that the failure is the likeliest either; another seed is a check.

Sources: Lee et al., Adaptive Stress Testing of Airborne Collision Avoidance Systems (DASC 2015) and Adaptive Stress
Testing: Finding Likely Failure Events with Reinforcement Learning (JAIR 69, 2020), the reward; Koren et al., Adaptive
Stress Testing for Autonomous Vehicles (IV 2018), other road users as what is disturbed; Rubinstein and Kroese, The
Cross-Entropy Method (2004). They search a tree or train a policy; a batch of whole sequences suits worlds that are
simulated by the hundred.
"""

import numpy as np

# Chosen on draws of cut-in, cut-out, cut-in-fast and red-light-runner with the drivers idm and careful.
BATCH = 50  # points
ELITE = 10  # of them
SMOOTHING = 0.7  # weight of the newest fit
LEAST_VARIANCE = 1e-3  # added to every fit
WEIGHT, RISE, FALL = 2.0, 1.5, 1.2  # log-likelihood a metre at first, and its factors from batch to batch
FEW, MANY = 0.3, 0.7  # shares of failures in the elite, below and above which it rises and falls
MISS = 0.2  # m, that a miss counts more than its distance
FARTHEST = 50.0  # m, of misses; beyond it all are alike
CHILDREN = 0.5  # share of a batch
MIXED = 0.6  # greatest share of a child's coordinates that is drawn anew
SHRINK = 0.1  # standard deviation of the share by which children are drawn towards the middle


class Search:
    """Ask for points, tell their scores, and so on. D: dimensions.

    Args:
        most: greatest of every coordinate, either way. Shape: (D,).
        rng: of the draws.

    Attributes:
        points: all so far. Shape: (n, D).
        scores: of them. Shape: (n,).
    """

    def __init__(self, most: np.ndarray, rng: np.random.Generator):
        self._most, self._rng = most, rng
        self.points, self.scores = np.empty((0, len(most))), np.empty(0)
        self._mean, self._variance = np.zeros(len(most)), np.ones(len(most))
        self._weight = WEIGHT
        self._elite = np.empty(0, dtype=int)

    def ask(self, count: int = BATCH) -> np.ndarray:
        """The next points; the very first is the middle. Shape: (count, D)."""
        points = self._drawn(count)
        parents = self._elite[self.scores[self._elite] <= 0.0]
        if len(parents):
            children = round(CHILDREN * count)
            points[:children] = self._children(self.points[self._rng.choice(parents, children)])
        if not len(self.scores):
            points[0] = 0.0
        return points.clip(-self._most, self._most)

    def tell(self, points: np.ndarray, scores: np.ndarray) -> None:
        """Scores of points that were asked for. Shapes: (n, D), (n,)."""
        self.points, self.scores = np.concatenate([self.points, points]), np.concatenate([self.scores, scores])
        missed = self.scores > 0.0
        costs = 0.5 * (self.points**2).sum(1)
        costs += self._weight * missed * (self.scores.clip(max=FARTHEST) + MISS)
        self._elite = np.argsort(costs, kind="stable")[:ELITE]
        elite = self.points[self._elite]
        self._mean += SMOOTHING * (elite.mean(0) - self._mean)
        self._variance += SMOOTHING * (elite.var(0) - self._variance) + LEAST_VARIANCE
        share = 1.0 - missed[self._elite].mean()
        if share < FEW:
            self._weight *= RISE
        elif share > MANY:
            self._weight /= FALL

    def failures(self) -> np.ndarray:
        """Numbers of the points that are failures, the likeliest first."""
        failed = np.flatnonzero(self.scores <= 0.0)
        return failed[np.argsort((self.points[failed] ** 2).sum(1), kind="stable")]

    def _drawn(self, count: int) -> np.ndarray:
        return self._mean + np.sqrt(self._variance) * self._rng.standard_normal((count, len(self._mean)))

    def _children(self, parents: np.ndarray) -> np.ndarray:
        rng, count = self._rng, len(parents)
        anew = rng.random(parents.shape) < MIXED * rng.random((count, 1))
        shrunk = 1.0 - SHRINK * np.abs(rng.standard_normal((count, 1)))
        return np.where(anew, self._drawn(count), parents) * shrunk
