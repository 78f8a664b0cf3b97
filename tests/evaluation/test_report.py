"""What the report says, beside what is tested of it in test_results.py and, in a browser, in test_report_browser.py."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from envs.scenarios.stage import Case
from evaluation import plots
from evaluation.endings import AT_FAULT, MISSED, NONE
from evaluation.failures import shared, telling, where
from evaluation.groups import ORDER, group_of, grouped
from evaluation.metrics import METRICS
from evaluation.report import html_report
from evaluation.results import Setting, document, evaluate
from evaluation.traces import FIRST, draw_traces
from evaluation.verdict import probability, verdict

SETTING = Setting("stage", "lanewise", episodes=40, seed=1_000_000, suite="highway")
FAMILY = "<b>new & odd</b>"  # not one of ours


@pytest.fixture
def outcome(make_worlds, policy):
    return evaluate(make_worlds, policy, "spec", dataclasses.replace(SETTING, suite=None), keep=2)


@pytest.fixture
def staged(outcome):
    """40 cases of two families; the first 25 of them are collisions."""
    cases = [
        Case(
            f"{family}/7-{number:04}",
            family,
            "road",
            0.0,
            0.0,
            0.0,
            20.0,
            20.0,
            parameters={"speed": 20.0 + number, "gap": 5.0 * (number % 3), "same": 1.0},
        )
        for family in ("cut-in", FAMILY)
        for number in range(20)
    ]
    return dataclasses.replace(outcome, name="mine", cases=cases, status=["ok"] * 40, errors=[""] * 40)


def crashing(staged, name: str, episodes: range):
    collision = np.zeros(40)
    collision[episodes] = 1.0
    place = np.where(collision[:, None] > 0, (30.0, 0.0, 0.0), np.nan)
    kind = np.where(collision > 0, AT_FAULT, NONE)
    ended = dataclasses.replace(staged.endings, kind=kind, failure=place)
    values = staged.values | {"collision": collision}
    return dataclasses.replace(staged, name=name, values=values, endings=ended, replays={})


def test_every_metric_stands_in_one_group():
    members = grouped(METRICS.values())
    assert [group for group, _ in members] == list(ORDER)
    assert sorted(metric.name for _, group in members for metric in group) == sorted(METRICS)
    assert members[0][1][0].name == "collision"
    for name in METRICS:
        if name.startswith(("rss", "minimum_t", "collision", "impact")):
            assert group_of(METRICS[name]) == "Safety"


def test_the_verdict_tells_avoidable_crashes_and_the_worst_families(staged):
    reference = crashing(staged, "careful", range(20, 30))
    better = crashing(staged, "idm", range(0))
    headline, sentences = verdict(SETTING, [staged, better, reference])
    said = " ".join(sentences)
    assert headline.startswith("mine collided in 25 of 40 cases: 62.5 %")
    assert "idm 0.0 % (lower, p < 0.001), careful 25.0 % (lower, p = 0.004)" in said
    # The reference crashed in 5 of the 25.
    assert "20 of its 25 crashes were avoidable, in 50.0 % of the cases (95 % interval 33.8 to 66.2 %)" in said
    assert f"It collided in 2 of 2 families, most often in cut-in (20 of 20), {FAMILY} (5 of 20)." in said
    same = crashing(staged, "careful", range(25))
    assert "None of its 25 crashes was avoidable" in " ".join(verdict(SETTING, [staged, same])[1])
    assert "no difference shown, p = 1.00" in " ".join(verdict(SETTING, [staged, same])[1])


def test_faults_are_in_the_verdict(staged):
    status = ["ok"] * 38 + ["policy raised", "not finite"]
    broken = dataclasses.replace(staged, status=status, errors=[""] * 40)
    said = " ".join(verdict(SETTING, [broken])[1])
    assert "mine had faults in 2 cases: policy raised in 1, not finite in 1." in said
    lost = dataclasses.replace(staged, valid={name: np.zeros(40, bool) for name in METRICS})
    assert verdict(SETTING, [lost, staged])[0] == "mine drove no case that says anything."


def test_crashes_that_the_reference_had_too(staged):
    reference = crashing(staged, "cc", range(20, 30))
    assert np.flatnonzero(shared([staged, reference])).tolist() == [20, 21, 22, 23, 24]
    assert not shared([staged]).any() and not shared([staged, crashing(staged, "idm", range(40))]).any()
    shown = where(SETTING, [staged, reference])
    assert "grey: cc crashed too" in shown
    # In the key, over the parameters, and on the road.
    assert shown.count('<g class="mark shared') == 1 + 5 + 5


def test_the_parameters_that_tell_failures_are_shown(staged):
    parameters = [case.parameters for case in staged.cases[:20]]
    fast = np.array([case["speed"] > 35 for case in parameters])
    assert telling(parameters, fast) == ("speed", "gap")
    assert telling([{"same": 1.0}, {"same": 1.0}], np.array([True, False])) == ("", "")
    shown = where(SETTING, [staged])
    assert "A car from the next lane cuts in: 20 of 20 failed" in shown
    assert "&lt;b&gt;new &amp; odd&lt;/b&gt;: 5 of 20 failed" in shown
    assert "cut-in/7-0000 (episode 0)" in shown
    assert where(SETTING, [crashing(staged, "mine", range(0))]) == ""


def test_faults_without_a_place_are_counted(staged):
    nowhere = np.where(np.arange(40) < 3, -1, staged.endings.map)
    kind = np.where(np.arange(40) < 3, NONE, staged.endings.kind)
    lost = dataclasses.replace(staged, endings=dataclasses.replace(staged.endings, map=nowhere, kind=kind))
    shown = where(SETTING, [lost])
    assert "3 episodes have no place: the policy or the simulator raised an error." in shown
    assert "cuts in: 17 of 17 failed" in shown


def test_the_report_of_a_suite(staged):
    outcomes = [staged, crashing(staged, "careful", range(0))]
    content = html_report(SETTING, outcomes, document(SETTING, outcomes, {}), {}, Path("out"))
    text = re.sub(r"<[^>]+>", " ", content)
    assert "<b>new" not in content and "A car from the next lane cuts in" in text
    assert text.index("mine collided in 25") < text.index("Families") < text.index("Figures") < text.index("Where on")
    assert '<i class="down" title="the tested policy is worse, p &lt; 0.001">▼</i> 0.0' in content
    for group in ("Safety", "Comfort", "Progress", "Scores"):  # these worlds have no rules
        assert f">{group}<" in content


def test_probabilities():
    assert [probability(p) for p in (0.0002, 0.0021, 0.04, 0.5, 1.0)] == [
        "p < 0.001",
        "p = 0.002",
        "p = 0.040",
        "p = 0.50",
        "p = 1.00",
    ]


def test_a_scatter_of_one_value_is_drawn():
    kinds = [MISSED, NONE, AT_FAULT]
    picture = plots.scatter(np.zeros(3), np.ones(3), kinds, [False, False, True], ["a", "b", "c"], ("x [m]", ""))
    order = [picture.index(words) for words in ('class="s0 fine"', 'class="mark k4', 'class="mark shared')]
    assert order == sorted(order) and "nan" not in picture and "↑" not in picture


def test_traces_show_what_has_been_so_far(outcome):
    replay = outcome.replays[0]  # closes in on the car ahead until it hits it

    def pixels(frame: int, colour: tuple) -> np.ndarray:
        return (draw_traces(replay, frame, 960, 170) == colour).all(-1)

    last = len(replay) - 1
    assert pixels(last, FIRST).shape == (170, 960)
    now, later = pixels(2, FIRST)[:, :480], pixels(last, FIRST)[:, :480]
    assert 0 < now.any(0).sum() < later.any(0).sum()  # the curve of the TTC grows
    assert np.flatnonzero(later.any(1)).max() > np.flatnonzero(now.any(1)).max()  # and falls
    head = [draw_traces(replay, frame, 960, 170)[:30].astype(int) for frame in (2, last)]
    assert [(picture[..., 0] - picture[..., 1]).max() > 80 for picture in head] == [False, True]  # "crashed", in red
    # The action is IDLE all the time, the second of five rows.
    rows = np.flatnonzero(pixels(last, FIRST)[:, 600:].any(1))
    assert 38 + 114 / 5 < rows.min() and rows.max() < 38 + 2 * 114 / 5
