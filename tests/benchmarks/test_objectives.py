"""The comparison of objectives: what its figures are made of."""

import math

import pytest
from rich.console import Console

from benchmarks import objectives
from benchmarks.objectives import GUESS, RANDOM, Args, skills, tables

PLACES = [(test, figure) for test in objectives.TESTS for figure in ("lane_offset MAE", "lead_presence AUROC")]


def found(**names: tuple[float, float]) -> objectives.Found:
    """Mean error of the lane offset and AUROC of the lead's presence, the same in both tests; 0.01 more a seed."""
    return {
        name: {place: {seed: values[k % 2] + 0.01 * seed for seed in range(2)} for k, place in enumerate(PLACES)}
        for name, values in names.items()
    }


def test_skill_is_the_share_of_the_guess_error_that_is_gone():
    everything = found(constant=(0.4, 0.5), random=(0.4, 0.5), atc=(0.1, 0.9))
    expected = [((1 - (0.1 + s) / (0.4 + s)) + (1 - (0.1 - s) / (0.5 - s))) / 2 for s in (0.0, 0.01)]
    assert skills(everything, "atc", "maps") == pytest.approx(expected)
    assert skills(everything, RANDOM, "maps") == pytest.approx([0.0, 0.0])
    assert skills(found(constant=(0.4, 0.5), bad=(40.0, 0.5)), "bad", "maps")[0] == pytest.approx(-0.5)  # not below -1


def test_the_best_stands_first_and_groups_are_paired_by_seed():
    everything = found(constant=(0.4, 0.5), random=(0.4, 0.5), mae=(0.3, 0.6), atc=(0.1, 0.9))
    console = Console(record=True, width=120)
    for table in tables(everything, Args(objectives=("mae", "atc"))):
        console.print(table)
    text = console.export_text()
    assert text.index("atc") < text.index("mae") < text.index(RANDOM)
    over, moment = (skills(everything, name, "episodes") for name in ("atc", "mae"))
    difference = sum(a - b for a, b in zip(over, moment, strict=True)) / 2
    assert f"{difference:.3f} (" in text and math.isfinite(difference)
    assert GUESS in text
