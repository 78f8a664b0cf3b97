"""Time headway: how long until the ego is where its leader's tail is now."""

import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

# The smallest time gap of UN R157's table: 2.0 m at 7.2 km/h [s].
CRITICAL = 1.0
# An ego that hardly moves has a headway without a meaning [s].
NEVER = 60.0


def time_headway(trajectory: Trajectory) -> Tensor:
    """THW in every frame [s]. Shape: (T, N).

    THW = gap / v_ego, with the gap between the boxes. Infinite without a leader and for an ego that stands.

    Source: UN Regulation 157, 5.2.3.3, where the distance to be kept is speed * time gap.
    """
    speed = trajectory.speed[..., 0]
    return torch.where(speed > 0, trajectory.leader.gap / speed, torch.inf)


def minimum_time_headway(trajectory: Trajectory) -> Result:
    """Smallest THW of an episode [s]. Threshold: below 1 s is critical. Valid where the ego ever had a leader
    less than a minute ahead.

    Source: UN Regulation 157, 5.2.3.3: no time gap of its table is shorter than 1 s.
    """
    value = time_headway(trajectory).min(0).values
    return Result(value, value < NEVER)


def close_following(trajectory: Trajectory) -> Result:
    """Share of an episode's frames with a THW below 1 s. Between 0 and 1, no threshold of its own. Always valid.

    Unlike the minimum it tells a driver that tailgates from one that merged closely once. Source: as above.
    """
    close = (time_headway(trajectory) < CRITICAL) & trajectory.driving
    value = close.sum(0) / trajectory.driving.sum(0)
    return Result(value, torch.ones_like(value, dtype=torch.bool))


MINIMUM_THW = Metric(
    "minimum_time_headway",
    "Minimum headway",
    "s",
    "mean",
    "higher",
    "Smallest time headway of an episode: gap between the boxes over the ego's speed. From a minute on there is none.",
    minimum_time_headway,
    threshold=CRITICAL,
    source="UN R157, 5.2.3.3: the smallest time gap of its table",
)
CLOSE_FOLLOWING = Metric(
    "close_following",
    "Time closer than 1 s",
    "%",
    "mean",
    "lower",
    "Share of the driving time with a time headway below 1 s.",
    close_following,
    source="UN R157, 5.2.3.3",
    digits=1,
)
