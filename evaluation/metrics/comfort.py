"""How the ride feels: accelerations, jerk and turning, against nuPlan's bounds.

Recorded are positions at the simulation's frequency, while a policy changes its mind at its own: differences from frame
to frame would tell the two frequencies, not the ride. So derivatives are those of parabolas fitted to a stretch of time
around each frame (Savitzky and Golay 1964), as long as nuPlan's at its 10 Hz: 0.8 s for an acceleration, 1.5 s for jerk
and turning, whatever the frequencies are.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

ACCELERATION_STRETCH, JERK_STRETCH = 0.8, 1.5  # s
BRAKING, ACCELERATION = -4.05, 2.40  # m/s2, along
LATERAL = 4.89  # m/s2
JERK, LONGITUDINAL_JERK = 8.37, 4.13  # m/s3
YAW_RATE, YAW_ACCELERATION = 0.95, 1.93  # rad/s, rad/s2


class Ride(NamedTuple):
    """What the ego's ride was like in frames around which both stretches fit. Every field has shape (F, N)."""

    longitudinal: Tensor  # acceleration along the heading [m/s2]
    lateral: Tensor  # across it [m/s2]
    jerk: Tensor  # derivative of the acceleration's magnitude [m/s3]
    longitudinal_jerk: Tensor  # [m/s3]
    yaw_rate: Tensor  # [rad/s]
    yaw_acceleration: Tensor  # [rad/s2]
    counts: Tensor  # bool: no frame that took part is after the end or in a collision


def derivative(values: Tensor, half: int, dt: float, order: int = 1) -> Tensor:
    """A derivative of a polynomial fitted to each value and `half` on both sides of it.

    Args:
        values: Shape: (T, N).
        half: frames on each side.
        dt: time between two [s].
        order: 1 (of a parabola) or 2 (of a cubic).

    Returns:
        Shape: (T - 2 half, N), none where T is too short.
    """
    if len(values) <= 2 * half:
        return values[:0]
    weights = torch.tensor(_weights(half, order), dtype=values.dtype, device=values.device) / dt**order
    return values.unfold(0, 2 * half + 1, 1) @ weights


@functools.cache
def _weights(half: int, order: int) -> tuple[float, ...]:
    at = np.arange(-half, half + 1.0)
    fit = np.linalg.pinv(np.stack([at**k for k in range(min(order + 1, 2 * half) + 1)], 1))
    return tuple((fit[order] * order).tolist())


def ride(trajectory: Trajectory) -> Ride:
    """The ego's ride up to the frame before its collision or to the end."""
    t = trajectory
    short = max(1, round(ACCELERATION_STRETCH / 2 / t.dt))
    long = max(2, round(JERK_STRETCH / 2 / t.dt))
    last = int(t.hit_frame.max()) + 1
    speed, heading = t.speed[:last, :, 0], t.heading[:last, :, 0]
    turn = torch.remainder(heading.diff(dim=0) + torch.pi, 2 * torch.pi) - torch.pi
    heading = torch.cat([torch.zeros_like(heading[:1]), turn.cumsum(0)])

    longitudinal = derivative(speed, short, t.dt)
    yaw_rate, yaw_acceleration = derivative(heading, long, t.dt), derivative(heading, long, t.dt, 2)
    # Frames for which there are both, then those around which there is a stretch of them.
    inner = slice(long, max(long, last - long))
    both = slice(long - short, max(long - short, last - long - short))
    lateral = speed[inner] * yaw_rate
    jerk = derivative(torch.hypot(longitudinal[both], lateral), long, t.dt)
    longitudinal_jerk = derivative(longitudinal[both], long, t.dt)
    kept = slice(long, long + len(jerk))
    frame = torch.arange(len(jerk), device=speed.device)[:, None] + 2 * long
    counts = frame + 2 * long < t.hit_frame + (~t.hit)
    return Ride(
        longitudinal[both][kept], lateral[kept], jerk, longitudinal_jerk, yaw_rate[kept], yaw_acceleration[kept], counts
    )


def comfort(trajectory: Trajectory) -> Result:
    """1 where the whole ride was within nuPlan's bounds, else 0. Threshold: those bounds: longitudinal acceleration
    -4.05 to 2.40 m/s2, lateral 4.89 m/s2, jerk 8.37 m/s3, longitudinal jerk 4.13 m/s3, yaw rate 0.95 rad/s, yaw
    acceleration 1.93 rad/s2. Valid where the ride was long enough for one value of jerk, 3 s.

    Source: nuPlan, ego is comfortable.
    """
    r = ride(trajectory)
    within = (
        (r.longitudinal >= BRAKING)
        & (r.longitudinal <= ACCELERATION)
        & (r.lateral.abs() <= LATERAL)
        & (r.jerk.abs() <= JERK)
        & (r.longitudinal_jerk.abs() <= LONGITUDINAL_JERK)
        & (r.yaw_rate.abs() <= YAW_RATE)
        & (r.yaw_acceleration.abs() <= YAW_ACCELERATION)
    )
    return Result((within | ~r.counts).all(0).float(), r.counts.any(0))


def mean_jerk(trajectory: Trajectory) -> Result:
    """Root of the mean square of the longitudinal jerk [m/s3]. No threshold. Valid where the ride was long enough for
    one value, 3 s.

    Source: derivatives as in nuPlan, ego is comfortable.
    """
    r = ride(trajectory)
    count = r.counts.sum(0)
    square = torch.where(r.counts, r.longitudinal_jerk.square(), 0.0).sum(0) / count.clamp(min=1)
    return Result(square.sqrt(), count > 0)


COMFORT = Metric(
    "comfort",
    "Comfortable",
    "",
    "rate",
    "higher",
    "Share of episodes in which accelerations, jerk and turning stayed within nuPlan's bounds throughout.",
    comfort,
    source="nuPlan, ego is comfortable",
)
JERK_RMS = Metric(
    "jerk",
    "Jerk",
    "m/s3",
    "mean",
    "lower",
    "Root mean square of the longitudinal jerk, from parabolas fitted to the speed.",
    mean_jerk,
    source="nuPlan, ego is comfortable",
)
