"""Accepted gaps, against motion that is integrated step by step and the figures of their sources."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import gap_acceptance as gaps

DT = 1e-3  # s
SPEED = st.floats(0.0, 40.0)


def number(value):
    return torch.tensor(float(value), dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(SPEED, SPEED)
def test_the_one_behind_need_not_brake_harder_than_the_regulation_says(rear, front):
    """From the critical gap, 3 m/s2 after 0.4 s leave just what the front one drives in 1 s, and 2 m."""
    gap, speed, least, time = gaps.critical_gap(number(rear), number(front)).item(), rear, math.inf, 0.0
    while speed > front or time == 0.0:
        least = min(least, gap)
        slower = speed - (3.0 * DT if time >= 0.4 else 0.0)
        gap, speed, time = gap + (front - (speed + slower) / 2) * DT, slower, time + DT
    assert min(least, gap) == pytest.approx(front + 2.0, abs=0.05)


def test_the_figure_of_the_regulation():
    """UN R79, 5.6.4.7 at 130 km/h behind 100 km/h: 8.33 * 0.4 + 8.33^2 / 6 + 27.78 * 1 m."""
    gap = gaps.critical_gap(number(130 / 3.6), number(100 / 3.6)) - gaps.STANDING_GAP
    assert gap.item() == pytest.approx(30 / 3.6 * 0.4 + (30 / 3.6) ** 2 / 6 + 100 / 3.6)


def test_time_gaps_shrink_towards_the_end_of_the_lane():
    one, three = number(1), number(3)
    assert gaps.urgent_time_gap(number(400), one).item() == 1.0
    assert gaps.urgent_time_gap(number(0), one).item() == pytest.approx(0.56)
    assert gaps.urgent_time_gap(number(295 / 2), one).item() == pytest.approx(0.78)
    assert gaps.urgent_time_gap(number(295 / 2 * 3), three).item() == pytest.approx(0.78)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 60.0), st.floats(0.0, 20.0), st.floats(0.5, 25.0))
def test_time_over_a_distance(distance, speed, top):
    found = gaps.time_over(number(distance), number(speed), 2.0, number(top)).item()
    place, v, time = 0.0, speed, 0.0
    while place < distance:
        faster = max(v, min(v + 2.0 * DT, top))
        place, v, time = place + (v + faster) / 2 * DT, faster, time + DT
    assert found == pytest.approx(time, rel=1e-2, abs=5e-3)


def test_turns_are_accepted_from_the_critical_headway_on():
    """A second to the waiting place, two to the crossing of the ways, four until it is cleared."""
    times = [number(t) for t in (1.0, 2.0, 4.0)]

    def accepts(arrives, leaves):
        return gaps.accepts_turn(number(arrives), number(leaves), *times).item()

    assert accepts(5.11, 6.0) and not accepts(5.09, 6.0)
    # Behind somebody, and in the midst of them.
    assert accepts(0.5, 1.4) and not accepts(0.5, 1.6)
    # A slow turn needs more than the headway.
    slow = [number(t) for t in (1.0, 2.0, 6.0)]
    assert not gaps.accepts_turn(number(6.9), number(8.0), *slow) and gaps.accepts_turn(number(7.1), number(8.0), *slow)


def test_mobil_weighs_others():
    gain = [gaps.incentive(*(number(a) for a in each)).item() for each in ((1, 0.7, 0, 0), (1, 0.7, -2, 0))]
    assert gain == pytest.approx([0.3, 0.3 - 2 * gaps.POLITENESS])
    assert gain[0] > gaps.THRESHOLD > gain[1]


def test_sideways_motion_is_slower_at_low_speed():
    assert gaps.sideways_limit(number(30)).item() == 1.2
    assert gaps.sideways_limit(number(2)).item() == pytest.approx(0.9)
    # 1.2 m/s after 1.2 s and 0.72 m.
    assert gaps.sideways_time(number(0.72 + 2.4), number(0), number(30)).item() == pytest.approx(3.2)
