"""Linear probes: what a frozen encoder's features say about the road, scored on episodes of other seeds.

Every probe is one ridge regression in closed form, its strength chosen on a fifth of the training worlds; worlds, never
single frames, are split, since two frames of one episode are nearly the same frame. A presence is scored by AUROC, a
distance by relative error in bins of range, a speed and an offset by mean absolute error, a lane index by accuracy. A
random frozen encoder of the same architecture is the floor to compare with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from envs.roads.network import RoadNetwork
from envs.state import OBSTACLE
from perception.data import DrivingData

RANGE = 60.0  # metres: how far a car is looked for
BINS = (0.0, 10.0, 20.0, 40.0, RANGE)  # metres
ALONGSIDE = 8.0  # metres between centres: a car nearer than that is beside the ego
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge, per sample of unit-variance features


@dataclass(frozen=True)
class Label:
    """What a probe is to read from an image.

    value: float32 [N]. mask: bool [N], where it is defined. kind: "presence", "distance" [m], "amount" or "class".
    """

    value: torch.Tensor
    mask: torch.Tensor
    kind: str


@dataclass(frozen=True)
class Frames:
    """Features [n, d] of n frames, the labels of each, and the world [n] each comes from."""

    features: torch.Tensor
    labels: dict[str, Label]
    worlds: torch.Tensor


def labels(env) -> dict[str, Label]:
    """Labels of all worlds now, from the simulator's state.

    On a road network "in the lane" means closest to that lane of the ego's road, and ahead is along it; people and
    obstacles are no cars. What follows the end of the lane is not looked at: where no car is found in the lane and
    less than RANGE of it is left, or the ego is off its lanes, presence and distance are not defined.

    Args:
        env: a `VecWorlds`.

    Returns:
        lead_presence: a car ahead in the own lane within RANGE, bumper to bumper; lead_distance [m]: that gap;
            lead_speed [m/s]: its speed less the ego's, not in an
        episode's first second, when the stacked frames are one; {left,right}_{ahead,beside,behind}: presence in the
        neighbour lane, where there is such a lane; {left,right}_distance [m] to the first car ahead there; lane: index
        of the nearest centre line; lane_offset [m]: from it, positive to the right.
    """
    if isinstance(env.road, RoadNetwork):
        return _labels_on_network(env)
    s = env.state
    ego_x, ego_y, ego_speed, ego_length = (value[:, :1] for value in (s.x, s.y, s.speed, s.length))
    lane = (ego_y / env.road.lane_width).round().clamp(0, env.road.lanes - 1)
    others = s.kind != 0
    others[:, 0] = False
    ahead = s.x - ego_x
    gap = ahead.abs() - (s.length + ego_length) / 2
    everywhere = torch.ones_like(lane[:, 0], dtype=torch.bool)
    result = {}

    def first_ahead(target_lane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gap to the first car ahead in a lane ([N], infinite if none within RANGE) and its slot."""
        in_lane = others & ((s.y - target_lane * env.road.lane_width).abs() < env.road.lane_width / 2)
        distance, slot = torch.where(in_lane & (ahead > 0) & (gap <= RANGE), gap, torch.inf).min(1)
        return distance.clamp(min=0), slot

    distance, slot = first_ahead(lane)
    present = distance.isfinite()
    result["lead_presence"] = Label(present.float(), everywhere, "presence")
    result["lead_distance"] = Label(distance, present, "distance")
    relative = s.speed.gather(1, slot[:, None])[:, 0] - ego_speed[:, 0]
    result["lead_speed"] = Label(relative, present & (s.time >= 1), "amount")
    for side, step in (("left", -1), ("right", 1)):
        neighbour = lane + step
        exists = ((neighbour >= 0) & (neighbour < env.road.lanes))[:, 0]
        in_lane = others & ((s.y - neighbour * env.road.lane_width).abs() < env.road.lane_width / 2)
        zones = {
            "ahead": (ahead > ALONGSIDE) & (gap <= RANGE),
            "beside": ahead.abs() <= ALONGSIDE,
            "behind": (ahead < -ALONGSIDE) & (gap <= RANGE / 2),
        }
        for name, zone in zones.items():
            result[f"{side}_{name}"] = Label((in_lane & zone).any(1).float(), exists, "presence")
        distance, _ = first_ahead(neighbour)
        result[f"{side}_distance"] = Label(distance, exists & distance.isfinite(), "distance")
    result["lane"] = Label(lane[:, 0], everywhere, "class")
    result["lane_offset"] = Label((ego_y - lane * env.road.lane_width)[:, 0], everywhere, "amount")
    return {name: Label(label.value.float(), label.mask.clone(), label.kind) for name, label in result.items()}


