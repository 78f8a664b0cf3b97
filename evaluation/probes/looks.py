"""Looks that are held out: kinds of weather and of surfaces that no probe is trained on.

Domain randomisation draws a look a world and episode (`envs.sensors.appearance`). An end of the range of some
quantities is kept for tests. The encoder itself may have seen them while it was trained, without labels.
"""

import torch
from torch import Tensor

from envs.sensors.appearance import INDEX, QUANTITIES

# Group -> quantity -> (from, to): what is held out, of the quantity's range in domain randomisation.
HELD_OUT = {
    "weather": {
        "haze": (60.0, 105.0),  # m: thick
        "light": (0.45, 0.55),  # dusk
    },
    "surfaces": {
        "asphalt": (105.0, 120.0),  # pale
        "terrain_r": (150.0, 170.0),  # dry
    },
}


def look_of(env) -> Tensor:
    """What every world looks like now, see `envs.sensors.appearance.NAMES`. Shape: (N, Q)."""
    return next(sensor.memory["look"] for sensor in env.sim.sensors if "look" in sensor.memory)


def is_held_out(looks: Tensor, group: str) -> Tensor:
    """Which looks belong to a group of `HELD_OUT`. Shape: (N, Q) -> (N,) bool."""
    found = torch.zeros(len(looks), dtype=torch.bool, device=looks.device)
    for name, (low, high) in HELD_OUT[group].items():
        assert QUANTITIES[name][1] <= low < high <= QUANTITIES[name][2]
        value = looks[:, INDEX[name]]
        found |= (value >= low) & (value <= high)
    return found


def is_seen(looks: Tensor) -> Tensor:
    """Which looks belong to no group of `HELD_OUT`. Shape: (N, Q) -> (N,) bool."""
    return ~torch.stack([is_held_out(looks, group) for group in HELD_OUT]).any(0)


def split(looks: Tensor) -> dict[str, Tensor]:
    """Rows by look: "seen" in no group, and each group without the others. Shape: (N, Q) -> (n,) int64 each."""
    groups = {name: is_held_out(looks, name) for name in HELD_OUT}
    count = torch.stack(list(groups.values())).sum(0)
    rows = {"seen": is_seen(looks).nonzero()[:, 0]}
    return rows | {name: (inside & (count == 1)).nonzero()[:, 0] for name, inside in groups.items()}
