"""Time to collision with the leader."""

import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

# nuPlan's closed-loop score fails a scenario whose TTC is not above this [s].
CRITICAL = 0.95
# Who gets nearer so slowly that a minute would be left is not on the way to a collision [s].
NEVER = 60.0


def time_to_collision(trajectory: Trajectory) -> Tensor:
    """TTC in every frame, if both keep their velocity along the road [s]. Shape: (T, N).

    TTC = gap / (v_ego - v_leader), where gap is exact between the boxes along the ego's way, the leader is the first
    vehicle in that way, and v is the velocity along the road. Infinite without a leader, and where the ego is not
    closing in on it; 0 in contact. Frames after the ego's collision, or after the end, are infinite too.

    Source: Hayward, Near misses as a measure of safety at urban intersections (1971); on boxes as in nuPlan.
    """
    leader = trajectory.leader
    ttc = torch.where(leader.closing > 0, leader.gap / leader.closing, torch.inf)
    return torch.where(leader.gap == 0, 0.0, ttc)


def minimum_time_to_collision(trajectory: Trajectory) -> Result:
    """Smallest TTC of an episode [s]. Threshold: below 0.95 s is critical. Valid where the ego ever closed in on one
    such that less than a minute was left.

    Source: the threshold is that of nuPlan's closed-loop metric "time to collision within bound".
    """
    value = time_to_collision(trajectory).min(0).values
    return Result(value, value < NEVER)


def minimum_time_to_meeting(trajectory: Trajectory) -> Result:
    """Smallest TTC in the plane of an episode [s]: time until the ego's box touches any other if both keep their
    velocity, whatever road they are on. It sees who crosses, which that along the road does not. Threshold: below
    0.95 s is critical. Valid where somebody not behind the ego ever came that way within 3 s.

    Source: nuPlan's "time to collision within bound"; exact where nuPlan takes steps of 0.1 s.
    """
    value = trajectory.meeting.min(0).values
    return Result(value, value.isfinite())


MINIMUM_TTC = Metric(
    "minimum_time_to_collision",
    "Minimum TTC",
    "s",
    "mean",
    "higher",
    "Smallest time to collision of an episode: gap between the boxes, along the road, over closing speed; the leader "
    "is the first vehicle whose box stands in the ego's way. From a minute on there is none.",
    minimum_time_to_collision,
    threshold=CRITICAL,
    source="Hayward 1971; threshold: nuPlan closed-loop metrics",
)
MINIMUM_MEETING = Metric(
    "minimum_time_to_meeting",
    "Minimum TTC in the plane",
    "s",
    "mean",
    "higher",
    "Smallest time until the ego's box touched another's if both kept their velocity, up to 3 s; crossing traffic and "
    "people included.",
    minimum_time_to_meeting,
    threshold=CRITICAL,
    source="nuPlan, time to collision within bound",
)
