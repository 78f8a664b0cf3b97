"""Post-encroachment time: how shortly after each other the ego and another were in the same place."""

import math

import torch
from torch import Tensor

from envs.state import LANDMARK
from evaluation.geometry import Boxes, distance
from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

CRITICAL = 1.0  # s
CROSSING = math.sin(math.radians(30.0))  # of the angle between two headings
BLOCK = 16  # frames whose places are first compared as one
MOVES = 0.5  # m/s: who is never faster sweeps no area
AT_ONCE = 2_000_000  # pairs of places that are compared at a time


def post_encroachment_time(trajectory: Trajectory) -> Result:
    """Smallest PET of an episode [s]: time between the first's leaving of the area that both boxes swept and the
    second's entering of it.

    PET = t_in2 - t_out1, where paths cross at 30 to 150 degrees; the area is that of the places in which the one's box
    overlaps any place of the other's. Resolved to one frame. Two who are in it together, or go the same way, have none.
    Threshold: below 1 s is critical. Valid where paths crossed.

    Source: Allen, Shin and Cooper, Analysis of traffic conflicts and collisions (1978). Threshold: Peesapati, Hunter
    and Rodgers, Evaluation of postencroachment time as surrogate for opposing left-turn crashes (2013).
    """
    t = trajectory
    value = torch.full((t.x.shape[1],), torch.inf, device=t.x.device)
    world, slot = _may_cross(t)
    if len(world):
        for which in torch.arange(len(world), device=world.device).split(256):
            found, times = _encroachments(t, world[which], slot[which])
            value.scatter_reduce_(0, found, times.to(value), "amin")
    return Result(value, value.isfinite())


def _may_cross(t: Trajectory) -> tuple[Tensor, Tensor]:
    """World and slot of those who ever move and head more than 30 degrees away from a heading of the ego."""
    found = torch.zeros_like(t.heading[0], dtype=torch.bool)
    if t.finder.turned > math.asin(CROSSING):
        own = torch.where(t.driving, t.heading[..., 0], torch.nan).nan_to_num(torch.inf)
        least = own.amin(0)[:, None] + math.asin(CROSSING)
        most = torch.where(own.isfinite(), own, -torch.inf).amax(0)[:, None] - math.asin(CROSSING)
        for part in t.finder.chunks():
            heading = t.heading[part]
            turned = ((heading > least) | (heading < most)) & (t.speed[part] > MOVES)
            solid = (t.kind[part] != 0) & (t.kind[part] != LANDMARK) & t.driving[part, :, None]
            found |= (turned & solid).any(0)
    found[:, 0] = False
    return found.nonzero(as_tuple=True)


def _may_differ(low: Tensor, high: Tensor, other_low: Tensor, other_high: Tensor) -> Tensor:
    """Whether two headings within these bounds may be 30 to 150 degrees apart, as directions of lines."""
    least, most = other_low - high, other_high - low
    spread = most - least
    middle = torch.remainder(0.5 * (least + most) + 0.5 * torch.pi, torch.pi) - 0.5 * torch.pi
    return middle.abs() + 0.5 * spread > math.asin(CROSSING)


