"""The cases in which the driver models of UN R157 are compared: four grids, 36,941 cases in all.

    cut-in-low     ego 20-60 km/h by 10, other from 10 km/h to that by 10, gap 1-59 m by 1, sideways 0-1.7 m/s by .1
    cut-in-high    ego 70-130 km/h by 20, other from 10 km/h to that by 30, gap 1-119 m by 2, sideways likewise
    cut-out        10-130 km/h by 10, blocker 2-147 m ahead of the leader by 5, lateral speed .1-2.9 m/s by .2
    car-following  12-128 km/h by 2, leader braking with .05-.95 g by .05

The ego starts at 0 m along and 0 m across its lane and would hold its speed. What the others do does not depend on it
and is laid down here, step by step; 10 steps a second. Positions are of the boxes' centres.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from agents.r157 import GRAVITY, WANDERING, Driver

FREQUENCY = 10
LENGTH, WIDTH = 4.3, 1.9  # m, of every vehicle but the blocker
BLOCKER = 5.0  # m; the published program leaves that of the standing vehicle at its default
STEPS = 350
LANE = 3.5  # m from the middle of one lane to that of the next
AWAY = 4.0  # m that a vehicle cuts out
LATERAL_ACCELERATION = 1.5  # m/s2 with which a cut-in begins
KMH = 3.6


class Cases(NamedTuple):
    """What sets the cases of a grid apart. Every field has the shape (N,) and is float64."""

    ego_kmh: torch.Tensor
    other_kmh: torch.Tensor
    """Of the vehicle that cuts in, or of the leader until it brakes or is gone."""
    gap_m: torch.Tensor
    """To the vehicle that cuts in, once it has its lateral speed; from the leader to the blocker; to the leader."""
    lateral_ms: torch.Tensor
    """Lateral speed of the vehicle that cuts in or out; 0 in car-following."""
    braking_g: torch.Tensor
    """Deceleration of the leader as a multiple of g; 0 but in car-following."""


class Others(NamedTuple):
    """What the ego has to do with, over time. Every field has the shape (steps, N)."""

    along: torch.Tensor
    """[m]"""
    across: torch.Tensor
    """[m]"""
    speed: torch.Tensor
    """Along the lane [m/s]."""
    approach: torch.Tensor
    """Across the lane, towards the ego's [m/s]."""
    half_length: torch.Tensor
    """Of its box [m]."""
    counts: torch.Tensor
    """The ego knows of it, and the case is not over. bool"""


@dataclass(frozen=True)
class Grid:
    """A scenario's cases and how they go."""

    cases: Callable[[Driver], Cases]
    """The cases for a driver. Only the distance at which it follows depends on which one."""
    others: Callable[[Cases, Driver], Others]
    evident: bool
    """The danger is evident (a leader brakes, a standing vehicle comes into view): `Driver.danger_ahead` decides."""


def _product(*columns) -> list[torch.Tensor]:
    return list(torch.tensor(list(itertools.product(*columns)), dtype=torch.float64).unbind(1))


def _tenths(first: int, last: int, step: int = 1) -> list[float]:
    return [value * 0.1 for value in range(first, last + 1, step)]


def _cut_in_cases(egos: range, step: int, gaps: range) -> Cases:
    rows = [(ego, *row) for ego in egos for row in itertools.product(range(10, ego, step), gaps, _tenths(0, 17))]
    ego, other, gap, lateral = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return Cases(ego, other, gap, lateral, torch.zeros_like(ego))


