"""Collisions of the ego, and how hard they are."""

import torch

from evaluation.geometry import Boxes, distance
from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory


def collision(trajectory: Trajectory) -> Result:
    """1 where the ego collided with anything, whoever was at fault, else 0. Threshold: any. Always valid.

    Source: the simulator's collision flag, which is that of highway-env (separating axes on the boxes, at the frame and
    swept over the next).
    """
    return Result(trajectory.hit.float(), torch.ones_like(trajectory.hit))


def impact_speed(trajectory: Trajectory) -> Result:
    """Relative speed of the ego and what it hit, in the frame before the collision [m/s].

    |v_ego - v_other|, v = speed * (cos heading, sin heading). The other is, of the vehicles whose first collision is in
    the same frame, the one whose box is nearest; where there is none (an object that cannot crash), the nearest box.
    No threshold; 0 would be a touch. Valid where the ego collided.

    Source: "relative impact speed" of Euro NCAP's AEB test protocols, which report it beside "no contact".
    """
    t = trajectory
    world = torch.arange(t.x.shape[1], device=t.x.device)
    at = (t.hit_frame, world)
    before = ((t.hit_frame - 1).clamp(min=0), world)

    ego = Boxes(t.x[at][:, :1], t.y[at][:, :1], t.heading[at][:, :1], t.length[at][:, :1], t.width[at][:, :1])
    apart = distance(ego, Boxes(t.x[at], t.y[at], t.heading[at], t.length[at], t.width[at]))
    candidates = t.others[at]
    together = candidates & t.crashed[at] & ~t.crashed[before]
    candidates = torch.where(together.any(-1, keepdim=True), together, candidates)
    other = torch.where(candidates, apart, torch.inf).argmin(-1, keepdim=True)

    velocity_x = (t.speed[before] * t.heading[before].cos()).gather(-1, other)[:, 0]
    velocity_y = (t.speed[before] * t.heading[before].sin()).gather(-1, other)[:, 0]
    ego_speed, ego_heading = t.speed[before][:, 0], t.heading[before][:, 0]
    value = torch.hypot(ego_speed * ego_heading.cos() - velocity_x, ego_speed * ego_heading.sin() - velocity_y)
    return Result(value, t.hit & candidates.any(-1))


COLLISION = Metric(
    "collision",
    "Collision rate",
    "",
    "rate",
    "lower",
    "Share of episodes in which the ego collided, whoever was at fault.",
    collision,
    source="the collision test of highway-env",
)
IMPACT_SPEED = Metric(
    "impact_speed",
    "Impact speed",
    "m/s",
    "mean",
    "lower",
    "Relative speed of the ego and what it hit, just before; over episodes with a collision.",
    impact_speed,
    source="Euro NCAP AEB test protocols, relative impact speed",
    digits=1,
)
