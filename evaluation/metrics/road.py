"""The ego and its road: off it, the wrong way, too fast, off the middle of its lane."""

import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

# s before and after the ego's centre crosses into another lane, which do not count as keeping one.
CHANGE = 3.0


def _has_lanes(trajectory: Trajectory) -> Tensor:
    return torch.full_like(trajectory.hit, trajectory.lanes is not None)


def _share(found: Tensor, trajectory: Trajectory) -> Result:
    return Result(found.sum(0) / trajectory.driving.sum(0), _has_lanes(trajectory))


def off_road(trajectory: Trajectory) -> Result:
    """Share of the driving time with a corner of the ego more than 0.3 m outside the drivable area. Between 0 and 1.
    Threshold: any. Valid where drivers keep to lanes.

    The drivable area is the union of the lanes, each as wide as it is, and of what else is paved for driving; shoulders
    and what is between the lanes of a junction are not part of it.

    Source: nuPlan, drivable area compliance.
    """
    return _share(trajectory.outside, trajectory)


def wrong_way(trajectory: Trajectory) -> Result:
    """Share of the driving time with the ego's centre on a lane, and its heading more than 90 degrees off that of every
    lane there. Between 0 and 1, no threshold: overtaking through the oncoming lane counts too. Valid where drivers keep
    to lanes.

    Source: nuPlan, driving direction compliance, which takes the distance instead of the time.
    """
    return _share(trajectory.against, trajectory)


def over_limit(trajectory: Trajectory) -> Tensor:
    """How much faster than the speed limit of its lane the ego drives [m/s]. Shape: (T, N)."""
    if trajectory.lanes is None:
        return torch.zeros_like(trajectory.speed[..., 0])
    limit = trajectory.lanes.speed_limit.to(trajectory.speed)[trajectory.lane[..., 0].long()]
    return ((trajectory.speed[..., 0] - limit).clamp(min=0)) * trajectory.driving


def speeding(trajectory: Trajectory) -> Result:
    """Mean over the driving time of what the ego drives above the speed limit of its lane, 0 below it [m/s]. No
    threshold. Valid where drivers keep to lanes.

    Source: nuPlan, speed limit compliance.
    """
    return Result(over_limit(trajectory).sum(0) / trajectory.driving.sum(0), _has_lanes(trajectory))


def keeping(trajectory: Trajectory) -> Tensor:
    """True while the ego keeps its lane: it steers to no other, and its centre does not cross into another within 3 s
    before or after. Shape: (T, N)."""
    t = trajectory
    half = round(CHANGE / t.dt)
    crossed = torch.zeros_like(t.driving, dtype=torch.float32)
    crossed[1:] = t.lane_changed & t.driving[1:]
    near = torch.nn.functional.max_pool1d(crossed.T[:, None], 2 * half + 1, stride=1, padding=half)[:, 0].T
    return t.driving & (near == 0) & (t.lane[..., 0] == t.target_lane[..., 0])


def _offset(trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Distance from the lane's middle while keeping it, else 0, and for how many frames. Shapes: (T, N), (N,)."""
    kept = keeping(trajectory) & _has_lanes(trajectory)
    return torch.where(kept, trajectory.on_lane.across.abs(), 0.0), kept.sum(0)


def mean_lane_offset(trajectory: Trajectory) -> Result:
    """Mean distance of the ego's centre from the middle of its lane while it keeps the lane [m]. No threshold. Valid
    where it ever kept one."""
    offset, count = _offset(trajectory)
    return Result(offset.sum(0) / count.clamp(min=1), count > 0)


def maximum_lane_offset(trajectory: Trajectory) -> Result:
    """Greatest distance of the ego's centre from the middle of its lane while it keeps the lane [m]. No threshold.
    Valid where it ever kept one."""
    offset, count = _offset(trajectory)
    return Result(offset.max(0).values, count > 0)


OFF_ROAD = Metric(
    "off_road",
    "Off the road",
    "%",
    "mean",
    "lower",
    "Share of the driving time with a corner more than 0.3 m outside all lanes.",
    off_road,
    source="nuPlan, drivable area compliance",
    digits=1,
    everywhere=False,
)
WRONG_WAY = Metric(
    "wrong_way",
    "Wrong way",
    "%",
    "mean",
    "lower",
    "Share of the driving time on a lane whose traffic comes towards the ego.",
    wrong_way,
    source="nuPlan, driving direction compliance",
    digits=1,
    everywhere=False,
)
SPEEDING = Metric(
    "speeding",
    "Above the speed limit",
    "m/s",
    "mean",
    "lower",
    "Mean of what the ego drove above the speed limit of its lane, 0 below it.",
    speeding,
    source="nuPlan, speed limit compliance",
    everywhere=False,
)
MEAN_OFFSET = Metric(
    "mean_lane_offset",
    "Lane offset, mean",
    "m",
    "mean",
    "lower",
    "Mean distance from the middle of the lane, more than 3 s from any lane change.",
    mean_lane_offset,
    everywhere=False,
)
MAXIMUM_OFFSET = Metric(
    "maximum_lane_offset",
    "Lane offset, greatest",
    "m",
    "mean",
    "lower",
    "Greatest distance from the middle of the lane, more than 3 s from any lane change.",
    maximum_lane_offset,
    everywhere=False,
)
