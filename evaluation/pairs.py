"""Pairs of the ego and something else that may concern it, found among everything in every frame.

Most of what is in a world has nothing to do with the ego. Bounds that are cheap and never too tight, taken over a few
frames at a time so that they stay in a core's cache, leave the few pairs that measures then look at exactly.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from envs.state import LANDMARK
from evaluation.geometry import Boxes
from evaluation.lanes import grouped
from evaluation.ways import TURNED, Places, project

if TYPE_CHECKING:
    from evaluation.trajectory import Trajectory

CHUNK = 1 << 16  # places that are looked at at a time
HORIZON = 3.0  # s: who keeps its velocity and is not met within this does not close in
SIGHT = 250.0  # m from the ego in which others are looked at on networks
BESIDE = 8.0  # m between their sides, across its way
BOXES = 8.0  # m: what the ego's place on its way and half of both boxes add to that
# Bounds of the distances of RSS under both sets of numbers, a + b v + c v^2 of a speed v (see `metrics.rss`): sideways,
# to who is ahead, to who comes towards the ego, for that one's part, and to who is behind [m].
SIDEWAYS, FOLLOWING, MEETING, MET, FOLLOWED = (
    (1.0, 2.5, 0.65), (3.3, 1.9, 0.126), (3.9, 2.2, 0.168), (15.3, 4.4, 0.168), (13.2, 3.8, 0.126),
)  # fmt: skip
HARDEST = 16.0  # m/s2, twice the hardest braking that RSS reckons with


class Pairs(NamedTuple):
    """Pairs of the ego and another, on the ego's way: x along it from the ego's centre, y to the right of its middle,
    headings from its direction. Every field is of P pairs."""

    index: Tensor  # of the other in a flattened (T, N, V)
    row: Tensor  # of the frame and world in a flattened (T, N)
    ego: Boxes
    other: Boxes

    def where(self, wanted: Tensor) -> "Pairs":
        """Those that are wanted. Shape of `wanted`: (P,), bool."""
        rows = wanted.nonzero()[:, 0]
        boxes = (Boxes(*(part[rows] for part in box)) for box in (self.ego, self.other))
        return Pairs(self.index[rows], self.row[rows], *boxes)


class Nearness(NamedTuple):
    """How near vehicles are on the ego's way, and how fast, while the ego moves. Every field is of P pairs."""

    row: Tensor  # of the frame and world in a flattened (T, N)
    ahead: Tensor  # bool
    gap: Tensor  # between the boxes along the way, negative where they overlap [m]
    beside: Tensor  # between their sides, negative where they overlap [m]
    along: Tensor  # speed of the ego along its way [m/s]
    other_along: Tensor  # of the other, in the same direction [m/s]
    sideways: Tensor  # speed of the ego towards the other's side [m/s]
    other_sideways: Tensor  # of the other towards the ego's side [m/s]
    crosses: Tensor  # bool: the other is turned more than 45 degrees from the way, whichever way it drives along it


