"""When a careful driver changes lanes, and how it gets into a gap.

A change is *needed* where the lane does not lead to the destination, or something stands in it; it is *wanted* where
MOBIL finds the lane beside worth it (`agents.gap_acceptance`). Either begins only if every gap there is accepted now
and we are beside whoever is ahead in our lane before we reach them. Where a needed one cannot begin, a grid of plans,
to accelerate for some time and then to change, is checked against everybody's constant speed, and the gentlest plan
that ends in accepted gaps says how to drive until then.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from agents.gap_acceptance import (
    THRESHOLD,
    TIME_GAP,
    TRACKING,
    Gaps,
    incentive,
    sideways_limit,
    sideways_time,
    urgent_time_gap,
)
from agents.lane_path import SETTLED
from agents.lane_view import DRIFTS, FAR, LEFT, OWN, RIGHT, View, pick
from agents.shield import EGO_LENGTH, EGO_WIDTH

ACCELERATIONS = (-2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)  # m/s2, of plans
HORIZON = 10  # s, of plans, in steps of 1 s
PATIENCE = 0.25  # m/s2, for less than which nobody waits a second longer
SHORT = 20.0  # m of room that further changes lack, which count as much as 1 m/s2 in a plan
HEAD = 0.5  # s, that a plan keeps to the leader in the own lane

AHEAD_TIME, AHEAD_DISTANCE = 12.0, 40.0  # s and m to what stands in the lane, within which a change is needed
LONGER = 30.0  # m, by which another lane must be free farther to be of use
SWING = 12.0  # m, that are needed to swing out from a standstill
LANE_WIDTH = 4.0  # m, that further changes are taken to lead aside
PER_CHANGE, CHANGE_TIME = 20.0, 4.0  # m and s, at least, for every change that is needed
LEAST_FLOW = 10.0  # m/s, slower than which nobody drives for want of room where the road goes on

SLOWER = 0.9  # of the speed that we would like: who ahead is faster is no reason to change
BRAKES, NEAR = 0.5, 3.0  # m/s2 and s, of who is ahead and brakes or sways: a reason to wait
SLOWEST = 3.0  # m/s, for a change that is only wanted
RESTS = 10.0  # s, from the beginning of one change to another that is only wanted

CLEAR, TOUCH = 0.3, 0.1  # m, sideways, from what is passed, in the end and at least
LEFT_OVER = 1.0  # m, along, to what is passed when we are beside it
LEAST_TIME = 0.2  # s, for laws that divide by a time
ROLLS = 3.0  # m/s, which who starts is taken to have soon


# --- which lane -------------------------------------------------------------------------------------------------------


class Need(NamedTuple):
    """A change that is needed. Each (N,).

    Attributes:
        needed: bool.
        side: `LEFT` or `RIGHT`, int64.
        room: that is left on the own lane [m].
        time_gap: that is accepted [s].
    """

    needed: Tensor
    side: Tensor
    room: Tensor
    time_gap: Tensor


def needs(view: View) -> Need:
    """Where the destination, or what stands ahead, asks for another lane."""
    lanes, room = view.lanes, view.free_room()
    own = room[:, OWN]
    near = own < (AHEAD_TIME * view.speed.clamp(min=0) + AHEAD_DISTANCE).clamp(max=FAR)
    fewer = lanes.changes[:, LEFT:] < lanes.changes[:, :1]
    longer = (lanes.changes[:, LEFT:] == lanes.changes[:, :1]) & (room[:, LEFT:] > own[:, None] + LONGER)
    useful = (lanes.there[:, LEFT:] > 0) & (fewer | (longer & near[:, None]))
    side = torch.where(useful, 2 * FAR * fewer + room[:, LEFT:], -1.0).argmax(1) + LEFT
    return Need(useful.any(1), side, own, urgent_time_gap(own, lanes.changes[:, OWN].clamp(min=1)))


def wants(view: View, free: Tensor, law: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """MOBIL: whether a change is worth it without being needed, and to which side. Shape: (N,) bool, (N,) int64.

    Args:
        view: what is around.
        free: acceleration on an empty road [m/s2]. Shape: (N,).
        law: acceleration of a follower, from its speed, its leader's, their gap and its free acceleration.
    """
    seen, lanes, room = view.seen, view.lanes, view.free_room()
    own, others = seen.own_speed, seen.speed

    def behind(there: Tensor, gap: Tensor) -> Tensor:
        return torch.where(there, law(own, others, gap, free[:, None]), torch.inf).amin(1).minimum(free)

    leads = view.on_own() & (seen.along > 0)
    now = behind(leads, seen.gap)
    sways = (seen.sideways.abs() > DRIFTS) | (seen.acceleration < -BRAKES)
    waits = (leads & sways & (seen.gap < NEAR * own)).any(1)
    liked = torch.minimum(view.ego[:, 2], lanes.limit[:, OWN])
    held_up = (leads & (others < SLOWER * liked[:, None]) & (seen.gap < AHEAD_TIME * own)).any(1)

    gains = []
    for lane in (LEFT, RIGHT):
        there, along, gap = (each[..., lane - 1] for each in (view.on_side(), view.along, view.side_gap()))
        # The new follower has a free road now, and drives by our law.
        rear = torch.where(there & (along < 0), gap, FAR)
        nearest = rear.argmin(1, keepdim=True)
        space, its = rear.gather(1, nearest)[:, 0], others.gather(1, nearest)[:, 0]
        still = torch.zeros_like(its)
        follows = torch.where(space < FAR, law(its, own[:, 0], space, still), still)
        gain = incentive(behind(there & (along > 0), gap), now, follows, still)
        fits = (lanes.there[:, lane] > 0) & (lanes.opens[:, lane] <= 0)
        fits &= (lanes.changes[:, lane] <= lanes.changes[:, OWN]) & (room[:, lane] >= room[:, OWN])
        gains.append(torch.where(fits, gain, -torch.inf))
    gain, side = torch.stack(gains, 1).max(1)
    return held_up & ~waits & (gain > THRESHOLD) & (view.speed > SLOWEST), side + LEFT


# --- plans ------------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """The gentlest plan. Each (N,): `now` bool, the gaps are accepted now; `found` bool, they will be; until then
    `acceleration` [m/s2]."""

    now: Tensor
    found: Tensor
    acceleration: Tensor


@functools.cache
def _grid(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Acceleration and time of each plan, and by how much the speed and the place change, each (plans,)."""
    rates = torch.tensor(ACCELERATIONS, device=device)
    times = torch.arange(1.0, HORIZON + 1, device=device)
    rates, times = (each.reshape(-1) for each in torch.meshgrid(rates, times, indexing="ij"))
    none = rates.new_zeros(1)
    gained = torch.cat([none, rates * times, torch.zeros_like(rates)])
    moved = torch.cat([none, rates * times**2 / 2, rates * times**2 / 4])
    return torch.cat([none, rates, rates]), torch.cat([none, times, times]), gained, moved


