import math

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import (
    bootstrap_mean,
    clopper_pearson,
    compare_pairs,
    holm,
    interquartile_mean,
    mcnemar,
    newcombe,
    performance_profile,
    probability_of_improvement,
    sign_flip,
    stratified_bootstrap,
    trials_for_bound,
    zero_failure_bound,
)


@pytest.mark.parametrize("trials", [1, 2, 7, 200, 5_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_clopper_pearson_is_the_beta_quantile(trials, share, confidence):
    k = round(share * trials)
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else stats.beta.ppf(tail, k, trials - k + 1)
    high = 1.0 if k == trials else stats.beta.ppf(1 - tail, k + 1, trials - k)
    assert clopper_pearson(k, trials, confidence) == pytest.approx((low, high), rel=1e-7, abs=1e-12)


def test_clopper_pearson_of_many_trials():
    k, n = 100, 1_000_000
    expected = stats.beta.ppf(0.025, k, n - k + 1), stats.beta.ppf(0.975, k + 1, n - k)
    assert clopper_pearson(k, n) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("failures", "trials"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(failures, trials):
    with pytest.raises(ValueError, match="not a count"):
        clopper_pearson(failures, trials)


@pytest.mark.parametrize(("rate", "trials"), [(1e-2, 298), (1e-3, 2_994), (1e-4, 29_956)])
def test_episodes_without_failure(rate, trials):
    assert round(trials_for_bound(rate)) == trials
    enough = math.ceil(trials_for_bound(rate))
    assert zero_failure_bound(enough) <= rate < zero_failure_bound(enough - 1)
    assert zero_failure_bound(enough) == pytest.approx(stats.beta.ppf(0.95, 1, enough))


def test_bootstrap_of_normal_samples_is_the_normal_interval():
    values = np.random.default_rng(3).normal(10.0, 2.0, 2_000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert bootstrap_mean(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_bootstrap_is_the_same_every_time_and_exact_for_a_constant():
    values = np.random.default_rng(0).exponential(size=50)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(np.full(5, 3.25)) == (3.25, 3.25)


def runs(a: int, b: int, c: int, modulus: int, scale: float) -> np.ndarray:
    """Scores of 10 runs of 6 tasks, scattered but the same everywhere."""
    i, j = np.ogrid[:10, :6]
    return ((a * i + b * j * j + i**c * j) % modulus) / scale + 0.05 * j


A_RUNS, B_RUNS = runs(7, 3, 1, 23, 23.0), runs(5, 2, 2, 19, 22.0)


# The figures of rliable 1.2.0 for the same scores: its `get_interval_estimates` with 20,000 resamples (5,000 for the
# probability of improvement) and `create_performance_profile`, NumPy's generator seeded with 0.
RLIABLE_IQM = [(A_RUNS, 0.60391304, (0.50738949, 0.70485507)), (B_RUNS, 0.4580303, (0.39439394, 0.53348485))]
RLIABLE_IMPROVEMENT = 0.6125, (0.50166667, 0.71833333)
THRESHOLDS = np.array([0.2, 0.4, 0.5, 0.6, 0.8])
RLIABLE_PROFILE = (
    [0.88333333, 0.7, 0.65, 0.51666667, 0.28333333],
    [0.8, 0.58333333, 0.53333333, 0.4, 0.18333333],
    [0.95, 0.80041667, 0.76666667, 0.65, 0.4],
)


def test_interquartile_mean_is_that_of_rliable():
    for scores, value, interval in RLIABLE_IQM:
        assert interquartile_mean(scores) == pytest.approx(value, abs=1e-8)
        assert stratified_bootstrap(interquartile_mean, scores) == pytest.approx(interval, abs=0.006)


def test_probability_of_improvement_is_that_of_rliable():
    value, interval = RLIABLE_IMPROVEMENT
    assert probability_of_improvement(A_RUNS, B_RUNS) == pytest.approx(value, abs=1e-8)
    ours = stratified_bootstrap(probability_of_improvement, A_RUNS, B_RUNS, resamples=4_000)
    assert ours == pytest.approx(interval, abs=0.01)
    assert probability_of_improvement(A_RUNS, A_RUNS) == pytest.approx(0.5)


def test_performance_profile_is_that_of_rliable():
    def profile(scores):
        return performance_profile(scores, THRESHOLDS)

    assert profile(A_RUNS) == pytest.approx(RLIABLE_PROFILE[0], abs=1e-8)
    low, high = stratified_bootstrap(profile, A_RUNS)
    assert low == pytest.approx(RLIABLE_PROFILE[1], abs=0.02) and high == pytest.approx(RLIABLE_PROFILE[2], abs=0.02)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (3, 3), (1, 9), (12, 4), (40, 71), (300, 350)])
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    n = only_a + only_b
    expected = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [1, 5, 14])
def test_turned_signs_of_ranks_are_wilcoxons_test(n):
    values = np.random.default_rng(n).normal(0.4, 1.0, n)
    ranks = np.sign(values) * stats.rankdata(np.abs(values))
    assert sign_flip(ranks) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, rel=1e-9)
    assert sign_flip(np.append(ranks, 0.0)) == sign_flip(ranks)


@pytest.mark.parametrize("shift", [0.0, 0.15, 0.5])
def test_drawn_signs_are_close_to_all_of_them(shift):
    values = np.random.default_rng(2).normal(shift, 1.0, 60)
    ranks = np.sign(values) * stats.rankdata(np.abs(values))
    expected = stats.wilcoxon(values, method="exact").pvalue
    assert sign_flip(ranks) == pytest.approx(expected, abs=4 * math.sqrt(expected / 10_000) + 2e-4)
    assert sign_flip(ranks) == sign_flip(ranks)
    everything = stats.permutation_test(
        (values, np.zeros(60)), lambda a, b: (a - b).mean(), permutation_type="samples", n_resamples=9_999, rng=1
    )
    assert sign_flip(values) == pytest.approx(everything.pvalue, abs=0.02)


def test_no_difference_is_no_evidence():
    assert sign_flip(np.zeros(5)) == 1.0
    same = compare_pairs(np.ones(50), np.ones(50), "rate")
    assert (same.difference, same.p, same.equal) == (0.0, 1.0, 50) and same.low < 0 < same.high


def test_a_false_alarm_is_as_rare_as_it_says():
    generator = np.random.default_rng(0)
    skewed = generator.exponential(size=(400, 25)) - generator.exponential(size=(400, 25))
    alarms = sum(sign_flip(row, resamples=500) < 0.05 for row in skewed)
    assert alarms <= stats.binom.ppf(0.999, 400, 0.05) and alarms >= stats.binom.ppf(0.001, 400, 0.05)


@pytest.mark.parametrize("cells", [(0.02, 0.02, 0.02), (0.1, 0.05, 0.01), (0.4, 0.1, 0.2), (0.0, 0.03, 0.01)])
def test_newcombe_holds_the_true_difference(cells):
    both, only_b, only_a = cells
    counts = np.random.default_rng(1).multinomial(100, (*cells, 1 - sum(cells)), 2_000)
    intervals = [newcombe(int(row[0]), int(row[1]), int(row[2]), 100) for row in counts]
    held = np.mean([low <= only_b - only_a <= high for low, high in intervals])
    assert 0.93 <= held <= 1.0


def test_newcombe_without_pairs_in_common_is_wider_than_with_them():
    apart, together = newcombe(0, 10, 10, 100), newcombe(8, 2, 2, 100)
    assert apart[1] - apart[0] > together[1] - together[0]
    low, high = newcombe(5, 9, 2, 60)
    assert newcombe(5, 2, 9, 60) == pytest.approx((-high, -low))  # A and B in each other's place


def test_pairs():
    pairs = compare_pairs(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 5.0, 7.0]), "mean")
    assert (pairs.a, pairs.b, pairs.difference) == (2.5, 3.5, 1.0)
    assert (pairs.lower, pairs.equal, pairs.higher) == (1, 1, 2)
    assert pairs.p == 4 / 8  # of the signs of -1, 2, 3: sums of at least 4 are 6, 4, -4, -6
    rates = compare_pairs(np.array([0.0, 0, 1, 1, 0, 0]), np.array([1.0, 1, 1, 0, 1, 0]), "rate")
    assert rates.p == pytest.approx(mcnemar(1, 3)) and (rates.lower, rates.higher) == (1, 3)
    assert rates.low < rates.difference < rates.high


def test_holm_is_the_textbook_one():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []
    p = np.random.default_rng(0).uniform(size=(2_000, 8))
    assert np.mean([min(holm(row)) < 0.05 for row in p]) <= 0.065