def _encroachments(t: Trajectory, world: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
    """World and time [s] of every encroachment among K pairs of the ego and another."""
    last = int(t.hit_frame.max()) + 1
    blocks = -(-last // BLOCK)
    ego, there = _series(t, world, torch.zeros_like(slot), blocks)
    other, other_there = _series(t, world, slot, blocks)
    bounds, other_bounds = _bounds(ego, there), _bounds(other, other_there)

    # Whole paths that do not meet, then blocks of them.
    (low, high), (other_low, other_high) = bounds[2], other_bounds[2]
    meets = _may_differ(low.amin(0), high.amax(0), other_low.amin(0), other_high.amax(0))
    for (low, high), (other_low, other_high) in zip(bounds[:2], other_bounds[:2], strict=True):
        meets &= (low.amin(0) <= other_high.amax(0)) & (high.amax(0) >= other_low.amin(0))
    meets = meets.nonzero()[:, 0]
    touching = torch.ones(blocks, blocks, len(meets), dtype=torch.bool, device=world.device)
    for (low, high), (other_low, other_high) in zip(bounds[:2], other_bounds[:2], strict=True):
        touching &= (low[:, None, meets] <= other_high[:, meets]) & (high[:, None, meets] >= other_low[:, meets])
    one, two, pair = touching.nonzero(as_tuple=True)
    pair = meets[pair]
    (low, high), (other_low, other_high) = bounds[2], other_bounds[2]
    kept = _may_differ(low[one, pair], high[one, pair], other_low[two, pair], other_high[two, pair])
    one, two, pair = one[kept], two[kept], pair[kept]

    inside = []  # pair, frame of the ego, frame of the other
    step = torch.arange(BLOCK, device=world.device)
    for rows in torch.arange(len(one), device=world.device).split(AT_ONCE // BLOCK**2):
        i = (one[rows, None, None] * BLOCK + step[:, None]).expand(-1, BLOCK, BLOCK).reshape(-1)
        j = (two[rows, None, None] * BLOCK + step).expand(-1, BLOCK, BLOCK).reshape(-1)
        k = pair[rows, None, None].expand(-1, BLOCK, BLOCK).reshape(-1)
        dx, dy = other.x[j, k] - ego.x[i, k], other.y[j, k] - ego.y[i, k]
        circles = 0.5 * (
            torch.hypot(ego.length[i, k], ego.width[i, k]) + torch.hypot(other.length[j, k], other.width[j, k])
        )
        turned = (other.heading[j, k] - ego.heading[i, k]).sin().abs()
        near = there[i, k] & other_there[j, k] & (dx * dx + dy * dy < circles**2) & (turned > CROSSING)
        i, j, k = i[near], j[near], k[near]
        a, b = Boxes(*(part[i, k] for part in ego)), Boxes(*(part[j, k] for part in other))
        over = distance(a, b) < 0
        inside.append(torch.stack([k[over], i[over], j[over]]))
    k, i, j = torch.cat([pair.new_empty(3, 0), *inside], 1)
    if not len(k):
        return world[:0], world[:0].double()
    # Traffic comes and goes: a slot may hold one after another, told apart by where it jumps.
    jump = torch.hypot(other.x.diff(dim=0), other.y.diff(dim=0)) > 5.0 + 2 * t.dt * t.speed[1:, world, slot].max()
    track = torch.cat([torch.zeros_like(jump[:1]), jump | ~other_there[:-1]]).cumsum(0)
    key = k * (track.max() + 1) + track[j, k]
    names, which = key.unique(return_inverse=True)

    def least(values: Tensor) -> Tensor:
        return values.new_full((len(names),), values.max() + 1).scatter_reduce(0, which, values, "amin")

    first, enters, leaves, ends = least(i), least(j), -least(-i), -least(-j)
    wait = torch.maximum(enters - leaves, first - ends)  # one of them is negative
    # The one has left by the frame after its last in the area, the other enters after the frame before its first.
    time = (wait - 1).clamp(min=0) * t.dt
    owner = world[least(k)]
    return owner[wait > 0], time[wait > 0]


def _series(t: Trajectory, world: Tensor, slot: Tensor, blocks: int) -> tuple[Boxes, Tensor]:
    """The boxes of K slots, and whether they are there, in whole blocks of frames. Shape: (blocks * BLOCK, K)."""
    frames = torch.arange(blocks * BLOCK, device=world.device).clamp(max=len(t.x) - 1)[:, None]
    boxes = Boxes(*(part[frames, world, slot] for part in (t.x, t.y, t.heading, t.length, t.width)))
    there = _there(t, frames, world, slot)
    there[len(t.x) :] = False
    return boxes, there


def _there(t: Trajectory, frames: Tensor | slice, world: Tensor, slot: Tensor) -> Tensor:
    """Whether something solid is in K slots, while driving. Shape: (frames, K)."""
    kind = t.kind[frames, world, slot]
    return (kind != 0) & (kind != LANDMARK) & t.driving[frames, world]


def _bounds(boxes: Boxes, there: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Least and greatest x, y and heading of every block. Shape: (blocks, K)."""
    bounds = []
    for values, reach in (
        (boxes.x, boxes.half_extent(1.0, 0.0)),
        (boxes.y, boxes.half_extent(0.0, 1.0)),
        (boxes.heading, 0.0),
    ):
        shape = (-1, BLOCK, values.shape[1])
        low = torch.where(there, values - reach, torch.inf).view(shape).amin(1)
        bounds.append((low, torch.where(there, values + reach, -torch.inf).view(shape).amax(1)))
    return bounds


PET = Metric(
    "post_encroachment_time",
    "Minimum post-encroachment time",
    "s",
    "mean",
    "higher",
    "Smallest time between the one's leaving and the other's entering of an area that the ego and another both crossed "
    "(PET).",
    post_encroachment_time,
    threshold=CRITICAL,
    source="Allen et al. 1978; threshold: Peesapati et al. 2013",
    everywhere=False,
)
