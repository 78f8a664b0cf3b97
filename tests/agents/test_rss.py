"""RSS's safe distances: ad-rss-lib's own numbers, and what they promise."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import rss
from agents.rss import AD_RSS, R157

# The package's rows are of two vehicles with the same numbers.
EQUALS = (
    dataclasses.replace(AD_RSS, response_time_other=1.0),
    dataclasses.replace(R157, lateral_acceleration=1.0),
    rss.RSSParameters("third", 0.5, 0.5, 2.0, 3.5, 9.0, 2.0, 0.4, 0.4, 1.2, 0.2, 1.5, "none"),
)
THIRD = EQUALS[2]
# What the Python package ad-rss 5.0.0 (ad_rss.rss.structured) computes from: number of the parameters, speed, speed of
# the other, lateral speed of the left one and of the right one [m/s]; the same direction with the first behind, the
# opposite direction with the first in its own lane, beside each other [m].
AD_RSS_SAYS = [
    (1, 28.157413685, 2.948798666, -2.920992051, 2.024814493, 98.28809305, 104.320352144, 0.0),
    (2, 11.670930645, 10.544893247, 2.973869013, -0.178418955, 24.344046958, 72.286684238, 6.133079575),
    (0, 37.640765307, 21.435894391, 0.834408843, -2.096301456, 222.242488544, 422.395275016, 7.195086569),
    (1, 28.568729623, 39.062038821, 0.139087262, 1.447511137, 0.0, 273.783796929, 0.276420174),
    (1, 0.0, 19.627283998, 0.759889745, -1.193842809, 0.0, 56.714467594, 5.356945371),
    (0, 32.121765908, 9.500624265, 1.989647582, 0.441194114, 186.844175367, 277.734453483, 4.8450513),
    (2, 0.0, 44.128609058, 0.032522242, 2.991053672, 1.5, 315.255926744, 0.0),
    (0, 0.0, 20.981269336, 1.075688388, -0.884538102, 0.0, 101.439504543, 4.012478839),
    (2, 19.54585407, 42.757252487, 2.564263286, -1.667455582, 1.5, 412.212746754, 7.05275188),
    (2, 8.533042557, 11.63803623, -1.87688552, 1.228405893, 11.474560929, 57.622401599, 0.0),
    (2, 14.037296603, 20.841917555, 0.155642733, 0.252443577, 16.93901745, 144.122445425, 0.304300309),
    (2, 24.269454009, 38.841240715, -0.320074959, -0.043863906, 21.29204164, 419.952311224, 0.186673475),
]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("row", AD_RSS_SAYS)
def test_distances_are_those_of_ad_rss(row):
    number, own, other, left, right, same, opposite, beside = row
    p = EQUALS[number]
    torch.testing.assert_close(rss.longitudinal(tensor(own), tensor(other), p), tensor(same), atol=1e-6, rtol=0)
    torch.testing.assert_close(rss.opposite(tensor(own), tensor(other), p), tensor(opposite), atol=1e-6, rtol=0)
    torch.testing.assert_close(rss.lateral(tensor(left), tensor(-right), p), tensor(beside), atol=1e-6, rtol=0)


def test_closed_forms():
    # At rest: what 1 s at 3.5 m/s2 and stopping from 3.5 m/s with 4 m/s2 take.
    assert rss.longitudinal(tensor(0.0), tensor(0.0), AD_RSS).item() == pytest.approx(1.75 + 3.5**2 / 8)
    # Sideways at rest the ego may come 0.1 + 0.2^2 / 1.6 m nearer and the other, which takes 2 s, 0.4 + 0.4^2 / 1.6.
    ways = (0.1 + 0.04 / 1.6) + (0.4 + 0.16 / 1.6)
    assert rss.lateral(tensor(0.0), tensor(0.0), AD_RSS).item() == pytest.approx(ways + 0.1)
    # Nobody is too near whom nobody reaches.
    assert rss.longitudinal(tensor(5.0), tensor(40.0), AD_RSS).item() == 0
    assert rss.lateral(tensor(-3.0), tensor(-3.0), AD_RSS).item() == 0


def least_gap(gap, speed, leader, p, dt=0.01):
    """The least distance to a leader who brakes at once, of a follower who responds as badly as RSS allows."""
    least = gap
    for k in range(10_000):
        acceleration = p.acceleration if k * dt < p.response_time - 1e-9 else -p.brake_min
        faster, slower = max(0.0, speed + acceleration * dt), max(0.0, leader - p.brake_max * dt)
        gap += (leader + slower - speed - faster) / 2 * dt
        speed, leader = faster, slower
        least = min(least, gap)
        if speed == 0 and leader == 0:
            return least
    raise AssertionError("nobody stops")


@given(speed=st.floats(0, 45), leader=st.floats(0, 45), extra=st.floats(0, 20), number=st.integers(0, 2))
def test_a_safe_distance_is_enough_and_no_longer_than_it_has_to_be(speed, leader, extra, number):
    p = EQUALS[number]
    safe = rss.longitudinal(tensor(speed), tensor(leader), p).item()
    # A frame in which somebody comes to rest is not resolved.
    assert least_gap(safe + extra, speed, leader, p) > -0.01
    if safe > p.margin + 0.5 and p is not THIRD:
        assert least_gap(safe - 0.5, speed, leader, p) < 0


@given(st.floats(0, 45), st.floats(0, 45), st.floats(0, 5), st.floats(-3, 3), st.floats(-3, 3))
def test_distances_grow_with_what_brings_two_together(speed, other, more, left, right):
    for p in (AD_RSS, R157):
        assert rss.longitudinal(tensor(speed + more), tensor(other), p) >= rss.longitudinal(
            tensor(speed), tensor(other), p
        )
        assert rss.longitudinal(tensor(speed), tensor(other + more), p) <= rss.longitudinal(
            tensor(speed), tensor(other), p
        )
        assert rss.opposite(tensor(speed), tensor(other + more), p) >= rss.opposite(tensor(speed), tensor(other), p)
        assert rss.lateral(tensor(left + more), tensor(right), p) >= rss.lateral(tensor(left), tensor(right), p)