class Finder:
    """Finds pairs in a trajectory of T frames, N worlds and V slots.

    Args:
        trajectory: whose others; with `ways`, places are on the ego's way, else on the plane.

    Attributes:
        concerning: indices of what may be in the ego's way, or nearer to it than RSS has it, in a flattened (T, N, V).
        closing: indices of what the ego's box may touch within 3 s if both keep their velocity in the plane.
        turned: greatest difference between any two headings [rad].
    """

    def __init__(self, trajectory: "Trajectory"):
        self._t = trajectory
        self._lines: list[Tensor] = []
        if trajectory.ways is not None:
            self._follow()
        self.concerning, self.closing, self.turned = self._search()

    def _follow(self) -> None:
        """Find the way that every ego is on in every frame, and its place there."""
        t, ways = self._t, self._t.ways
        x, y, heading, lane = (part[..., 0].reshape(-1) for part in (t.x, t.y, t.heading, t.lane))
        routes = {route: number for number, route in enumerate(dict.fromkeys(t.routes))}
        route = torch.tensor([routes[one] for one in t.routes], device=x.device).expand(t.driving.shape).reshape(-1)
        wanted = t.driving.reshape(-1).nonzero()[:, 0]
        lanes, names = len(ways.road), list(routes)
        # Off its lanes an ego goes straight on; its place is then where it is.
        self._way = torch.full_like(lane, -1, dtype=torch.int64)
        self._ego = Places(*(torch.zeros_like(x) for _ in range(3)))
        for number, rows in grouped((route * lanes + lane)[wanted]) if ways.followed else ():
            rows = wanted[rows]
            line = torch.from_numpy(ways.line(number % lanes, names[number // lanes])).to(x)
            at = project(x[rows], y[rows], heading[rows], line)
            turn = torch.remainder(at.heading + torch.pi, 2 * torch.pi) - torch.pi
            on = (turn.abs() <= TURNED) & (at.across.abs() <= ways.width(number % lanes))
            for part, values in zip(self._ego, at, strict=True):
                part[rows[on]] = values[on]
            self._way[rows[on]] = len(self._lines)
            self._lines.append(line)

    def _corners(self) -> Tensor:
        """The box around the way of every ego, with what is beside it: least x and y, greatest x and y [m]. Shape:
        (T, N, 1, 4)."""
        t = self._t
        corners = t.x.new_empty((len(self._lines) + 1, 4))
        for row, line in zip(corners, self._lines, strict=False):
            # Both ends go on straight.
            first, last = (SIGHT * (a - b) / (a - b).norm() for a, b in (line[:2], line[-2:].flip(0)))
            points = torch.cat([line, line[:1] + first, line[-1:] + last])
            row[:2], row[2:] = points.amin(0) - BESIDE - BOXES, points.amax(0) + BESIDE + BOXES
        corners[-1] = torch.tensor([-torch.inf, -torch.inf, torch.inf, torch.inf])
        return corners[self._way].view(*t.driving.shape, 1, 4)

    def chunks(self) -> Iterator[slice]:
        """The frames that matter, a few at a time."""
        last = int(self._t.hit_frame.max()) + 1  # what comes later concerns nobody
        frames = max(1, CHUNK // self._t.x[0].numel())
        return (slice(start, min(start + frames, last)) for start in range(0, last, frames))

    def _search(self) -> tuple[Tensor, Tensor, float]:
        t = self._t
        slots = t.x[0].numel()
        corners = self._corners() if t.ways is not None else None
        concerning, closing, least, most = [], [], [], []
        for part in self.chunks():
            x, y, heading, speed, length, width, kind = (
                getattr(t, name)[part] for name in ("x", "y", "heading", "speed", "length", "width", "kind")
            )
            other = (kind != 0) & (kind != LANDMARK) & t.driving[part, :, None]
            other[..., 0] = False
            least.append(heading.amin())
            most.append(heading.amax())
            cos, sin = heading.cos(), heading.sin()
            dx, dy = x - x[..., :1], y - y[..., :1]
            velocity = speed * cos, speed * sin
            reach = 0.5 * (length + width)
            near = _may_meet(dx, dy, *velocity, reach) & other
            if corners is None:
                far = _may_concern(other, dx, dy, *velocity, sin, length, width, reach)
            else:
                x0, y0, x1, y1 = corners[part].unbind(-1)
                far = other & (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & (dx * dx + dy * dy <= SIGHT**2)
            offset = part.start * slots
            concerning.append(far.view(-1).nonzero()[:, 0] + offset)
            closing.append(near.view(-1).nonzero()[:, 0] + offset)
        turned = float(torch.stack(most).max() - torch.stack(least).min())
        return torch.cat(concerning), torch.cat(closing), turned

    def on_the_way(self, index: Tensor) -> Pairs:
        """Pairs on the ego's way.

        Args:
            index: of the others, in a flattened (T, N, V). Shape: (P,).
        """
        t = self._t
        row = index.div(t.x.shape[-1], rounding_mode="floor")
        (x, x0), (y, y0), (heading, heading0), (length, length0), (width, width0) = (
            (part.reshape(-1)[index], part[..., 0].reshape(-1)[row])
            for part in (t.x, t.y, t.heading, t.length, t.width)
        )
        zero = torch.zeros_like(x)
        if t.ways is None:
            ego = Boxes(zero, y0, heading0, length0, width0)
            return Pairs(index, row, ego, Boxes(x - x0, y, heading, length, width))
        cos, sin, dx, dy = heading0.cos(), heading0.sin(), x - x0, y - y0
        along, across, turned = dx * cos + dy * sin, dy * cos - dx * sin, heading - heading0
        way, own = self._way[row], Places(*(part[row] for part in self._ego))
        for number, rows in grouped(way):
            if number >= 0:
                at = project(x[rows], y[rows], heading[rows], self._lines[number])
                along[rows] = at.along - own.along[rows]
                across[rows], turned[rows] = at.across, at.heading
        ego = Boxes(zero, own.across, own.heading, length0, width0)
        return Pairs(index, row, ego, Boxes(along, across, turned, length, width))

    def in_the_plane(self, index: Tensor) -> Pairs:
        """Pairs where they are in the plane, turned such that +x and +y stay: x and y from the ego's centre."""
        t = self._t
        row = index.div(t.x.shape[-1], rounding_mode="floor")
        (x, x0), (y, y0), (heading, heading0), (length, length0), (width, width0) = (
            (part.reshape(-1)[index], part[..., 0].reshape(-1)[row])
            for part in (t.x, t.y, t.heading, t.length, t.width)
        )
        ego = Boxes(torch.zeros_like(x), torch.zeros_like(x), heading0, length0, width0)
        return Pairs(index, row, ego, Boxes(x - x0, y - y0, heading, length, width))


def _parabola(speed: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    a, b, c = coefficients
    return a + speed * (b + c * speed)


def _may_meet(dx: Tensor, dy: Tensor, vx: Tensor, vy: Tensor, reach: Tensor) -> Tensor:
    """Whether circles around both boxes touch within the horizon, at constant velocity."""
    vx, vy = vx - vx[..., :1], vy - vy[..., :1]
    reach = reach + reach[..., :1]
    speed, distance, reach2 = vx * vx + vy * vy, dx * dx + dy * dy, reach * reach
    towards, aside = dx * vx + dy * vy, dx * vy - dy * vx
    soon = distance <= (reach + HORIZON * speed.sqrt()) ** 2
    return (distance <= reach2) | ((towards < 0) & soon & (aside * aside <= reach2 * speed))


def _may_concern(
    other: Tensor,
    dx: Tensor,
    dy: Tensor,
    vx: Tensor,
    vy: Tensor,
    sin: Tensor,
    length: Tensor,
    width: Tensor,
    reach: Tensor,
) -> Tensor:
    """Which of the others may be the first in the ego's way along +x, or nearer to it than RSS has it."""
    ego = (..., slice(0, 1))
    halfway = 0.5 * (length * sin.abs() + width)
    reach = reach + reach[ego]
    aside = dy.abs()
    beside = aside - (halfway + halfway[ego])
    gap = dx.abs() - reach
    # Nobody is the leader who is behind another whose inner circle is in the way.
    inner = 0.5 * torch.minimum(length, width)
    surely = other & (aside < inner + inner[ego])
    ahead = dx > 0
    nearest = torch.where(surely & ahead, dx, torch.inf).amin(-1, keepdim=True)
    leads = (beside < 0) & (dx > -reach) & (gap <= nearest)

    sway = _parabola(vy.abs(), SIDEWAYS)
    needed = _parabola(vx[ego].clamp(min=0), FOLLOWING) - vx.square() / HARDEST
    if bool((vx < 0).any()):
        meeting = _parabola(vx[ego].clamp(min=0), MEETING) + _parabola(-vx, MET)
        needed = torch.where(vx < 0, meeting, needed)
    # Who follows in the ego's way keeps its own distance: behind, only who is beside concerns the ego.
    followed = _parabola(vx.clamp(min=0), FOLLOWED) - vx[ego].square() / HARDEST
    near = (beside < sway + sway[ego]) & (gap < torch.where(ahead, needed, followed)) & (ahead | ~surely)
    return other & (leads | near)
