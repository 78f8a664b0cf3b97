"""Whether the ego did what it was there for."""

import torch

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory


def success(trajectory: Trajectory) -> Result:
    """1 where the ego had reached the scenario's goal when the episode ended, else 0. No threshold. Valid where the
    scenario has a goal.

    Source: the scenario's own rule, see its module in `envs.scenarios`.
    """
    found = trajectory.success
    if found is None:
        found = torch.full_like(trajectory.steps, -1)
    return Result((found > 0).float(), found >= 0)


SUCCESS = Metric(
    "success",
    "Goal reached",
    "",
    "rate",
    "higher",
    "Share of episodes that ended with the ego at the scenario's goal: through the junction, past the merge, parked.",
    success,
    source="the scenario's own rule",
    everywhere=False,
)