def _cut_in(cases: Cases, driver: Driver) -> Others:
    """The other gathers lateral speed, then crosses to the ego's lane with it.

    It starts so that it is `gap_m` ahead and in the middle of its lane when it has its full lateral speed.
    """
    speed, lateral = cases.other_kmh / KMH, cases.lateral_ms
    gain = LATERAL_ACCELERATION / FREQUENCY
    gathering = (lateral / gain).ceil()  # rounded up as published: one step more for .3, .6 and 1.2 m/s
    crossing = torch.where(lateral > 0, (LANE * FREQUENCY / lateral).floor() + 1, STEPS)
    k = torch.arange(STEPS + int(gathering.max()), dtype=torch.float64)[:, None]
    approach = torch.minimum(k * gain, lateral) * (k <= gathering + crossing)
    crossed = (approach * (k > gathering)).cumsum(0) / FREQUENCY
    outwards = (gathering * (gathering - 1) - k * (k - 1)).clamp_min(0) * gain / 2 / FREQUENCY
    across = LANE - crossed + outwards
    gained = (cases.ego_kmh - cases.other_kmh) / KMH * gathering / FREQUENCY  # by the ego until then
    along = cases.gap_m + LENGTH + gained + speed * k / FREQUENCY
    half = torch.full_like(along, LENGTH / 2)
    return Others(along, across, speed.expand_as(along), approach, half, k < STEPS + gathering)


def _following_cases(driver: Driver) -> Cases:
    braking, ego = _product([value / 100 for value in range(5, 100, 5)], range(12, 130, 2))
    return Cases(ego, ego, driver.keeps(ego / KMH), torch.zeros_like(ego), braking)


def _following(cases: Cases, driver: Driver) -> Others:
    """The leader brakes until it stands."""
    k = torch.arange(STEPS, dtype=torch.float64)[:, None]
    speed = (cases.ego_kmh / KMH - k * cases.braking_g * GRAVITY / FREQUENCY).clamp_min(0)
    along = cases.gap_m + LENGTH + (speed.cumsum(0) - speed[0]) / FREQUENCY
    still = torch.zeros_like(speed)
    half = torch.full_like(along, LENGTH / 2)
    return Others(along, still, speed, still, half, torch.ones_like(still, dtype=torch.bool))


def _cut_out_cases(driver: Driver) -> Cases:
    ego, gap, lateral = _product(range(10, 131, 10), range(2, 148, 5), _tenths(1, 29, 2))
    return Cases(ego, ego, gap, lateral, torch.zeros_like(ego))


def _cut_out(cases: Cases, driver: Driver) -> Others:
    """The leader pulls out, and a standing vehicle comes into view; or it does not make it and is what stands there.

    As published, the leader and the ego have gone one step when the clock starts.
    """
    speed, lateral = cases.ego_kmh / KMH, cases.lateral_ms
    k = torch.arange(STEPS, dtype=torch.float64)[:, None]
    leader = driver.keeps(speed) + LENGTH + speed * k / FREQUENCY
    blocker = (leader[0] + cases.gap_m + LENGTH - speed / FREQUENCY).expand_as(leader)
    moving = (AWAY * FREQUENCY / lateral).floor() + 1
    across = torch.minimum(k + 1, moving) * lateral / FREQUENCY
    touches = (across < WIDTH) & ((blocker - leader).abs() < (BLOCKER + LENGTH) / 2)
    crashed = touches.cumsum(0) > 0
    first = torch.where(crashed.any(0), crashed.int().argmax(0), 0)
    wreck = [position.gather(0, first[None]).expand_as(leader) for position in (leader, across)]
    still = torch.zeros_like(leader)
    return Others(
        along=torch.where(crashed, wreck[0], blocker),
        across=torch.where(crashed, wreck[1], still),
        speed=still,
        approach=still,
        half_length=torch.where(crashed, LENGTH / 2, BLOCKER / 2).to(leader.dtype),
        counts=crashed | (across > WANDERING),
    )


GRIDS: dict[str, Grid] = {
    "cut-in-low": Grid(lambda driver: _cut_in_cases(range(20, 61, 10), 10, range(1, 60)), _cut_in, evident=False),
    "cut-in-high": Grid(lambda driver: _cut_in_cases(range(70, 131, 20), 30, range(1, 120, 2)), _cut_in, evident=False),
    "cut-out": Grid(_cut_out_cases, _cut_out, evident=True),
    "car-following": Grid(_following_cases, _following, evident=True),
}
