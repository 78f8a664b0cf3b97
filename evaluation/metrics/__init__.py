"""Metrics: pure functions over trajectories, one file a family, each returning a value and its validity.

To add one: write its file, and add a line here.
"""

from evaluation.metrics import (
    collision,
    episode_return,
    lane_changes,
    speed,
    success,
    time_headway,
    time_to_collision,
)
from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory

__all__ = ["METRICS", "Metric", "Result", "compute"]

# In the order of the table.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        collision.COLLISION,
        success.SUCCESS,
        episode_return.RETURN,
        speed.MEAN_SPEED,
        speed.TRAFFIC_SPEED,
        speed.SPEED_OVER_TRAFFIC,
        time_to_collision.MINIMUM_TTC,
        time_headway.MINIMUM_THW,
        time_headway.CLOSE_FOLLOWING,
        lane_changes.LANE_CHANGES,
        collision.IMPACT_SPEED,
        episode_return.DURATION,
    )
}


def compute(trajectory: Trajectory) -> dict[str, Result]:
    """Every metric of a batch of episodes, by name."""
    return {name: metric.compute(trajectory) for name, metric in METRICS.items()}