def plans(speed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The grid of plans: begin now; accelerate for a time; accelerate for half of it, and the opposite for the rest.

    Args:
        speed: (N,) [m/s].

    Returns:
        Acceleration (at first) and time of each, (plans,) [m/s2, s]; the speed that is reached, negative where a plan
        would drive backwards, and the place, (N, plans) [m/s, m].
    """
    rates, times, gained, moved = _grid(speed.device)
    speed = speed.clamp(min=0)[:, None]
    backwards = speed + torch.minimum(gained, rates * times / 2) < 0
    return rates, times, torch.where(backwards, -1.0, speed + gained), speed * times + moved


def gentlest(accepted: Tensor, rates: Tensor, times: Tensor, cost: Tensor | float = 0.0) -> Plan:
    """The plan, among those accepted (N, plans), that takes least acceleration, time and further cost [m/s2]."""
    least, best = torch.where(accepted, rates.abs() + PATIENCE * times + cost, torch.inf).min(1)
    return Plan(accepted[:, 0], least < torch.inf, rates[best])


def plan(view: View, need: Need, top: Tensor, gaps: Gaps) -> Plan:
    """How to get into a gap of the lane on the side that is needed.

    Args:
        view: what is around.
        need: of another lane.
        top: the greatest speed of plans [m/s]. Shape: (N,).
        gaps: that are accepted.
    """
    seen, side, room = view.seen, need.side, need.room
    rates, times, reached, place = plans(view.speed)

    # (N, plans, M)
    along, there = pick(view.along, side - 1), pick(view.on_side(), side - 1)
    length = ((seen.length + EGO_LENGTH) / 2)[:, None]
    theirs, mine, time_gap = seen.speed[:, None], reached[..., None], need.time_gap[:, None, None]
    moved = theirs * times[:, None] - place[..., None]
    between = along[:, None] + moved
    needed = torch.where(between > 0, gaps.ahead(mine, theirs, time_gap), gaps.behind(theirs, mine, time_gap))
    accepted = (~there[:, None] | (between.abs() - length >= needed)).all(2)

    # What drives ahead in the own lane until then, and the room that the change itself takes.
    leads = (view.on_own() & ~view.standing & (seen.along > 0))[:, None]
    accepted &= (~leads | (seen.along[:, None] + moved - length >= LEFT_OVER + HEAD * mine)).all(2) | (times == 0)
    sideways = torch.where(side == RIGHT, view.ego[:, 4], -view.ego[:, 4])[:, None] * (times == 0)
    left = torch.where(room >= FAR, torch.inf, room)[:, None] - place - room_needed(reached, sideways)
    accepted &= (left >= 0) & (place >= pick(view.lanes.opens, side)[:, None])
    accepted &= (reached >= 0) & (reached <= torch.maximum(top, view.speed)[:, None])
    lacking = (room_for(reached, pick(view.lanes.changes, side)[:, None]) - left).clamp(min=0)
    return gentlest(accepted, rates, times, lacking / SHORT)


def gaps_accepted(
    view: View, side: Tensor, gaps: Gaps, time_gap: Tensor | float = TIME_GAP, share: float = 1.0
) -> Tensor:
    """Whether all gaps on a lane are accepted as they are. Shape: (N,) bool.

    Args:
        view: what is around.
        side: `LEFT` or `RIGHT`. Shape: (N,) int64.
        gaps: that are accepted.
        time_gap: see `agents.gap_acceptance.critical_gap` [s]. Shape: (N, 1), or a number.
        share: of these gaps that suffices.
    """
    along, there = pick(view.along, side - 1), pick(view.on_side(), side - 1)
    theirs, own = view.seen.speed, view.seen.own_speed
    needed = torch.where(along > 0, gaps.ahead(own, theirs, time_gap), gaps.behind(theirs, own, time_gap))
    return (~there | (pick(view.side_gap(), side - 1) >= share * needed)).all(1)


# --- room -------------------------------------------------------------------------------------------------------------


def room_needed(speed: Tensor, sideways: Tensor) -> Tensor:
    """From the beginning of a change to what stands in the lane, or its end [m].

    Args:
        speed: along the road [m/s].
        sideways: to the side of the change already [m/s].
    """
    time = sideways_time(torch.full_like(speed, EGO_WIDTH + CLEAR), sideways, speed) + TRACKING
    return (speed * time + LEFT_OVER).clamp(min=SWING)


def room_for(speed: Tensor, changes: Tensor) -> Tensor:
    """What further changes take, one right after the other [m]."""
    return changes * (speed * LANE_WIDTH / sideways_limit(speed).clamp(min=TOUCH)).clamp(min=PER_CHANGE)


def speed_for(room: Tensor, changes: Tensor) -> Tensor:
    """At which changes can be made one after the other within a room [m/s], `LEAST_FLOW` at least."""
    return (room / (changes.clamp(min=1) * CHANGE_TIME)).clamp(min=LEAST_FLOW)


def leaving(view: View, row: Tensor, room: Tensor) -> Tensor:
    """The most that we may accelerate to be over the line to lane `row` (N,) before our lane ends [m/s2]. Shape: (N,).

    2 (R - v t) / t^2, with the room R, the time t until our centre is over the line, and our speed v.
    """
    offset = pick(view.lanes.offset, row)
    side = torch.where(offset >= 0, 1.0, -1.0)
    distance = side * (offset + view.lanes.offset[:, OWN]) / 2
    time = sideways_time(distance, side * view.ego[:, 4], view.speed.clamp(min=ROLLS)).clamp(min=LEAST_TIME)
    return 2 * (room - view.speed * time) / time**2


def clearing(view: View, goal: Tensor) -> Tensor:
    """The most that we may accelerate to be beside others when we reach them, if we move aside now [m/s2].

    2 (d + s - v t) / t^2, with the gap d, the way s that they make in the time t until the boxes no longer overlap
    sideways, and our speed v. Infinite where somebody is beside our way and stays there, -infinite where our path does
    not lead past. Shape: (N, M).

    Args:
        view: what is around.
        goal: the line that we move to, from our centre to the right [m]. Shape: (N,).
    """
    seen, sideways = view.seen, view.ego[:, 4:5]
    side = torch.where(goal >= 0, 1.0, -1.0)[:, None]
    # How far to go until its box is beside ours.
    distance = (seen.width + EGO_WIDTH) / 2 + side * seen.across
    reaches = distance + CLEAR <= side * goal[:, None] + SETTLED
    # The car follows its path late, until it moves.
    speed = seen.own_speed.clamp(min=ROLLS)
    late = TRACKING * (1 - side * sideways / sideways_limit(speed)).clamp(0, 1)
    time = sideways_time(distance + TOUCH, side * sideways, speed) + late
    brakes = (-seen.acceleration).clamp(min=0)
    moves = torch.minimum(time, seen.speed.clamp(min=0) / brakes.clamp(min=1e-3))
    theirs = torch.where(seen.speed < 0, seen.speed * time, seen.speed * moves - brakes * moves**2 / 2)
    left = seen.gap - LEFT_OVER + theirs - seen.own_speed * time
    most = torch.where(reaches, 2 * left / time.clamp(min=LEAST_TIME) ** 2, -torch.inf)
    nearer = (torch.where(seen.across >= 0, 1.0, -1.0) * goal[:, None]).clamp(min=0)
    beside = (seen.clearance - nearer > TOUCH) & (seen.approach <= DRIFTS)
    return torch.where(beside | (reaches & (distance <= -TOUCH)), torch.inf, most)
