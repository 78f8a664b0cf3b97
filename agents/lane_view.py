"""What a driver who changes lanes looks at: the observations "traffic" and "lanes", and who is on which lane."""

from typing import NamedTuple

import torch
from torch import Tensor

from agents.shield import EGO_LENGTH, EGO_WIDTH, Surroundings
from envs.errors import UserError

OWN, LEFT, RIGHT = range(3)  # rows of `Lanes`, and with 1 less columns of `View.along` and `View.across`
SIDE_ROOM = 0.4  # m, between the boxes, within which somebody beside a lane is in the way on it
STANDS = 0.3  # m/s
DRIFTS = 0.15  # m/s, sideways, above which somebody is on the way to another lane
JOINS = 3.0  # s, within which who comes towards a lane is taken to be on it
FAR = 500.0  # m, a distance that stands for none
OTHERS = 10  # columns of "traffic" that are those of "surroundings"


def pick(values: Tensor, row: Tensor) -> Tensor:
    """Of each world its entry `row` (N,) of the last dimension. Shape: (N, K) to (N,), or (N, M, K) to (N, M)."""
    if values.ndim == 2:
        return values.gather(1, row[:, None])[:, 0]
    return values.gather(2, row[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


class Lanes(NamedTuple):
    """The lanes `OWN`, `LEFT` and `RIGHT`, as `envs.sensors.lane_choice.LANE` has them. Each (N, 3)."""

    there: Tensor
    offset: Tensor
    turn: Tensor
    changes: Tensor
    room: Tensor
    opens: Tensor
    end: Tensor
    limit: Tensor
    lower: Tensor
    lower_from: Tensor
    blind: Tensor


class Meetings(NamedTuple):
    """Where those who come towards us cross our way, as `envs.sensors.lane_choice.TRAFFIC` has it. Each (N, M)."""

    meets: Tensor
    way_in: Tensor
    way_out: Tensor
    other_in: Tensor
    other_out: Tensor
    crossing: Tensor


class View(NamedTuple):
    """All that a driver who changes lanes looks at.

    Attributes:
        seen: everybody along the way from the lane under the ego.
        lanes: that lane and those beside it.
        along: centre to centre along the lanes on the left and the right [m]. Shape: (N, M, 2).
        across: from the middle of those lanes to the right [m]. Shape: (N, M, 2).
        sideways: velocity across those lanes, to the right [m/s]. Shape: (N, M, 2).
        meetings: with who comes towards us.
        ego: the observation "ego". Shape: (N, 8).
    """

    seen: Surroundings
    lanes: Lanes
    along: Tensor
    across: Tensor
    sideways: Tensor
    meetings: Meetings
    ego: Tensor

    @classmethod
    def of(cls, obs: dict[str, Tensor]) -> "View":
        """Read the observations "traffic" (N, M, 22), "lanes" (N, 3, 11) and "ego" (N, 8).

        Raises:
            UserError: the worlds do not give them.
        """
        if not {"traffic", "lanes", "ego"} <= set(obs):
            raise UserError(
                "these worlds have no observations 'surroundings', 'traffic' and 'lanes': reference drivers need "
                "staged cases"
            )
        around, beside, meetings = obs["traffic"].split((OTHERS, 2 * 3, len(Meetings._fields)), 2)
        seen = Surroundings.of({"surroundings": around, "ego": obs["ego"]})
        sides = (beside[..., column::3] for column in range(3))
        return cls(seen, Lanes(*obs["lanes"].unbind(2)), *sides, Meetings(*meetings.unbind(2)), obs["ego"])

    @property
    def speed(self) -> Tensor:
        """Of the ego [m/s]. Shape: (N,)."""
        return self.ego[:, 0]

    @property
    def beside_middle(self) -> Tensor:
        """Centres of the others to the right of the middle of the lane under the ego [m]. Shape: (N, M)."""
        return self.seen.across - self.lanes.offset[:, :1]

    @property
    def standing(self) -> Tensor:
        """Vehicles that stand, and things. Shape: (N, M) bool."""
        seen = self.seen
        slow = (seen.speed.abs() < STANDS) & (seen.sideways.abs() < STANDS)
        return seen.present & ~seen.person & (seen.still | slow)

    def side_gap(self) -> Tensor:
        """Gap along the lanes on the left and the right, negative where the boxes overlap [m]. Shape: (N, M, 2)."""
        return self.along.abs() - (self.seen.length + EGO_LENGTH)[..., None] / 2

    def on_side(self) -> Tensor:
        """Whether somebody is in the way on the lanes on the left and the right, or soon. Shape: (N, M, 2) bool."""
        seen = self.seen
        beside = self.across.abs() - ((seen.width + EGO_WIDTH) / 2 + SIDE_ROOM)[..., None]
        towards = -self.sideways * torch.where(self.across >= 0, 1.0, -1.0)
        joins = (towards > DRIFTS) & (beside < towards * JOINS)
        return seen.present[..., None] & ((beside <= 0) | joins)

    def on_own(self) -> Tensor:
        """Whether somebody is in the way of who keeps to the middle of the lane under the ego. Shape: (N, M) bool."""
        seen = self.seen
        return seen.present & (self.beside_middle.abs() < (seen.width + EGO_WIDTH) / 2 + SIDE_ROOM)

    def free_room(self) -> Tensor:
        """From our front along each lane to what stands there, or to where it no longer leads on [m]. Shape: (N, 3)."""
        ends = torch.where(self.lanes.changes > 0, self.lanes.room - EGO_LENGTH / 2, FAR)
        return torch.minimum(self._standing_ahead(), ends).clamp(max=FAR)

    def halting_room(self) -> Tensor:
        """From our front along our lane to what stands there, or to the end of the road [m]. Shape: (N,)."""
        ends = torch.where(self.lanes.blind[:, OWN] > 0, self.lanes.room[:, OWN] - EGO_LENGTH / 2, FAR)
        return torch.minimum(self._standing_ahead()[:, OWN], ends).clamp(max=FAR)

    def _standing_ahead(self) -> Tensor:
        along = torch.stack([self.seen.along, *self.along.unbind(2)], 2)
        there = torch.stack([self.on_own(), *self.on_side().unbind(2)], 2) & self.standing[..., None] & (along > 0)
        gap = along - (self.seen.length + EGO_LENGTH)[..., None] / 2
        return torch.where(there, gap, torch.inf).amin(1)
