"""Worlds seen through a frozen encoder: every camera frame is encoded once, and only its features are stored."""

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import nn

from agents.extractors import told
from agents.networks import load_weights, weights
from agents.wrapped import Wrapped

DTYPE = torch.float16  # of stored features: they are layer-normalised, so half precision loses about 0.1 %


@torch.no_grad()
def encode(
    encoder: nn.Module, obs: dict[str, torch.Tensor], names: Sequence[str] = ("speed",)
) -> dict[str, torch.Tensor]:
    """Features of the camera images, then what is told beside them, as one vector.

    Args:
        encoder: of `perception.encoders`; F features.
        obs: "camera" uint8 [N, C, H, W], and the named vectors, float32 [N, ...].
        names: see `agents.extractors.told`; K numbers in all.

    Returns:
        "features" float16 (N, F + K).
    """
    told = (obs[name].to(DTYPE) for name in names)
    return {"features": torch.cat([encoder(obs["camera"]).to(DTYPE), *told], dim=1)}


def space(encoder: nn.Module, beside: int) -> spaces.Dict:
    """The space of what `encode` returns, of one world; `beside` numbers are told beside the features."""
    size = encoder.features + beside
    return spaces.Dict({"features": spaces.Box(-float("inf"), float("inf"), (size,), "float16")})


class FeatureWorlds(Wrapped):
    """`envs.api.VecWorlds` with a camera, observed as one vector of `encode`.

    Everything but the observations is the worlds' own. `info["final_obs"]` is encoded only where an episode ended.

    Args:
        worlds: made with observation="camera".
        encoder: frozen, on the worlds' device.
    """

    def __init__(self, worlds, encoder: nn.Module):
        super().__init__(worlds)
        self.encoder = encoder
        observed = worlds.single_observation_space
        self.names = told(observed)
        self.single_observation_space = space(encoder, sum(observed[name].shape[0] for name in self.names))

    def reset(self, seed: int | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """See VecWorlds; the observation is that of `encode`."""
        obs, info = self.worlds.reset(seed=seed)
        return encode(self.encoder, obs, self.names), info

    def step(
        self, actions: torch.Tensor, **options: Any
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """See VecWorlds; the observation and info["final_obs"] are those of `encode`."""
        obs, reward, terminated, truncated, info = self.worlds.step(actions, **options)
        features = encode(self.encoder, obs, self.names)
        final = {name: torch.zeros_like(tensor) for name, tensor in features.items()}
        ended = info["_final_obs"].nonzero().squeeze(1)  # on a GPU this waits for the step: encoding all costs more
        if len(ended):
            last = {name: info["final_obs"][name][ended] for name in ("camera", *self.names)}
            seen = encode(self.encoder, last, self.names)
            for name, tensor in seen.items():
                final[name][ended] = tensor
        return features, reward, terminated, truncated, info | {"final_obs": final}

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on exactly: the worlds' state and the encoder's weights."""
        return {"worlds": self.worlds.get_state(), "encoder": weights(self.encoder)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `get_state`.

        Raises:
            ValueError: the state is of another encoder.
        """
        load_weights(self.encoder, state["encoder"])
        self.worlds.set_state(state["worlds"])
