import math

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import bootstrap_mean, clopper_pearson, trials_for_bound, zero_failure_bound


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
