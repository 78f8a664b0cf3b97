"""How far the ego got."""

import torch
from torch import Tensor

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory


def progress(trajectory: Trajectory) -> Result:
    """Distance driven along the lanes, until the collision or the end [m]: the sum of the ego's movements in the
    direction of the lane closest to it; on a parallel road along +x. Movement against it is taken off. No threshold.
    Valid where drivers keep to lanes.

    Source: nuPlan, ego progress along expert route, without the expert.
    """
    value = trajectory.travelled.sum(0)
    return Result(value.nan_to_num(), value.isfinite())


def route_lengths(trajectory: Trajectory) -> Tensor:
    """Distance from where the ego starts to the end of its route [m]; NaN without one. Shape: (N,)."""
    t = trajectory
    found = torch.full((len(t.hit),), torch.nan, device=t.x.device)
    if t.lanes is None or not any(t.routes):
        return found
    roads = t.lanes.road.tolist()
    length = dict(zip(reversed(roads), reversed(t.lanes.length.tolist()), strict=True))  # of a road's first lane
    for world, (route, lane) in enumerate(zip(t.routes, t.lane[0, :, 0].tolist(), strict=True)):
        if route:
            here = route.index(roads[lane]) + 1 if roads[lane] in route else 0
            rest = float(t.lanes.length[lane]) - float(t.on_lane.along[0, world])
            found[world] = max(rest, 0.0) + sum(length[road] for road in route[here:])
    return found


def route_completion(trajectory: Trajectory) -> Result:
    """Share of its route that the ego drove: progress over the length of the route from where it started, and all of it
    where the scenario says that the goal was reached. Between 0 and 1, no threshold. Valid where the ego has a route.

    Source: CARLA leaderboard, route completion.
    """
    total = route_lengths(trajectory)
    share = (trajectory.travelled.sum(0) / total).clamp(0, 1)
    if trajectory.success is not None:
        share = torch.where((trajectory.success > 0) & total.isfinite(), 1.0, share)
    return Result(share.nan_to_num(), share.isfinite())


PROGRESS = Metric(
    "progress",
    "Progress",
    "m",
    "mean",
    "higher",
    "Distance driven in the direction of the lanes.",
    progress,
    source="nuPlan, ego progress",
    digits=1,
    everywhere=False,
)
ROUTE_COMPLETION = Metric(
    "route_completion",
    "Route completed",
    "%",
    "mean",
    "higher",
    "Share of the length of its route that the ego drove.",
    route_completion,
    source="CARLA leaderboard, route completion",
    digits=1,
    everywhere=False,
)
