"""What the agent is trained for, and for how long it drove."""

import torch

from evaluation.metrics.base import Metric, Result
from evaluation.trajectory import Trajectory


def episode_return(trajectory: Trajectory) -> Result:
    """Undiscounted return: sum of the rewards of an episode's policy steps. No unit, no threshold. Always valid.

    Source: Sutton and Barto, Reinforcement Learning, section 3.3, with a discount of 1.
    """
    step = torch.arange(trajectory.rewards.shape[0], device=trajectory.rewards.device)[:, None]
    value = torch.where(step < trajectory.steps, trajectory.rewards, 0.0).sum(0)
    return Result(value, torch.ones_like(value, dtype=torch.bool))


def duration(trajectory: Trajectory) -> Result:
    """Time driven until the ego's collision, or the end of the episode [s]: frame * dt. No threshold. Always valid."""
    value = trajectory.hit_frame * trajectory.dt
    return Result(value, torch.ones_like(value, dtype=torch.bool))


RETURN = Metric(
    "episode_return", "Return", "", "mean", "higher", "Sum of the rewards of an episode, undiscounted.", episode_return
)
DURATION = Metric(
    "duration", "Duration", "s", "mean", "", "Time driven until the collision or the end.", duration, digits=1
)
