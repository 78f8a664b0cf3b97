"""Collisions of the ego: with whom, at whose fault, and how hard."""

import torch
from torch import Tensor

from envs.state import FORMS, LANDMARK, WALKER
from evaluation.geometry import Boxes, distance, first_contact
from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import BEHIND, Trajectory

STANDS = 0.05  # m/s: slower than this nuPlan takes somebody to stand
NOSE = 0.1  # m: what is hit this near to the front bumper is hit with it
PEOPLE = (FORMS.index("person"), FORMS.index("cyclist"))


def collision(trajectory: Trajectory) -> Result:
    """1 where the ego collided with anything, whoever was at fault, else 0. Threshold: any. Always valid.

    Source: the simulator's collision flag, which is that of highway-env (separating axes on the boxes, at the frame and
    swept over the next).
    """
    return Result(trajectory.hit.float(), torch.ones_like(trajectory.hit))


def struck(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """The slot of what the ego hit, and whether it hit anything. Shape: (N,) each.

    Of those whose first collision is in the same frame it is the one whose box is nearest; where there is none (an
    object that cannot crash), the nearest box.
    """
    t = trajectory
    at, before = _moments(t)
    ego = Boxes(*(part[at][:, :1] for part in (t.x, t.y, t.heading, t.length, t.width)))
    apart = distance(ego, Boxes(t.x[at], t.y[at], t.heading[at], t.length[at], t.width[at]))
    candidates = (t.kind[at] != 0) & (t.kind[at] != LANDMARK)
    candidates[:, 0] = False
    together = candidates & t.crashed[at] & ~t.crashed[before]
    candidates = torch.where(together.any(-1, keepdim=True), together, candidates)
    return torch.where(candidates, apart, torch.inf).argmin(-1), t.hit & candidates.any(-1)


def _moments(trajectory: Trajectory) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Where to read the frame of the collision, and the one before."""
    world = torch.arange(trajectory.x.shape[1], device=trajectory.x.device)
    return (trajectory.hit_frame, world), ((trajectory.hit_frame - 1).clamp(min=0), world)


def _pair(values: Tensor, at: tuple[Tensor, Tensor], slot: Tensor) -> tuple[Tensor, Tensor]:
    """The ego's value and that of another slot. Shape: (N,) each."""
    row = values[at]
    return row[:, 0], row.gather(-1, slot[:, None])[:, 0]


def impact_speed(trajectory: Trajectory) -> Result:
    """Relative speed of the ego and what it hit, in the frame before the collision [m/s].

    |v_ego - v_other|, v = speed * (cos heading, sin heading). No threshold; 0 would be a touch. Valid where the ego
    collided.

    Source: "relative impact speed" of Euro NCAP's AEB test protocols, which report it beside "no contact".
    """
    slot, found = struck(trajectory)
    before = _moments(trajectory)[1]
    speed, other_speed = _pair(trajectory.speed, before, slot)
    heading, other_heading = _pair(trajectory.heading, before, slot)
    value = torch.hypot(
        speed * heading.cos() - other_speed * other_heading.cos(),
        speed * heading.sin() - other_speed * other_heading.sin(),
    )
    return Result(value, found)


def is_person(kind: Tensor, form: Tensor) -> Tensor:
    """True for people, on foot or on a bicycle, from what is in a slot and what it looks like. Shape: (...,)."""
    return (kind == WALKER) | ((kind != 0) & ((form == PEOPLE[0]) | (form == PEOPLE[1])))


def collision_with_person(trajectory: Trajectory) -> Result:
    """1 where the ego collided with somebody on foot or on a bicycle, else 0. Threshold: any. Valid where there were
    people in the episode.

    Source: "vulnerable road user" of nuPlan's "no at-fault collisions", and the first of CARLA's infractions.
    """
    t = trajectory
    slot, found = struck(t)
    at = _moments(t)[0]
    hit = is_person(_pair(t.kind, at, slot)[1], _pair(t.form, at, slot)[1]) & found
    if int(t.kind.max()) < WALKER and int(t.form.max()) < min(PEOPLE):
        return Result(hit.float(), torch.zeros_like(hit))
    return Result(hit.float(), (is_person(t.kind, t.form).any(-1) & t.recorded).any(0))


def collision_at_fault(trajectory: Trajectory) -> Result:
    """1 where the ego collided and nuPlan's rule lays it to the ego, else 0. Threshold: any. Always valid.

    In this order: with a person, always; while the ego stood, never; with something that stood, always; with somebody
    behind (more than 150 degrees from the ego's heading), never; with the front bumper, always; with another side,
    where the ego was not wholly within one lane. Speeds are those of the frame before. The boxes are taken to where
    they first touch at the velocities of that frame. Without lanes the ego is within none.

    Source: nuPlan, "no ego at-fault collisions"; that every hit of a person counts is stricter.
    """
    t = trajectory
    slot, found = struck(t)
    at, before = _moments(t)
    ego, other = (
        Boxes(*parts)
        for parts in zip(*(_pair(p, before, slot) for p in (t.x, t.y, t.heading, t.length, t.width)), strict=True)
    )
    speed, other_speed = _pair(t.speed, before, slot)
    vx, vy = speed * ego.heading.cos(), speed * ego.heading.sin()
    ux, uy = other_speed * other.heading.cos(), other_speed * other.heading.sin()
    time = first_contact(ego, other, vx - ux, vy - uy)
    time = torch.where(time <= 2 * t.dt, time, t.dt)  # who turns may miss the other on paper
    ego = ego._replace(x=ego.x + vx * time, y=ego.y + vy * time)
    other = other._replace(x=other.x + ux * time, y=other.y + uy * time)

    cos, sin = ego.heading.cos(), ego.heading.sin()
    ahead = 0.5 * (ego.length - NOSE)
    nose = Boxes(ego.x + ahead * cos, ego.y + ahead * sin, ego.heading, torch.full_like(ego.x, NOSE), ego.width)
    front = distance(nose, other) <= NOSE
    dx, dy = other.x - ego.x, other.y - ego.y
    behind = dx * cos + dy * sin < BEHIND * torch.hypot(dx, dy)
    active = (other_speed.abs() <= STANDS) | (~behind & (front | ~t.in_one_lane[before]))
    person = is_person(_pair(t.kind, at, slot)[1], _pair(t.form, at, slot)[1])
    fault = person | ((speed.abs() > STANDS) & active)
    return Result((found & fault).float(), torch.ones_like(t.hit))


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
AT_FAULT = Metric(
    "collision_at_fault",
    "Collision at fault",
    "",
    "rate",
    "lower",
    "Share of episodes in which the ego hit a person or something that stood, hit with its front, or was hit from the "
    "side while not wholly within one lane.",
    collision_at_fault,
    source="nuPlan, no ego at-fault collisions",
)
WITH_PERSON = Metric(
    "collision_with_person",
    "Collision with a person",
    "",
    "rate",
    "lower",
    "Share of episodes in which the ego hit somebody on foot or on a bicycle; over episodes with people.",
    collision_with_person,
    source="nuPlan, vulnerable road users; CARLA, collisions with pedestrians",
    everywhere=False,
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
