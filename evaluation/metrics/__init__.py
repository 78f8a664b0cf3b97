"""Metrics: pure functions over trajectories, one file a family, each returning a value and its validity.

To add one: write its file, and add a line here.
"""

from evaluation.metrics import (
    collision,
    comfort,
    encroachment,
    episode_return,
    lane_changes,
    progress,
    road,
    rss,
    rules,
    scores,
    speed,
    success,
    surrogates,
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
        collision.AT_FAULT,
        collision.WITH_PERSON,
        success.SUCCESS,
        progress.ROUTE_COMPLETION,
        scores.CARLA_2_0,
        scores.CARLA_2_1,
        scores.NUPLAN,
        episode_return.RETURN,
        progress.PROGRESS,
        speed.MEAN_SPEED,
        speed.TRAFFIC_SPEED,
        speed.SPEED_OVER_TRAFFIC,
        time_to_collision.MINIMUM_TTC,
        time_to_collision.MINIMUM_MEETING,
        surrogates.TET,
        surrogates.TIT,
        surrogates.MTTC,
        encroachment.PET,
        surrogates.DRAC,
        surrogates.BTN,
        time_headway.MINIMUM_THW,
        time_headway.CLOSE_FOLLOWING,
        *rss.LONGITUDINAL,
        *rss.LATERAL,
        rules.RED_LIGHTS,
        rules.AMBER_RUN,
        rules.STOP_LINE,
        rules.BLOCKED_BOX,
        road.OFF_ROAD,
        road.WRONG_WAY,
        road.SPEEDING,
        road.MEAN_OFFSET,
        road.MAXIMUM_OFFSET,
        comfort.COMFORT,
        comfort.JERK_RMS,
        lane_changes.LANE_CHANGES,
        collision.IMPACT_SPEED,
        episode_return.DURATION,
    )
}


def compute(trajectory: Trajectory) -> dict[str, Result]:
    """Every metric of a batch of episodes, by name."""
    return {name: metric.compute(trajectory) for name, metric in METRICS.items()}
