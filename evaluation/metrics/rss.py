"""Responsibility-sensitive safety (RSS): for how long the ego was too near. See `agents.rss` for the distances.

Two vehicles are in a dangerous situation while neither the distance along nor the distance across is safe. It counts as
longitudinal where the other is in the ego's way, and as lateral where it is beside it.
"""

from functools import partial

import torch
from torch import Tensor

from agents.rss import AD_RSS, R157, RSSParameters, lateral, longitudinal, opposite
from evaluation.metrics.base import Metric, Result
from evaluation.pairs import BESIDE, Nearness
from evaluation.trajectory import Trajectory


def too_near_along(near: Nearness, params: RSSParameters) -> Tensor:
    """Whether pairs are nearer along the ego's way than RSS has it. Shape: (P,), bool.

    Who is behind the ego and goes the same way has to keep its own distance; the ego counts as the one on its own lane.
    """
    same = near.other_along >= 0
    v, u = near.along.clamp(min=0), near.other_along.abs()
    follows = longitudinal(v, u, params)
    is_followed = longitudinal(u, v, params, params.response_time_other)
    meets = opposite(v, u, params)
    # Two that drive away from each other are safe at any distance.
    needed = torch.where(same, torch.where(near.ahead, follows, is_followed), torch.where(near.ahead, meets, 0.0))
    return near.gap <= needed


def too_near_across(near: Nearness, params: RSSParameters) -> Tensor:
    """Whether pairs are nearer across the ego's way than RSS has it. Shape: (P,), bool."""
    return near.beside <= lateral(near.sideways, near.other_sideways, params)


def _share(trajectory: Trajectory, rows: Tensor) -> Result:
    """Share of the driving time that these frames are."""
    found = torch.zeros(trajectory.driving.numel(), dtype=torch.bool, device=trajectory.x.device)
    found[rows] = True
    value = found.view(trajectory.driving.shape).sum(0) / trajectory.driving.sum(0)
    return Result(value, torch.ones_like(value, dtype=torch.bool))


def longitudinal_violation(trajectory: Trajectory, params: RSSParameters) -> Result:
    """Share of the driving time in which the ego moves and a vehicle ahead in its way (their boxes overlap across it)
    is nearer than the safe distance along it. People on foot are left out: they move by another model. Between 0 and 1,
    no threshold. Always valid.

    Source: see the module; the set of numbers is named.
    """
    near = trajectory.nearness
    return _share(trajectory, near.row[near.ahead & (near.beside <= 0) & too_near_along(near, params)])


def lateral_violation(trajectory: Trajectory, params: RSSParameters) -> Result:
    """Share of the driving time in which the ego moves and a vehicle up to 8 m beside its way, ahead or behind, is
    nearer than the safe distance across it and nearer than that along it, whoever came near whom. Who crosses the way
    at more than 45 degrees is left out: junctions have rules of their own. Between 0 and 1, no threshold. Always valid.

    Source: see the module; the set of numbers is named.
    """
    near = trajectory.nearness
    found = (near.beside > 0) & (near.beside <= BESIDE) & ~near.crosses
    return _share(trajectory, near.row[found & too_near_across(near, params) & too_near_along(near, params)])


def _metric(name: str, title: str, definition: str, compute, params: RSSParameters) -> Metric:
    function = partial(compute, params=params)
    function.__doc__ = compute.__doc__
    return Metric(
        f"{name}_{params.name.replace('-', '_').lower()}",
        f"{title} ({params.name})",
        "%",
        "mean",
        "lower",
        f"{definition}; numbers: {params.source}.",
        function,
        source=f"Shalev-Shwartz et al. 2017; {params.source}",
        digits=1,
    )


LONGITUDINAL, LATERAL = (
    tuple(_metric(*about, params) for params in (AD_RSS, R157))
    for about in (
        (
            "rss_longitudinal",
            "RSS violated, longitudinal",
            "Share of the driving time with a vehicle ahead in the ego's way that was nearer than RSS has it",
            longitudinal_violation,
        ),
        (
            "rss_lateral",
            "RSS violated, lateral",
            "Share of the driving time with a vehicle beside the ego's way that was nearer than RSS has it, both "
            "across and along",
            lateral_violation,
        ),
    )
)
