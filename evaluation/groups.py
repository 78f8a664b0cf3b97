"""Groups of metrics, in the order in which a report shows them."""

from collections.abc import Iterable

from evaluation.metrics import Metric

SAFETY, RULES, COMFORT, PROGRESS, SCORES = ORDER = ("Safety", "Rules", "Comfort", "Progress", "Scores")
# What no other group claims is about safety.
MEMBERS = {
    RULES: ("red_lights", "amber_run", "stop_line", "blocked_box", "off_road", "wrong_way", "speeding"),
    COMFORT: ("comfort", "jerk", "mean_lane_offset", "maximum_lane_offset"),
    PROGRESS: (
        "success",
        "route_completion",
        "progress",
        "mean_speed",
        "traffic_speed",
        "speed_over_traffic",
        "lane_changes",
        "duration",
    ),
    SCORES: ("carla_driving_score_2_0", "carla_driving_score_2_1", "nuplan_closed_loop_score", "episode_return"),
}


def group_of(metric: Metric) -> str:
    """The group of a metric."""
    return next((group for group, names in MEMBERS.items() if metric.name in names), SAFETY)


def grouped(metrics: Iterable[Metric]) -> list[tuple[str, list[Metric]]]:
    """Groups that have any of the metrics, in order, with these."""
    metrics = list(metrics)
    members = {group: [metric for metric in metrics if group_of(metric) == group] for group in ORDER}
    return [(group, members[group]) for group in ORDER if members[group]]
