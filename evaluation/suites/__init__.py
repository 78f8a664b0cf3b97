"""Suites of staged cases: families of scenes with parameters, from standards and from what others test.

`suite("ncap", count=100, seed=1_000_000)` draws 100 cases of each of its families, `case("cut-in/1000000-0042")` makes
one again from its id alone. docs/suites.md lists the families.
"""

from envs.errors import unknown
from envs.scenarios.stage import Case
from evaluation.suites import junctions, lane_changes, longitudinal, merging, vulnerable, works
from evaluation.suites.base import Family, Range, draw, drawn, parse

__all__ = ["FAMILIES", "SUITES", "Family", "Range", "case", "draw", "suite"]

_MODULES = (longitudinal, lane_changes, merging, junctions, vulnerable, works)
FAMILIES: dict[str, Family] = {family.name: family for module in _MODULES for family in module.FAMILIES}


def _names(*modules) -> tuple[str, ...]:
    return tuple(family.name for module in modules for family in module.FAMILIES)


_SIGNALS = ("red-light-runner", "amber-dilemma")
_JUNCTION = tuple(name for name in _names(junctions) if name not in _SIGNALS)

SUITES: dict[str, tuple[str, ...]] = {
    "r157": ("lead-stop", "cut-in", "cut-in-fast", "cut-out", "partial-blocker", "swerving-lead"),
    "ncap": tuple(name for name, family in FAMILIES.items() if family.source.startswith("Euro NCAP")),
    "highway": _names(longitudinal, lane_changes, merging),
    "merge": _names(merging),
    "junction": _JUNCTION,
    "signals": _SIGNALS,
    "vulnerable": _names(vulnerable),
    "works": _names(works),
    "town": _names(junctions, vulnerable, works),
    "all": tuple(FAMILIES),
}


def suite(name: str, count: int, seed: int) -> list[Case]:
    """The first `count` cases of every family of a suite under a seed, family after family.

    Raises:
        UserError: no suite of that name.
    """
    if name not in SUITES:
        raise unknown("suite", name, SUITES)
    return [case for family in SUITES[name] for case in draw(FAMILIES[family], count, seed)]


def case(id: str) -> Case:
    """The case of an id.

    Raises:
        UserError: the id is malformed, or there is no such family.
    """
    name, seed, number = parse(id)
    if name not in FAMILIES:
        raise unknown("family", name, FAMILIES)
    return drawn(FAMILIES[name], seed, number)
