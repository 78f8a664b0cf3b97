"""The ways into the agents' networks: from vectors, and from pictures through an encoder that learns with them."""

from collections.abc import Iterable

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from agents import ranks
from agents.buffers import Observation
from perception import encoders


class VectorExtractor(BaseFeaturesExtractor):
    """A vector, or a dict of arrays laid end to end, in units of its standard deviation. Shape: (N, size) float32.

    Mean and variance are those of everything seen in training; they are buffers, saved with the weights. Agents call
    `update` between two rollouts, so that one rollout is collected and learnt from under the same ones.
    """

    CLIP = 10.0  # standard deviations

    def __init__(self, observation_space: spaces.Space):
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.names = list(observation_space) if isinstance(observation_space, spaces.Dict) else []
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(self.features_dim))
        self.register_buffer("variance", torch.ones(self.features_dim))

    def forward(self, obs: Observation) -> torch.Tensor:
        return self._scaled(self._flatten(obs))

    @torch.no_grad()
    def update(self, obs: Observation) -> None:
        """Take more observations, of all ranks, into mean and variance (Chan et al. 1979, parallel variance).

        obs: this rank's. Shape: (B, ...).
        """
        rows, mean, variance = ranks.moments(self._flatten(obs))
        total = self.count + rows
        share = (rows / total).float()
        difference = mean - self.mean
        spread = variance - self.variance + difference**2 * (1 - share)
        self.mean += share * difference
        self.variance += share * spread
        self.count.copy_(total)

    def _scaled(self, rows: torch.Tensor) -> torch.Tensor:
        """Shape: (..., size)."""
        return ((rows - self.mean) * torch.rsqrt(self.variance + 1e-6)).clamp(-self.CLIP, self.CLIP)

    def _flatten(self, obs: Observation) -> torch.Tensor:
        parts = [obs[name] for name in self.names] if self.names else [obs]
        return torch.cat([part.flatten(1).float() for part in parts], dim=1)


IMAGES = ("camera", "bev")  # observations that are pictures


def told(names: Iterable[str]) -> tuple[str, ...]:
    """Which observations are no pictures, in the order in which networks take them: the speed, the others by name."""
    return tuple(sorted(set(names) - set(IMAGES), key=lambda name: (name != "speed", name)))


class CameraExtractor(BaseFeaturesExtractor):
    """An encoder of `perception.encoders` that learns with the policy, and what is told beside its pictures.

    Args:
        observation_space: "camera" or "bev" uint8 [C, H, W], and vectors.
        encoder: its name.

    Attributes:
        image: which of the two it sees.
        names: see `told`.
    """

    def __init__(self, observation_space: spaces.Dict, encoder: str):
        image = "bev" if "bev" in observation_space.spaces else "camera"
        network = encoders.build(encoder, *observation_space[image].shape)
        names = told(observation_space)
        super().__init__(observation_space, network.features + sum(observation_space[name].shape[0] for name in names))
        self.encoder, self.image, self.names = network, image, names

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([self.encoder(obs[self.image]), *(obs[name] for name in self.names)], dim=1)
