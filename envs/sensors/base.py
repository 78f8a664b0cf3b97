"""What every sensor is: buffers that it fills, and the launches that fill them."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces


class Sensor(Protocol):
    """A sensor of a batch of worlds.

    Attributes:
        outputs: key of the observation -> the latest observations. Shape: (N, ...), rows of a multiple of 4 bytes.
        finals: the last observations of episodes that ended, valid where one just did. Shape: as `outputs`.
        spaces: the spaces of one world's observations.
        memory: tensors that belong to the state of an episode, beyond the outputs.

    A sensor with an attribute `early` that is True observes a step between the agents' actions and their effect.
    """

    outputs: dict[str, torch.Tensor]
    finals: dict[str, torch.Tensor]
    spaces: dict[str, spaces.Box]
    memory: dict[str, torch.Tensor]

    def launches(self, which: int, restart: bool = False) -> list:
        """The launches that observe the worlds `which` (`envs.phases.ALL` or `ENDED`).

        Where `restart`, and in worlds that ended, the past that the sensor remembers is forgotten.
        """
        ...


def numbers(
    simulation, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, spaces.Box]]:
    """Outputs, finals and spaces, see `Sensor`, of float32 numbers without bounds.

    Args:
        simulation: whose worlds are observed.
        shapes: key of the observation -> shape in one world.
    """
    outputs = {
        name: torch.zeros((simulation.num_worlds, *shape), dtype=torch.float32, device=simulation.device)
        for name, shape in shapes.items()
    }
    finals = {name: torch.zeros_like(output) for name, output in outputs.items()}
    return outputs, finals, {name: spaces.Box(-np.inf, np.inf, shape, np.float32) for name, shape in shapes.items()}
