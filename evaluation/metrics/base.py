"""What a metric is: a pure function from a trajectory to one value an episode, and how to read that value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from evaluation.trajectory import Trajectory


class Result(NamedTuple):
    """One value an episode, and whether it means anything."""

    value: Tensor  # Shape: (N,), float
    valid: Tensor  # Shape: (N,), bool; where False the value is to be ignored


@dataclass(frozen=True)
class Metric:
    """A metric and what a table needs to know about it.

    Attributes:
        name: key in results.json and column of episodes.parquet.
        title: as a person reads it.
        unit: "" for none; values in "%" are shares of 1.
        kind: "rate" for values of 0 and 1, reported as a share with a Clopper-Pearson interval; "mean" for any others.
        better: "lower", "higher", or "" where neither is.
        definition: one sentence for the report.
        compute: the function.
        threshold: a value below which an episode counts as critical, or None.
        limit: a value above which an episode counts as critical, or None.
        source: of the formula and the threshold.
        digits: decimals to be shown.
        everywhere: False where it is left out of a report in which it is valid in no episode.
    """

    name: str
    title: str
    unit: str
    kind: str
    better: str
    definition: str
    compute: Callable[[Trajectory], Result]
    threshold: float | None = None
    limit: float | None = None
    source: str = ""
    digits: int = 2
    everywhere: bool = True