def _labels_on_network(env) -> dict[str, Label]:
    """`labels` from lane numbers and places along lanes."""
    s, networks = env.state, env.sim.maps

    def table(rows: list) -> torch.Tensor:
        """Something of each lane, of the lanes that the egos are on. Shape: (N, 1)."""
        return torch.tensor(rows, device=s.lane.device)[s.lane[:, :1].long()]

    place = table([place for network in networks for _, _, place in network.indices])
    count = table([len(network.graph[a][b]) for network in networks for a, b, _ in network.indices])
    left = table([lane.length for network in networks for lane in network.lanes]) - s.lane_s[:, :1]
    width = table([lane.width for network in networks for lane in network.lanes])
    on_road = (s.lane_r[:, :1].abs() <= width)[:, 0] & env.scenario.uses_lanes
    others = (s.kind != 0) & (s.kind < OBSTACLE)
    others[:, 0] = False
    ahead = s.lane_s - s.lane_s[:, :1]
    gap = ahead.abs() - (s.length + s.length[:, :1]) / 2
    result = {}

    def seen(presence: torch.Tensor, exists: torch.Tensor, reach: float) -> Label:
        """A presence that is known: found, or looked for as far as `reach`."""
        return Label(presence.float(), exists & (presence | (left[:, 0] >= reach)), "presence")

    def first_ahead(in_lane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distance, slot = torch.where(in_lane & (ahead > 0) & (gap <= RANGE), gap, torch.inf).min(1)
        return distance.clamp(min=0), slot

    distance, slot = first_ahead(others & (s.lane == s.lane[:, :1]))
    present = distance.isfinite()
    result["lead_presence"] = seen(present, on_road, RANGE)
    result["lead_distance"] = Label(distance, present & on_road, "distance")
    relative = s.speed.gather(1, slot[:, None])[:, 0] - s.speed[:, 0]
    result["lead_speed"] = Label(relative, present & on_road & (s.time >= 1), "amount")
    for side, step in (("left", -1), ("right", 1)):
        exists = on_road & ((place + step >= 0) & (place + step < count))[:, 0]
        in_lane = others & (s.lane == s.lane[:, :1] + step)
        result[f"{side}_ahead"] = seen((in_lane & (ahead > ALONGSIDE) & (gap <= RANGE)).any(1), exists, RANGE)
        result[f"{side}_beside"] = seen((in_lane & (ahead.abs() <= ALONGSIDE)).any(1), exists, ALONGSIDE)
        behind = (in_lane & (ahead < -ALONGSIDE) & (gap <= RANGE / 2)).any(1)
        looked = behind | (s.lane_s[:, 0] >= RANGE / 2)
        result[f"{side}_behind"] = Label(behind.float(), exists & looked, "presence")
        distance, _ = first_ahead(in_lane)
        result[f"{side}_distance"] = Label(distance, exists & distance.isfinite(), "distance")
    result["lane"] = Label(place[:, 0], on_road, "class")
    result["lane_offset"] = Label(s.lane_r[:, 0].clone(), on_road, "amount")
    return {name: Label(label.value.float(), label.mask.clone(), label.kind) for name, label in result.items()}


@torch.no_grad()
def record(data: DrivingData, encoders: dict[str, nn.Module], steps: int) -> dict[str, Frames]:
    """Drive on and keep features and labels, not images.

    Args:
        data: the worlds and their drivers.
        encoders: by name, on the worlds' device.
        steps: policy steps to drive.
    """
    features, found = {name: [] for name in encoders}, []
    for _ in range(steps):
        for name, encoder in encoders.items():
            features[name].append(encoder(data.image))
        found.append([labels(worlds) for worlds in (data.idm, data.policy)])
        data.step()
    parts = [part for step in found for part in step]
    joined = {
        name: Label(
            torch.cat([part[name].value for part in parts]), torch.cat([part[name].mask for part in parts]), label.kind
        )
        for name, label in parts[0].items()
    }
    worlds = torch.arange(data.num_worlds, device=data.device).repeat(steps)
    return {name: Frames(torch.cat(rows), joined, worlds) for name, rows in features.items()}


def held_out(worlds: torch.Tensor) -> torch.Tensor:
    """A fifth of the worlds, to choose settings on: the rows of every fifth one that occurs, none if there is but one.
    Shape: int (n,) -> bool (n,).
    """
    found, place = worlds.unique(return_inverse=True)
    return place % 5 == 0 if len(found) > 1 else torch.zeros_like(place, dtype=torch.bool)


def ridge(
    features: torch.Tensor, targets: torch.Tensor, worlds: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Fit a linear read-out; its strength is the one of STRENGTHS that errs least on a fifth of the worlds, the
    greatest where there is one world only.

    Args:
        features: [n, d]. targets: [n, k]. worlds: int [n], which world each row comes from.

    Returns:
        a function from features [m, d] to predictions [m, k].
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)

    def design(rows: torch.Tensor) -> torch.Tensor:
        scaled = (rows - mean) / deviation
        return torch.cat([scaled, torch.ones_like(scaled[:, :1])], 1).double()

    def solve(x: torch.Tensor, y: torch.Tensor, strengths: tuple[float, ...]) -> list[torch.Tensor]:
        gram, moments = x.T @ x, x.T @ y
        penalty = torch.full((x.shape[1],), float(len(x)), dtype=x.dtype, device=x.device)
        found = []
        for strength in strengths:
            shrink = strength * penalty
            shrink[-1] = 1e-9 * len(x)  # the constant is free
            found.append(torch.cholesky_solve(moments, torch.linalg.cholesky(gram + shrink.diag())))
        return found

    x, y = design(features), targets.double()
    held = held_out(worlds)
    errors = [(x[held] @ weights - y[held]).square().mean() for weights in solve(x[~held], y[~held], STRENGTHS)]
    best = STRENGTHS[int(torch.stack(errors).nan_to_num(torch.inf).argmin())] if held.any() else STRENGTHS[-1]
    (weights,) = solve(x, y, (best,))
    return lambda rows: (design(rows) @ weights).float()


def auroc(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half. nan if either
    class is missing.
    """
    positive = positive.bool()
    values, rank = torch.unique(scores, return_inverse=True)
    counts = torch.bincount(rank, minlength=len(values)).double()
    below = counts.cumsum(0) - counts
    p, n = int(positive.sum()), int((~positive).sum())
    if p == 0 or n == 0:
        return float("nan")
    mid_rank = below[rank] + (counts[rank] + 1) / 2
    return float((mid_rank[positive].sum() - p * (p + 1) / 2) / (p * n))


def relative_error_by_range(predicted: torch.Tensor, true: torch.Tensor) -> dict[str, float]:
    """Mean of |predicted - true| / true in each bin of BINS; distances under 1 m count as 1 m. Keys as "10-20"; empty
    bins are left out.
    """
    error = (predicted - true).abs() / true.clamp(min=1)
    bins = {f"{low:g}-{high:g}": (true >= low) & (true < high) for low, high in zip(BINS[:-1], BINS[1:], strict=True)}
    return {name: float(error[inside].mean()) for name, inside in bins.items() if inside.any()}


def probe(train: Frames, test: Frames) -> dict[str, float | dict[str, float]]:
    """Fit every probe on one set of worlds and score it on another.

    Returns:
        a figure for each label of `labels` that can be scored on these worlds (higher is better for AUROC and accuracy,
        lower for errors); one a range bin for distances.
    """
    result = {}
    for name, label in train.labels.items():
        truth = test.labels[name]
        rows, held_rows = label.mask, truth.mask
        if rows.sum() < 2 or not held_rows.any():
            continue
        if label.kind == "class":
            classes = torch.arange(int(label.value.max()) + 1, device=label.value.device)
            target = (label.value[rows, None] == classes).float()
        elif label.kind == "distance":
            target = label.value[rows, None].clamp(min=1).log()  # equal relative errors weigh the same
        else:
            target = label.value[rows, None]
        predicted = ridge(train.features[rows], target, train.worlds[rows])(test.features[held_rows])
        true = truth.value[held_rows]
        if label.kind == "presence":
            result[name] = auroc(predicted[:, 0], true)
        elif label.kind == "distance":
            result[name] = relative_error_by_range(predicted[:, 0].exp(), true)
        elif label.kind == "class":
            result[name] = float((predicted.argmax(1) == true).float().mean())
        else:
            result[name] = float((predicted[:, 0] - true).abs().mean())
    return {name: figure for name, figure in result.items() if figure == figure}
