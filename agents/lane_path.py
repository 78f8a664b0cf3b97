"""The path of a driver who changes lanes: a reference point that moves to a line, and the steering that follows it.

The point moves sideways with limited speed and acceleration (`agents.gap_acceptance.sideways_limit`), wherever the line
is; so a change can be broken off, or go on into the next lane, at any time. The law of lane keeping
(`envs.physics.control`) follows the point as it would the middle of a lane, with the point's own speed added.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from agents.gap_acceptance import SIDEWAYS_ACCELERATION, sideways_limit
from agents.lane_view import FAR, OWN, View, pick
from envs.physics import control
from envs.physics.actions import STEERING_RANGE

SETTLED, RESTING = 0.05, 0.1  # m and m/s, with less than which the point has arrived
EASES = 0.8  # share of the acceleration with which the point comes to rest, so that it does not overshoot
JUMP = 1.0  # m, by which a line may seem to move in a step while it is the same
WALKING = 1.5  # m/s; slower than this the law would swing from side to side between two decisions


class Path(NamedTuple):
    """What drivers remember of their changes of lane. Each (N,).

    Attributes:
        active: bool, the path leads to another line than the middle of the present lane.
        goal: that line, from the ego's centre to the right [m].
        shift: that line from the middle of its lane to the right [m].
        place, speed: of the reference point, from that line to the right [m, m/s].
        age: since the last change began [s].
    """

    active: Tensor
    goal: Tensor
    shift: Tensor
    place: Tensor
    speed: Tensor
    age: Tensor

    @classmethod
    def straight(cls, like: Tensor) -> "Path":
        """Of drivers who have kept their lane for long; `like` (N,) has their type and device."""
        zero = torch.zeros_like(like)
        return cls(zero > 0, zero, zero, zero, zero, zero + FAR)

    def where(self, mask: Tensor, other: "Path") -> "Path":
        """This path where `mask` (N,), else the other."""
        return Path(*(torch.where(mask, mine, theirs) for mine, theirs in zip(self, other, strict=True)))

    def lane(self, view: View, step: float) -> Tensor:
        """The row of the lane that it leads to, by where its middle should be a step of time [s] later. Shape: (N,)."""
        predicted = self.goal - self.shift - view.ego[:, 4] * step
        beside = (view.lanes.there > 0) & (view.lanes.opens <= 0)
        beside[:, OWN] = True
        away = torch.where(beside, (view.lanes.offset - predicted[:, None]).abs(), torch.inf)
        return torch.where(self.active, away.argmin(1), OWN)

    def towards(self, view: View, row: Tensor, shift: Tensor, begin: Tensor) -> "Path":
        """The path that leads, where `begin`, to `shift` m right of the middle of lane `row` from now on. Each (N,).

        The point goes on from where it is; where there was none, from the ego.
        """
        goal = pick(view.lanes.offset, row) + shift
        point = torch.where(self.active, self.goal + self.place, 0.0)
        speed = torch.where(self.active, self.speed, view.ego[:, 4])
        new = Path(begin | self.active, goal, shift, point - goal, speed, torch.zeros_like(goal))
        return new.where(begin, self)

    def advance(self, view: View, row: Tensor, step: float) -> "Path":
        """A step of time [s] later; `row` (N,) is the lane that it leads to."""
        goal = pick(view.lanes.offset, row) + self.shift
        # Where the lane that it led to is none any more, the point stays where it is.
        jump = self.goal - view.ego[:, 4] * step - goal
        place = torch.where(jump.abs() > JUMP, self.place + jump, self.place)
        # As fast as allows it to stop at the line, and to arrive there within steps.
        stopping = (2 * EASES * SIDEWAYS_ACCELERATION * place.abs()).sqrt()
        wanted = torch.minimum(torch.minimum(sideways_limit(view.speed), stopping), place.abs() / (2 * step))
        change = SIDEWAYS_ACCELERATION * step
        speed = self.speed + (-torch.sign(place) * wanted - self.speed).clamp(-change, change)
        place = place + speed * step
        arrived = (place.abs() < SETTLED) & (speed.abs() < RESTING) & (self.shift == 0)
        active = self.active & ~arrived
        return Path(
            active, goal, self.shift, torch.where(active, place, 0.0), torch.where(active, speed, 0.0), self.age + step
        )

    def steering(self, view: View, row: Tensor) -> Tensor:
        """The command that follows it; `row` (N,) is the lane that it leads to. Shape: (N,)."""
        speed = view.speed.clamp(min=WALKING)
        sine = ((self.speed + control.LATERAL_GAIN * (self.goal + self.place)) / speed).clamp(-1, 1)
        limit = control.MAX_HEADING_REFERENCE
        turn = torch.asin(sine).clamp(-limit, limit) + pick(view.lanes.turn, row)
        slip = (control.HALF_LENGTH * control.HEADING_GAIN / speed * turn).clamp(
            -control.MAX_SIN_SLIP, control.MAX_SIN_SLIP
        )
        return (torch.atan(2 * torch.tan(torch.asin(slip))) / STEERING_RANGE[1]).clamp(-1, 1)
