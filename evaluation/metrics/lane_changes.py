"""Lane changes of the ego."""

import torch

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory


def lane_changes(trajectory: Trajectory) -> Result:
    """Number of frames in which the lane closest to the ego's centre is another than in the frame before; driving on
    from a lane to the one that follows it is no change.

    A change that is taken back counts twice once the centre has crossed the line, and not at all before. No unit, no
    threshold. Always valid.
    """
    value = (trajectory.lane_changed & trajectory.driving[1:]).sum(0).float()
    return Result(value, torch.ones_like(value, dtype=torch.bool))


LANE_CHANGES = Metric(
    "lane_changes",
    "Lane changes",
    "",
    "mean",
    "",
    "How often the centre of the ego crossed into a lane beside its own, in an episode.",
    lane_changes,
)
