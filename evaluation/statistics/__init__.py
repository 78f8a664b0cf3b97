"""Statistics: intervals of single figures, aggregates over tasks and runs, and paired comparisons of two policies."""

from evaluation.statistics.aggregates import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from evaluation.statistics.intervals import (
    CONFIDENCE,
    bootstrap_mean,
    clopper_pearson,
    trials_for_bound,
    zero_failure_bound,
)
from evaluation.statistics.paired import Pairs, compare_pairs, holm, mcnemar, newcombe, paired_p, sign_flip

__all__ = [
    "CONFIDENCE",
    "Pairs",
    "bootstrap_mean",
    "clopper_pearson",
    "compare_pairs",
    "holm",
    "interquartile_mean",
    "mcnemar",
    "newcombe",
    "paired_p",
    "performance_profile",
    "probability_of_improvement",
    "sign_flip",
    "stratified_bootstrap",
    "trials_for_bound",
    "zero_failure_bound",
]
