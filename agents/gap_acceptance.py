"""Which gaps a careful driver accepts: in the lane beside, before a left turn, and to pass what stands in its lane.

Pure functions of tensors that broadcast against each other: speeds in m/s, gaps between bumpers in m, times in s.

    beside      UN Regulation 79, paragraph 5.6.4.7 (lane changes of ACSF category C): the one behind need not brake
                harder than 3 m/s2, 0.4 s after the change has begun, to stay farther away than who is in front drives
                in 1 s. Both the new follower and the new leader are judged by it.
    in need     as the end of the lane comes nearer, shorter time gaps are accepted, down to 0.56 s: Schakel, Knoop and
                van Arem, Integrated lane change model with relaxation and synchronization (LMRS), Transportation
                Research Record 2316 (2012)
    worth it    Kesting, Treiber and Helbing, General lane-changing model MOBIL for car-following models,
                Transportation Research Record 1999 (2007)
    left turn   critical headway of a left turn from the major street, 4.1 s: Highway Capacity Manual, 7th edition
                (2022), chapter 20; the same since its edition of 2000
    passing     1 s between who passes and who comes the other way, when it is back in its lane: Glennon, New and
                improved model of passing sight distance on two-lane highways, Transportation Research Record 1195
                (1988)
    sideways    at most 1 m/s2, and less than 5 s: UN Regulation 79, paragraph 5.6.4.6; drivers take 5 to 6 s: Toledo
                and Zohar, Modeling duration of lane changes, Transportation Research Record 1999 (2007)
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

REACTION, BRAKING, TIME_GAP = 0.4, 3.0, 1.0  # s, m/s2, s: UN R79's t_B, a and t_G
LEAST_TIME_GAP, URGENT = 0.56, 295.0  # s, m: LMRS's T_min and x_0
STANDING_GAP = 2.0  # m, that is added to it, as two who stand must not touch: IDM's s0
POLITENESS, THRESHOLD = 0.2, 0.2  # MOBIL's p, and the gain of acceleration that makes a change worth it [m/s2]
CRITICAL_HEADWAY = 4.1  # s
TURN_SLACK = 1.0  # s, between our clearing of a place and somebody else's arrival there
PASSING_CLEARANCE, PASSING_ROOM = 1.0, 0.8  # s, m
SIDEWAYS_ACCELERATION = 1.0  # m/s2
SIDEWAYS_SPEED = 1.2  # m/s: with that acceleration, 4.1 s over a lane of 3.5 m and 4.5 s over one of 4 m
STEEPEST = 0.45  # of the path across the lane: sideways speed as a share of the speed
TRACKING = 0.4  # s, by which a car follows its path late


class Gaps(NamedTuple):
    """Which gaps a driver accepts [m], as functions of the speeds of who is behind and of who is in front, and of the
    time gap, see `critical_gap`.

    Attributes:
        ahead: to its new leader.
        behind: to its new follower.
        oncoming: to who comes towards it, of both speeds, when it is back in its own lane.
        aside: sideways, to what it passes [m].
    """

    ahead: Callable[[Tensor, Tensor, Tensor | float], Tensor]
    behind: Callable[[Tensor, Tensor, Tensor | float], Tensor]
    oncoming: Callable[[Tensor, Tensor], Tensor]
    aside: float


def critical_gap(rear: Tensor, front: Tensor, time_gap: Tensor | float = TIME_GAP) -> Tensor:
    """The least gap between two in one lane when one of them has just changed into it [m].

    dv t_B + dv^2 / (2 a) + v_front t_G + s0, where dv is by how much the rear one is the faster, if it is. UN R79 has
    no s0: it is about speeds at which that does not matter.

    Args:
        rear: speed of the one behind, whoever changes lanes.
        front: speed of the one in front.
        time_gap: t_G [s].
    """
    closing = (rear - front).clamp(min=0)
    return closing * REACTION + closing**2 / (2 * BRAKING) + front.clamp(min=0) * time_gap + STANDING_GAP


def urgent_time_gap(room: Tensor, changes: Tensor) -> Tensor:
    """The time gap that is accepted in a change of lane that is needed [s]: from `TIME_GAP` to `LEAST_TIME_GAP`.

    Linear in LMRS's desire 1 - x / (n x_0), which is 0 at x_0 a change before the end of the lane and 1 there.

    Args:
        room: x, to where the lane ends [m].
        changes: n, that are needed until there, at least 1.
    """
    desire = (1 - room / (changes * URGENT)).clamp(0, 1)
    return TIME_GAP - (TIME_GAP - LEAST_TIME_GAP) * desire


def incentive(own: Tensor, own_now: Tensor, follower: Tensor, follower_now: Tensor) -> Tensor:
    """MOBIL's gain of a lane change, to be compared with `THRESHOLD` [m/s2].

    Args:
        own, own_now: acceleration of who changes, after it and as things are.
        follower, follower_now: the same of who would be behind it.
    """
    return own - own_now + POLITENESS * (follower - follower_now)


def time_over(distance: Tensor, speed: Tensor, acceleration: float, top: Tensor) -> Tensor:
    """How long a distance takes for who accelerates up to a speed, or keeps its own if that is higher [s].

    Args:
        distance: [m]; 0 s where it is not positive.
        speed: at the start, not negative.
        acceleration: above 0 [m/s2].
        top: above 0.
    """
    distance, top = distance.clamp(min=0), torch.maximum(top, speed).clamp(min=0.1)
    rise = (top**2 - speed**2) / (2 * acceleration)
    rising = ((speed**2 + 2 * acceleration * distance).sqrt() - speed) / acceleration
    return torch.where(distance < rise, rising, (top - speed) / acceleration + (distance - rise) / top)


def sideways_time(distance: Tensor, sideways: Tensor, speed: Tensor) -> Tensor:
    """How long it takes to move aside by a distance, without coming to rest there [s]. See `sideways_limit`.

    Args:
        distance: [m]; 0 s where it is not positive.
        sideways: speed to that side already.
        speed: along the road.
    """
    top = sideways_limit(speed).clamp(min=0.05)
    begin = torch.minimum(sideways.clamp(min=0), top)
    return time_over(distance, begin, SIDEWAYS_ACCELERATION, top)


def sideways_limit(speed: Tensor) -> Tensor:
    """The greatest sideways speed of a lane change [m/s]: in comfort, and of a path that a car can follow."""
    return (STEEPEST * speed.clamp(min=0)).clamp(max=SIDEWAYS_SPEED)


def accepts_turn(arrives: Tensor, leaves: Tensor, waits: Tensor, enters: Tensor, clears: Tensor) -> Tensor:
    """Whether to turn left in front of somebody who comes towards us, or behind them. Bool.

    In front: the headway is at least `CRITICAL_HEADWAY` from the place where we would wait, and we have cleared the
    crossing of the ways `TURN_SLACK` before they arrive. Behind: they have left it when we come.

    Args:
        arrives, leaves: when they reach the place where both ways cross, and when they have left it [s].
        waits: when we reach the place where we would wait [s].
        enters, clears: when we reach the crossing of the ways, and when we have cleared it, if we do not wait [s].
    """
    in_front = (arrives - waits >= CRITICAL_HEADWAY) & (arrives - clears >= TURN_SLACK)
    return in_front | (leaves + TURN_SLACK / 2 <= enters)


def passing_gap(own: Tensor, oncoming: Tensor) -> Tensor:
    """The least gap to who comes towards us when we are back in our lane [m].

    Args:
        own, oncoming: speeds, not negative.
    """
    return (own + oncoming) * PASSING_CLEARANCE
