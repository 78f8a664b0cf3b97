import numpy as np
import pytest
from scipy import stats

from evaluation.avoidable import avoidable, is_avoidable, reference_among


def test_a_crash_is_avoidable_if_the_reference_had_none():
    crashed, reference = np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0])
    assert is_avoidable(crashed, reference).tolist() == [False, True, False, False]
    found = avoidable("careful", crashed, reference)
    assert (found["reference"], found["n"], found["crashes"], found["count"]) == ("careful", 4, 2, 1)
    interval = stats.binomtest(1, 4).proportion_ci(method="exact")
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.25, interval.low, interval.high))
    assert "bound" not in found


def test_cases_without_a_value_do_not_count():
    crashed, reference = np.array([1.0, np.nan, 1, 0]), np.array([0.0, 0, np.nan, 0])
    found = avoidable("cc", crashed, reference, np.array([1, 0, 1, 1]), np.array([1, 1, 0, 1]))
    assert (found["n"], found["crashes"], found["count"]) == (2, 1, 1)
    assert avoidable("cc", crashed[:0], reference[:0])["value"] is None


def test_none_gets_a_bound():
    assert avoidable("cc", np.zeros(298), np.ones(298))["bound"] == pytest.approx(0.01, rel=1e-3)


def test_the_careful_driver_is_the_reference_before_the_other():
    assert reference_among(["mine", "cc", "careful"]) == "careful"
    assert reference_among(["mine", "cc"]) == "cc" and reference_among(["mine", "idm"]) is None
