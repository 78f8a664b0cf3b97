"""Trajectories that are written down, for tests of metrics."""

import torch

from evaluation.trajectory import Trajectory

DT = 0.1


def drive(*vehicles: dict, frames: int = 21, crashed: dict[int, int] | None = None, **more) -> Trajectory:
    """One world of vehicles at constant velocity.

    Args:
        vehicles: x, y [m], speed [m/s], heading [rad], acceleration [m/s2], lane, kind, form, length, width [m], each a
            number or one by frame; the ego first. Where x or y is by frame, that is where the vehicle is.
        frames: to be recorded.
        crashed: slot -> frame from which on it is crashed.
        more: other fields of the trajectory.
    """
    time = DT * torch.arange(frames)
    default = {
        **dict.fromkeys(("x", "y", "speed", "heading", "acceleration"), 0.0),
        **{"lane": 0, "kind": 1, "form": 0, "length": 5.0, "width": 2.0},
    }

    def column(name: str, vehicle: dict) -> torch.Tensor:
        vehicle = default | vehicle
        value = torch.as_tensor(vehicle[name])
        if name in ("x", "y") and value.ndim == 0:
            heading = torch.as_tensor(vehicle["heading"])
            return value + vehicle["speed"] * (heading.cos() if name == "x" else heading.sin()) * time
        return value.expand(frames)

    def stack(name: str) -> torch.Tensor:
        return torch.stack([column(name, vehicle) for vehicle in vehicles], -1)[:, None]

    since = torch.full((len(vehicles),), frames + 1)
    for slot, frame in (crashed or {}).items():
        since[slot] = frame
    real = ("x", "y", "speed", "heading", "acceleration", "length", "width")
    lane = stack("lane").int()
    fields = {
        **{name: stack(name).float() for name in real},
        "lane": lane,
        "target_lane": lane,
        "crashed": (torch.arange(frames)[:, None] >= since)[:, None],
        "kind": stack("kind").to(torch.int8),
        "height": torch.full((frames, 1, len(vehicles)), 1.5),
        "form": stack("form").to(torch.int8),
        "frames": torch.tensor([frames]),
        "actions": torch.zeros(2, 1, dtype=torch.int64),
        "rewards": torch.ones(2, 1),
        "steps": torch.tensor([2]),
        "dt": DT,
        "frames_per_step": 10,
    }
    return Trajectory(**(fields | more))


def value(metric, trajectory: Trajectory) -> float | None:
    """The metric of the only episode, None where it is not valid."""
    result = metric.compute(trajectory)
    assert result.value.shape == result.valid.shape == (1,)
    return float(result.value) if result.valid else None
