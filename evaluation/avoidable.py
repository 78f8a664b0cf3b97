"""Avoidable crashes: those of a policy in cases that a reference driver got through.

A raw collision rate puts a policy that ran into a standing car beside one that was hit by something nobody could have
avoided. The reference driver, a model of a careful human driver, tells the two apart: a crash is avoidable if the
reference did not crash in the same case. That makes it a statement relative to the reference, which is named with it.

Source: UN Regulation 157 asks for no collision that a "competent and careful human driver" would have avoided.
"""

from collections.abc import Iterable

import numpy as np

from evaluation.statistics import clopper_pearson, zero_failure_bound

# Drivers that may be the reference, the first that took part is.
REFERENCES = ("careful", "cc")


def reference_among(names: Iterable[str]) -> str | None:
    """Which of the policies that took part is the reference driver; None if none is."""
    names = list(names)
    return next((name for name in REFERENCES if name in names), None)


def is_avoidable(crashed: np.ndarray, reference_crashed: np.ndarray) -> np.ndarray:
    """True where the policy crashed in a case and the reference did not. Shapes: (E,)."""
    return (np.asarray(crashed) > 0) & ~(np.asarray(reference_crashed) > 0)


def avoidable(
    reference: str,
    crashed: np.ndarray,
    reference_crashed: np.ndarray,
    valid: np.ndarray | None = None,
    reference_valid: np.ndarray | None = None,
) -> dict:
    """Avoidable crashes of a policy, counted.

    Args:
        reference: name of the reference driver.
        crashed: 1 where the policy crashed, by case. Shape: (E,).
        reference_crashed: the same of the reference, in the same cases. Shape: (E,).
        valid, reference_valid: where these values mean something; everywhere by default. Shape: (E,).

    Returns:
        "reference": its name; "n": cases in which both values mean something; "crashes": of the policy in these;
        "count": how many of the crashes were avoidable; "value": count / n, or None without any case; "low", "high":
        its Clopper-Pearson interval; "bound": where count is 0, the one-sided bound.
    """
    counted = np.ones(len(crashed), dtype=bool)
    for part in (valid, reference_valid):
        counted &= True if part is None else np.asarray(part, dtype=bool)
    crashed, reference_crashed = np.asarray(crashed)[counted], np.asarray(reference_crashed)[counted]
    n, count = len(crashed), int(is_avoidable(crashed, reference_crashed).sum())
    found = {"reference": reference, "n": n, "crashes": int((crashed > 0).sum()), "count": count}
    if n == 0:
        return found | {"value": None, "low": None, "high": None}
    low, high = clopper_pearson(count, n)
    bound = {} if count else {"bound": zero_failure_bound(n)}
    return found | {"value": count / n, "low": low, "high": high} | bound
