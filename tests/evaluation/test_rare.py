"""Rates of rare failures against closed forms, and the interval against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.rare_events import LateBraker, late_braking, naive_episodes, simulated, stopping_distance
from evaluation.rare import FREEDOM, Mixture, fitted, search, weighted_interval
from evaluation.search import Space
from evaluation.statistics import clopper_pearson


def corner(u: np.ndarray, side: float) -> np.ndarray:
    """At most 0 in a corner of the cube of that side."""
    return (1 - u).max(1) - side


def test_a_corner_of_rate_1e_4_is_found_and_measured_with_a_hundredth_of_the_episodes():
    assert naive_episodes() / 4000 > 100
    off = []
    for seed in range(5):
        found = search(lambda u: corner(u, 0.1), 4, budget=4000, seed=seed)
        assert found.episodes == 4000 == len(found.points) == len(found.scores)
        assert found.weights[found.scores[-len(found.weights) :] <= 0].sum() == pytest.approx(found.rate)
        assert found.effective > 100 and found.low < found.rate < found.high
        off.append(found.rate / 1e-4 - 1)
    assert max(map(abs, off)) < 0.3


def test_of_two_regions_neither_is_lost():
    rates = []
    for seed in range(4):
        found = search(lambda u: np.minimum(corner(u, 0.05), corner(1 - u, 0.03)), 3, seed=seed)
        failures = found.points[-len(found.weights) :][found.scores[-len(found.weights) :] <= 0]
        assert (failures > 0.9).all(1).any() and (failures < 0.1).all(1).any()
        rates.append(found.rate)
    assert np.mean(rates) == pytest.approx(0.05**3 + 0.03**3, rel=0.1)


def test_the_estimate_is_unbiased_and_its_interval_holds_it_where_failures_are_common():
    found = [search(lambda u: corner(u, 0.5), 2, budget=300, seed=seed) for seed in range(30)]
    rates = np.array([each.rate for each in found])
    assert abs(rates.mean() - 0.25) < 3 * rates.std() / math.sqrt(len(rates))
    assert np.mean([each.low <= 0.25 <= each.high for each in found]) > 0.9


def test_the_threshold_may_be_any_and_the_same_seed_finds_the_same():
    one, two = (search(lambda u: corner(u, 0.1) * 7 + 3, 2, threshold=3.0, budget=1000, seed=4) for _ in range(2))
    assert one.rate == two.rate == pytest.approx(0.01, rel=0.2)
    assert np.array_equal(one.points, two.points)


def test_only_the_valid_part_is_scored_and_counts():
    def score(u):
        assert (u[:, 0] < 0.5).all()
        return corner(u * (2, 1), 0.1)

    found = [search(score, 2, budget=1000, seed=seed, valid=lambda u: u[:, 0] < 0.5) for seed in range(10)]
    assert np.mean([each.rate for each in found]) == pytest.approx(0.01, rel=0.05)
    for each in found:
        assert each.valid_share == pytest.approx(0.5, abs=0.02) and 850 < each.episodes <= 1000


def test_without_failures_the_plain_draws_bound_the_rate():
    found = search(lambda u: 1 + u[:, 0], 3, budget=500, seed=0)
    assert found.rate == found.low == found.effective == 0.0 and not found.reached
    assert found.plain_failures == 0 and found.high == found.plain_high == clopper_pearson(0, found.plain)[1]


def test_no_weight_exceeds_the_defensive_bound():
    found = search(lambda u: corner(u, 0.1), 4, seed=1)
    assert found.weights.max() * len(found.weights) <= 10.0


def test_bad_input():
    for dimension, budget in ((0, 100), (2, 9)):
        with pytest.raises(ValueError, match="needs a dimension"):
            search(lambda u: u[:, 0], dimension, budget=budget)
    with pytest.raises(ValueError, match="as many numbers"):
        search(lambda u: np.full(len(u), np.nan), 2)
    with pytest.raises(ValueError, match="none of"):
        search(lambda u: u[:, 0], 2, valid=lambda u: np.zeros(len(u), dtype=bool))


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 30])
def test_with_equal_weights_the_interval_is_that_of_a_poisson_count(count):
    low, high = weighted_interval(np.full(count, 0.01))
    assert low == pytest.approx(0.01 * stats.chi2.ppf(0.025, 2 * count) / 2)
    assert high == pytest.approx(0.01 * stats.chi2.ppf(0.975, 2 * count + 2) / 2)


def test_the_interval_of_unequal_weights_is_that_of_fay_and_feuer():
    w = np.array([0.1, 0.3, 0.02, 0.4])
    y, v, m = w.sum(), (w**2).sum(), w.max()
    low, high = weighted_interval(w)
    assert low == pytest.approx(v / (2 * y) * stats.chi2.ppf(0.025, 2 * y**2 / v))
    upper = (v + m**2) / (2 * (y + m)) * stats.chi2.ppf(0.975, 2 * (y + m) ** 2 / (v + m**2))
    assert high == pytest.approx(upper)


@pytest.mark.parametrize("freedom", [math.inf, FREEDOM])
def test_densities_of_a_mixture_are_those_of_scipy_and_draws_follow_them(freedom):
    means = np.array([[0.0, 1.0], [4.0, -2.0]])
    covariances = np.array([[[1.0, 0.3], [0.3, 0.5]], [[0.2, -0.1], [-0.1, 0.4]]])
    mixture = Mixture(np.array([0.3, 0.7]), means, covariances, freedom)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(50, 2)) * 3
    for k, share in enumerate(mixture.shares):
        if math.isinf(freedom):
            expected = stats.multivariate_normal(means[k], covariances[k]).logpdf(z)
        else:
            expected = stats.multivariate_t(means[k], covariances[k], df=freedom).logpdf(z)
        np.testing.assert_allclose(mixture.log_parts(z)[:, k], np.log(share) + expected)
    drawn = mixture.draw([0, 4000], rng)
    scale = math.sqrt(covariances[1, 0, 0])
    law = stats.norm(4, scale) if math.isinf(freedom) else stats.t(freedom, 4, scale)
    assert stats.kstest(drawn[:, 0], law.cdf).pvalue > 1e-3


def test_as_many_components_are_fitted_as_there_are():
    rng = np.random.default_rng(1)
    z = np.concatenate([rng.normal(m, 0.3, (100, 2)) for m in (-3.0, 0.0, 3.0)])
    mixture = fitted(z, np.full(300, 1 / 300), rng)
    assert len(mixture.shares) == 3
    np.testing.assert_allclose(np.sort(mixture.means[:, 0]), (-3, 0, 3), atol=0.15)
    assert len(fitted(z[:100], np.full(100, 1 / 100), rng).shares) == 1
    # Points that all agree are a component too.
    assert np.isfinite(fitted(np.ones((20, 3)), np.full(20, 1 / 20), rng).covariances).all()


# --- the driver of the benchmark --------------------------------------------------------------------------------------


def test_a_late_driver_crashes_in_the_simulator_where_its_stopping_distance_says_so():
    family = late_braking()
    space, rng = Space(family), np.random.default_rng(0)
    points = rng.random((120, 3)) * (0.1, 0.1, 0.1)
    points[:, 0] = 1 - points[:, 0]  # around the fastest and the weakest, where it crashes
    drawn = [space.at(point) for point in points]
    speed, gap, weak = (np.array([p[name] for p in drawn]) for name in ("speed", "gap", "deceleration"))
    left = gap - stopping_distance(speed, weak)
    # Half a second, and v^2 / 2b: frames that move first go half a frame farther.
    np.testing.assert_allclose(gap - left, 0.5 * speed + speed**2 / (2 * weak) + speed * 0.025, atol=0.02)
    scores = simulated(family)(points)
    assert ((scores <= 0) == (left < 0)).all() and 5 < (left < 0).sum() < 60
    np.testing.assert_allclose(scores[left > 0.01], left[left > 0.01], atol=0.01)


def test_its_closed_form_has_the_rate_that_is_claimed():
    family, rng = late_braking(), np.random.default_rng(2)
    near = rng.random((200_000, 3)) * (0.2, 0.1, 0.2)  # all crashes are in this part of the cube
    near[:, 0] = 1 - near[:, 0]
    ranges = list(family.parameters.values())
    speed, gap, weak = (r.low + near[:, k] * (r.high - r.low) for k, r in enumerate(ranges))
    rate = (gap < stopping_distance(speed, weak)).mean() * 0.2 * 0.1 * 0.2
    assert rate == pytest.approx(1e-4, rel=0.05)
    assert LateBraker([5.0]).env_options["observation"] == "state"
