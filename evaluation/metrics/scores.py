"""Scores that put many measures into one number, as their benchmarks define them, by version.

A score hides what it is made of: read it beside its parts. Ours are not comparable with published ones, which are of
other scenarios; what a version leaves out here is said with it.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from envs.state import OBSTACLE
from evaluation.metrics import comfort, progress, road, rules
from evaluation.metrics.base import Metric, Result
from evaluation.metrics.collision import collision_at_fault, is_person, struck
from evaluation.trajectory import Trajectory

# CARLA leaderboard: what an infraction costs, by version; in 2.0 a factor, in 2.1 an addend of the divisor.
FACTORS = {
    "pedestrian": 0.50,
    "vehicle": 0.60,
    "static": 0.65,
    "red_light": 0.70,
    "stop_sign": 0.80,
    "scenario_timeout": 0.70,
    "emergency_vehicle": 0.70,
}
ADDENDS = {
    "pedestrian": 1.0,
    "vehicle": 0.7,
    "static": 0.6,
    "red_light": 0.4,
    "stop_sign": 0.25,
    "scenario_timeout": 0.4,
    "emergency_vehicle": 0.4,
}
# nuPlan: weights, and what its gates and shares need.
TTC_BOUND = 0.95  # s
PROGRESSED = 0.2  # share of the route
OVERSPEED = 2.23  # m/s
AGAINST_SOME, AGAINST_MUCH = 2.0, 6.0  # m against the traffic within 1 s


@dataclass(frozen=True)
class Infractions:
    """How often an ego broke which rule. Shape of each: (N,)."""

    pedestrian: Tensor
    vehicle: Tensor
    static: Tensor
    red_light: Tensor
    stop_sign: Tensor
    scenario_timeout: Tensor
    emergency_vehicle: Tensor

    @classmethod
    def none(cls, episodes: int, device: torch.device | str = "cpu", **counts: Tensor | list) -> "Infractions":
        """None at all, but for those given."""
        nothing = [0.0] * episodes
        return cls(
            **{name: torch.as_tensor(counts.get(name, nothing), dtype=torch.float32, device=device) for name in FACTORS}
        )


def driving_score(version: str, completion: Tensor, infractions: Infractions, off_lane: Tensor) -> Tensor:
    """CARLA's driving score, 0 to 100. Shape: (N,).

    2.0: 100 R (1 - off) prod_i p_i^n_i. 2.1: 100 R (1 - off) / (1 + sum_i c_i n_i).

    Args:
        version: "2.0" or "2.1".
        completion: share of the route, R. Shape: (N,).
        infractions: how often, n_i.
        off_lane: share of the way off the lanes of the route. Shape: (N,).

    Raises:
        KeyError: another version.

    Source: CARLA autonomous driving leaderboard, evaluation and metrics, 2.0 and 2.1. Without 2.1's minimum speed.
    """
    costs = {"2.0": FACTORS, "2.1": ADDENDS}[version]
    if version == "2.0":
        penalty = torch.ones_like(completion)
        for name, factor in costs.items():
            penalty = penalty * factor ** getattr(infractions, name)
    else:
        penalty = 1 / (1 + sum(cost * getattr(infractions, name) for name, cost in costs.items()))
    return 100 * completion * (1 - off_lane) * penalty


def closed_loop_score(
    no_fault: Tensor,
    on_road: Tensor,
    progressed: Tensor,
    direction: Tensor,
    progress_share: Tensor,
    time_to_collision: Tensor,
    speed: Tensor,
    comfortable: Tensor,
) -> Tensor:
    """nuPlan's closed-loop score, 0 to 100: 100 * four factors * (5 progress + 5 TTC + 4 speed + 2 comfort) / 16.

    Args:
        no_fault: 1 without a collision at fault, 0.5 with one with an object, else 0.
        on_road: 1 where the ego stayed on the drivable area, else 0.
        progressed: 1 where it made any progress worth the name, else 0.
        direction: 1, 0.5 or 0, by how far it drove against the traffic.
        progress_share: of the way that was there to be driven, 0 to 1.
        time_to_collision: 1 where it stayed above the bound, else 0.
        speed: 1 less the share of the bound by which the speed limit was exceeded, not below 0.
        comfortable: 1 or 0. Shape of each: (N,).

    Source: nuPlan devkit, metrics of closed-loop planning, reactive agents.
    """
    quality = (5 * progress_share + 5 * time_to_collision + 4 * speed + 2 * comfortable) / 16
    return 100 * no_fault * on_road * progressed * direction * quality


def infractions_of(trajectory: Trajectory) -> Infractions:
    """What CARLA would count, from a trajectory. Nobody yields to emergency vehicles here; a time-out is an episode
    that ended without its goal, though nothing was hit."""
    t = trajectory
    slot, found = struck(t)
    world = torch.arange(len(slot), device=slot.device)
    kind, form = (values[t.hit_frame, world, slot] for values in (t.kind, t.form))
    person = is_person(kind, form)
    late = torch.zeros_like(t.hit) if t.success is None else (t.success == 0) & ~t.hit
    return Infractions.none(
        len(slot),
        slot.device,
        pedestrian=(found & person).float(),
        vehicle=(found & ~person & (kind != OBSTACLE)).float(),
        static=(found & ~person & (kind == OBSTACLE)).float(),
        red_light=rules.red_lights(t).value,
        stop_sign=rules.stop_line(t).value,
        scenario_timeout=late.float(),
    )


def carla(trajectory: Trajectory, version: str) -> Result:
    """CARLA's driving score of an episode, 0 to 100, see `driving_score`; every collision ends an episode here, so none
    has two. No threshold. Valid where the ego has a route.

    Source: CARLA autonomous driving leaderboard, by version.
    """
    completion = progress.route_completion(trajectory)
    if not completion.valid.any():
        return completion
    off = road.off_road(trajectory).value
    return Result(driving_score(version, completion.value, infractions_of(trajectory), off), completion.valid)


def nuplan(trajectory: Trajectory) -> Result:
    """nuPlan's closed-loop score of an episode, 0 to 100, see `closed_loop_score`. Progress is the share of the route
    that was driven, where nuPlan compares with a human. No threshold. Valid where the ego has a route.

    Source: nuPlan devkit, metrics of closed-loop planning.
    """
    t = trajectory
    completion = progress.route_completion(t)
    if not completion.valid.any():
        return completion
    fault = collision_at_fault(t).value > 0
    slot, _ = struck(t)
    kind = t.kind[t.hit_frame, torch.arange(len(slot), device=slot.device), slot]
    no_fault = torch.where(fault, torch.where(kind == OBSTACLE, 0.5, 0.0), 1.0)

    back = torch.where(t.against[1:], t.travelled.abs(), 0.0).nan_to_num()
    window = max(1, round(1.0 / t.dt))
    summed = torch.cat([torch.zeros_like(back[:1]), back.cumsum(0)])
    most = (summed[min(window, len(summed) - 1) :] - summed[: max(1, len(summed) - window)]).amax(0)
    direction = torch.where(most < AGAINST_SOME, 1.0, torch.where(most < AGAINST_MUCH, 0.5, 0.0))
    excess = road.over_limit(t).sum(0) / t.driving.sum(0)
    easy = comfort.comfort(t)
    score = closed_loop_score(
        no_fault,
        (~t.outside.any(0)).float(),
        (completion.value >= PROGRESSED).float(),
        direction,
        completion.value,
        (t.meeting.min(0).values > TTC_BOUND).float(),
        (1 - excess / OVERSPEED).clamp(min=0),
        torch.where(easy.valid, easy.value, 1.0),
    )
    return Result(score, completion.valid)


def _carla(version: str) -> Metric:
    function = partial(carla, version=version)
    function.__doc__ = carla.__doc__
    return Metric(
        f"carla_driving_score_{version.replace('.', '_')}",
        f"CARLA driving score {version}",
        "",
        "mean",
        "higher",
        f"Route completion times penalties for infractions, by the rules of CARLA leaderboard {version}; 0 to 100.",
        function,
        source=f"CARLA autonomous driving leaderboard {version}",
        digits=1,
        everywhere=False,
    )


CARLA_2_0, CARLA_2_1 = _carla("2.0"), _carla("2.1")
NUPLAN = Metric(
    "nuplan_closed_loop_score",
    "nuPlan closed-loop score",
    "",
    "mean",
    "higher",
    "Progress, time to collision, speed and comfort, times 0 for a collision at fault or leaving the road; 0 to 100.",
    nuplan,
    source="nuPlan devkit, closed-loop planning",
    digits=1,
    everywhere=False,
)
