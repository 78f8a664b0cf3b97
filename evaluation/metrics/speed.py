"""Speed of the ego, and of the traffic around it."""

import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted frames; NaN where there is none. Shapes: (T, N), (T, N) -> (N,)."""
    return torch.where(counted, values, 0.0).sum(0) / counted.sum(0)


def mean_speed(trajectory: Trajectory) -> Result:
    """Mean speed of the ego over the frames until its collision or the end [m/s]. No threshold. Always valid."""
    value = _mean(trajectory.speed[..., 0], trajectory.driving)
    return Result(value, torch.ones_like(value, dtype=torch.bool))


def traffic_speed(trajectory: Trajectory) -> Result:
    """Mean speed of the traffic around the ego [m/s]: in every frame over the vehicles whose centres are within 100 m,
    then over the frames that have any. No threshold. Valid where there ever was such a vehicle."""
    speed, some = trajectory.traffic_speed
    value = _mean(speed, some)
    return Result(value, some.any(0))


def speed_over_traffic(trajectory: Trajectory) -> Result:
    """Mean of (speed of the ego - mean speed of the vehicles within 100 m) over the frames that have any [m/s].

    Both speeds are of the same frames, so a free road does not count. Threshold: above 0 the ego overtakes. Valid where
    there ever was such a vehicle.
    """
    speed, some = trajectory.traffic_speed
    value = _mean(trajectory.speed[..., 0] - speed, some)
    return Result(value, some.any(0))


MEAN_SPEED = Metric(
    "mean_speed", "Speed", "m/s", "mean", "higher", "Mean speed of the ego until its collision or the end.", mean_speed
)
TRAFFIC_SPEED = Metric(
    "traffic_speed",
    "Speed of the traffic",
    "m/s",
    "mean",
    "",
    "Mean speed of the vehicles within 100 m of the ego.",
    traffic_speed,
)
SPEED_OVER_TRAFFIC = Metric(
    "speed_over_traffic",
    "Faster than the traffic by",
    "m/s",
    "mean",
    "higher",
    "Speed of the ego minus that of the vehicles within 100 m of it, in the same frames.",
    speed_over_traffic,
)
