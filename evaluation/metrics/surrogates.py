"""Measures of a conflict with the leader, beside the least time to collision: how long, how deep, how hard to avoid."""

import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.metrics.time_to_collision import time_to_collision
from evaluation.trajectory import Trajectory

TAU = 2.0  # s: TTC below which time is exposed; that of UN R157's careful and competent driver
HARD = 3.4  # m/s2: a DRAC above it is a conflict
FULL = 0.774 * 9.81  # m/s2: the a_max of BTN, the braking of UN R157's careful and competent driver
# m/s2: no car brakes like this; in the frame before a touch DRAC grows without limit, and a mean over it says nothing.
MOST = 2 * 9.81


def _always(value: Tensor) -> Result:
    return Result(value, torch.ones_like(value, dtype=torch.bool))


def time_exposed(trajectory: Trajectory) -> Result:
    """TET, time exposed: for how long TTC was at most 2 s [s].

    TET = sum over frames of 1[TTC <= tau] dt, with TTC as in `time_to_collision`. No threshold. Always valid.

    Source: Minderhoud and Bovy, Extended time-to-collision measures for road traffic safety assessment (2001).
    """
    return _always((time_to_collision(trajectory) <= TAU).sum(0) * trajectory.dt)


def time_integrated(trajectory: Trajectory) -> Result:
    """TIT, time integrated: TET weighed with how far TTC was below 2 s [s2].

    TIT = sum over frames of (tau - TTC) dt where TTC <= tau. No threshold. Always valid. Source: as of TET.
    """
    return _always((TAU - time_to_collision(trajectory)).clamp(min=0).sum(0) * trajectory.dt)


def modified_time_to_collision(trajectory: Trajectory) -> Tensor:
    """MTTC in every frame [s]: when the ego meets its leader if both keep their acceleration. Shape: (T, N).

    The least t >= 0 of d + dv t + da t^2 / 2 = 0; d: gap, dv and da: speed and acceleration of the leader minus the
    ego's, along the way. Infinite where there is none. The accelerations are those commanded, as the simulator applies
    them; nobody stops at speed 0.

    Source: Ozbay, Yang, Bartin and Mudigonda, Derivation and validation of new simulation-based surrogate safety
    measure (2008).
    """
    gap, slot, closing = trajectory.leader
    theirs = trajectory.acceleration.gather(-1, slot[..., None])[..., 0]
    return _first_root(gap, -closing, theirs - trajectory.acceleration[..., 0])


def _first_root(d: Tensor, dv: Tensor, da: Tensor) -> Tensor:
    """The least t >= 0 of d + dv t + da t^2 / 2 = 0 for d >= 0, infinite where there is none."""
    found = d.isfinite()
    d = torch.where(found, d, 1.0)
    root = dv.square() - 2 * da * d
    # This form of the solution loses no digits where da is small, and is right where it is 0.
    divisor = -dv + root.clamp(min=0).sqrt()
    time = torch.where(divisor > 0, 2 * d / divisor, torch.inf)
    return torch.where(found & (root >= 0), torch.where(d == 0, 0.0, time), torch.inf)


def minimum_modified_ttc(trajectory: Trajectory) -> Result:
    """Smallest MTTC of an episode [s]. No threshold. Valid where the ego ever was to meet its leader."""
    value = modified_time_to_collision(trajectory).min(0).values
    return Result(value, value.isfinite())


def required_deceleration(trajectory: Trajectory) -> Tensor:
    """DRAC in every frame [m/s2]: braking with which the ego, at once and for good, just does not touch its leader if
    that keeps its speed. Shape: (T, N).

    DRAC = dv^2 / (2 d) where the ego closes in, else 0; not above 2 g. In contact it is 0: nothing is left to avoid.

    Source: Almqvist, Hyden and Risser, Use of speed limiters in cars for increased safety and a better environment
    (1991).
    """
    gap, _, closing = trajectory.leader
    at = (closing > 0) & gap.isfinite() & (gap > 0)
    return torch.where(at, closing.square() / (2 * torch.where(at, gap, 1.0)), 0.0).clamp(max=MOST)


def highest_required_deceleration(trajectory: Trajectory) -> Result:
    """Highest DRAC of an episode [m/s2]. Limit: above 3.4 m/s2 is critical. Valid where the ego ever had a leader.

    Source of the limit: American Association of State Highway and Transportation Officials, comfortable braking of
    most drivers, as used by Archer, Indicators for traffic safety assessment and prediction (2005).
    """
    return Result(required_deceleration(trajectory).max(0).values, trajectory.leader.gap.isfinite().any(0))


def brake_threat_number(trajectory: Trajectory) -> Result:
    """BTN, brake threat number: highest DRAC over the hardest braking, a_max = 0.774 g = 7.59 m/s2. No unit. Limit:
    above 1 braking alone no longer avoided a collision. Valid where the ego ever had a leader.

    Source: Brannstrom, Sjoberg and Coelingh, A situation and threat assessment algorithm for a rear-end collision
    avoidance system (2008). a_max: UN Regulation 157, careful and competent driver.
    """
    highest = highest_required_deceleration(trajectory)
    return Result(highest.value / FULL, highest.valid)


TET = Metric(
    "time_exposed_ttc",
    "Time with a TTC below 2 s",
    "s",
    "mean",
    "lower",
    "For how long in an episode the time to collision with the leader was at most 2 s (TET).",
    time_exposed,
    source="Minderhoud and Bovy 2001; 2 s: UN R157, careful and competent driver",
)
TIT = Metric(
    "time_integrated_ttc",
    "TTC missing to 2 s",
    "s2",
    "mean",
    "lower",
    "Sum over an episode of what was missing to a time to collision of 2 s, times the time it was (TIT).",
    time_integrated,
    source="Minderhoud and Bovy 2001; 2 s: UN R157, careful and competent driver",
)
MTTC = Metric(
    "minimum_modified_ttc",
    "Minimum modified TTC",
    "s",
    "mean",
    "higher",
    "Smallest time to collision with the leader if both keep their acceleration (MTTC).",
    minimum_modified_ttc,
    source="Ozbay et al. 2008",
)
DRAC = Metric(
    "required_deceleration",
    "Required deceleration",
    "m/s2",
    "mean",
    "lower",
    "Highest braking that was needed not to touch the leader: closing speed squared over twice the gap (DRAC), up to "
    "2 g.",
    highest_required_deceleration,
    limit=HARD,
    source="Almqvist et al. 1991; limit: AASHTO",
)
BTN = Metric(
    "brake_threat_number",
    "Brake threat number",
    "",
    "mean",
    "lower",
    "Required deceleration over the hardest braking, 0.774 g (BTN).",
    brake_threat_number,
    limit=1.0,
    source="Brannstrom et al. 2008; 0.774 g: UN R157, careful and competent driver",
)
