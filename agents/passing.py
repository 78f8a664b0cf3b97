"""When a careful driver passes what stands in its lane in that of oncoming traffic, on a road with one lane each way.

It swings out as far as it must and comes back behind what it passes. Everybody who comes towards it has either gone by
before it is in their way, or is far enough when it is back (`agents.gap_acceptance.passing_gap`).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from agents.gap_acceptance import TRACKING, sideways_time, time_over
from agents.lane_changes import AHEAD_DISTANCE, AHEAD_TIME, LEFT_OVER, ROLLS, SWING, Plan, gentlest, plans
from agents.lane_view import LEFT, OWN, SIDE_ROOM, View
from agents.shield import EGO_LENGTH, EGO_WIDTH

APART = 60.0  # m, within which what stands is passed at once
BEHIND = 2.0  # m, past what is passed before we come back
ONCOMING = 0.5  # m/s, towards us
MARGIN = 0.75  # m beyond the middle of the lane of oncoming traffic
BESIDE = 0.5  # m, sideways, from who comes towards us
PASSING_SPEED = 10.0  # m/s
PICK_UP = 1.0  # m/s2
ROAD = 100.0  # m, of lane that have to be left behind it: nobody passes a queue before a junction


class Obstruction(NamedTuple):
    """What stands in the lane and has not been passed. Each (N,).

    Attributes:
        there: bool.
        ahead: from our front to it [m].
        end: from our centre to its end [m].
        shift: from the middle of our lane to the line on which it is passed, negative, to the left [m].
    """

    there: Tensor
    ahead: Tensor
    end: Tensor
    shift: Tensor


def obstruction(view: View, room: float) -> Obstruction:
    """What stands in the lane under the ego, and what comes soon after it, to be passed with that room sideways [m]."""
    seen = view.seen
    half = (seen.length + EGO_LENGTH) / 2
    inside = view.beside_middle.abs() < (seen.width + EGO_WIDTH) / 2 + SIDE_ROOM
    stands = view.standing & inside & (seen.along > -half - BEHIND)
    first = torch.where(stands, seen.along - half, torch.inf).amin(1)
    stands = stands & (seen.along - half < first[:, None] + APART)
    end = torch.where(stands, seen.along + seen.length / 2, -torch.inf).amax(1)
    left = torch.where(stands, view.beside_middle - seen.width / 2, torch.inf).amin(1)
    there = stands.any(1)
    first, end, shift = (torch.where(there, value, 0.0) for value in (first, end, left - room - EGO_WIDTH / 2))
    return Obstruction(there, first, end, shift.clamp(max=0))


def may_pass(view: View, found: Obstruction) -> Tensor:
    """Whether it has to be passed, and can, in the lane of oncoming traffic. Shape: (N,) bool."""
    lanes = view.lanes
    near = found.ahead < AHEAD_TIME * view.speed.clamp(min=0) + AHEAD_DISTANCE
    fits = found.shift > lanes.offset[:, LEFT] - lanes.offset[:, OWN] - MARGIN
    alone = (lanes.there[:, LEFT] < 0) & (lanes.end[:, OWN] > found.end + ROAD)
    return found.there & near & fits & alone


def speed(view: View) -> Tensor:
    """At which it is passed, unless we are faster already [m/s]. Shape: (N,)."""
    return torch.minimum(view.ego[:, 2], view.lanes.limit[:, OWN]).clamp(max=PASSING_SPEED)


def plan(view: View, found: Obstruction, gap: Callable[[Tensor, Tensor], Tensor]) -> tuple[Plan, Tensor]:
    """How to get past an obstruction.

    Args:
        view: what is around.
        found: what is passed.
        gap: the gap that is accepted between the ego and who comes towards it, of their speeds [m].

    Returns:
        The plan, and whether nobody who comes towards the ego is in the way if it goes on now, (N,) bool.
    """
    seen = view.seen
    rates, times, reached, place = plans(view.speed)
    still, aside = torch.zeros_like(reached), -found.shift[:, None]
    out = sideways_time(still + aside, still, reached) + TRACKING
    top = speed(view)[:, None].expand_as(reached)
    way = (found.end[:, None] + EGO_LENGTH / 2 + BEHIND - place).clamp(min=0)
    beside = time_over(way, reached, PICK_UP, top)
    fast = torch.minimum((reached**2 + 2 * PICK_UP * way).sqrt(), torch.maximum(top, reached))
    home = sideways_time(still + aside, still, fast) + TRACKING
    back, reach = times + beside + home, place + way + fast * home

    accepted = (reached >= 0) & (found.ahead[:, None] - place >= (reached * out + LEFT_OVER).clamp(min=SWING))
    accepted &= reached <= torch.maximum(top, view.speed[:, None])
    # (N, plans, M)
    comes = seen.present & ~seen.person & (seen.speed < -ONCOMING) & (seen.along > -seen.length)
    length = ((seen.length + EGO_LENGTH) / 2)[:, None]
    theirs, mine = seen.speed[:, None], reached[..., None]
    # How far aside we may be when they come by.
    free = -(view.beside_middle + (seen.width + EGO_WIDTH) / 2 + BESIDE)[:, None]
    enters = times[:, None] + sideways_time(
        free.expand(-1, len(times), -1), torch.zeros_like(mine), mine.clamp(min=ROLLS)
    )
    gone = seen.along[:, None] + theirs * enters - place[..., None] - mine * (enters - times[:, None]) <= -length
    far = seen.along[:, None] + theirs * back[..., None] - reach[..., None] >= length + gap(fast[..., None], -theirs)
    in_the_way = free < aside[..., None]
    free_way = (~comes[:, None] | gone | far | ~in_the_way).all(2)
    return gentlest(accepted & free_way, rates, times), free_way[:, 0]
