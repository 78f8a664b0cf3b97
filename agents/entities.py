"""The way into the networks from a list of vehicles: a transformer, of whose tokens the ego's is what comes out.

After Leurent and Mercat 2019 (Social attention for autonomous decision-making in dense traffic,
https://arxiv.org/abs/1911.12250): the ego is embedded by itself, all others alike; it asks, and who is there answers.
Before it asks, the vehicles attend to each other.
"""

from collections.abc import Iterable

import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from agents.buffers import Observation
from agents.extractors import VectorExtractor
from envs.errors import UserError

STATE = "state"  # the entry of an observation that lists vehicles


def require_vehicles(sensors: Iterable, scenario: str) -> None:
    """Raise for worlds whose state is no list of vehicles.

    Args:
        sensors: of the worlds; those that list vehicles name their columns in `features`.
        scenario: its name.

    Raises:
        UserError: no sensor has a list whose first column says whether a vehicle is there.
    """
    if not any(STATE in sensor.spaces and getattr(sensor, "features", ())[:1] == ("presence",) for sensor in sensors):
        raise UserError(
            f"--policy entities reads lists of vehicles, and the state of '{scenario}' is none: leave --policy out"
        )


class Layer(nn.Module):
    """A transformer's layer, normalised before attention and hidden layer (Xiong et al. 2020,
    https://arxiv.org/abs/2002.04745), without dropout.

    Args:
        width: of the tokens.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm_hidden = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value, self.out = (nn.Linear(width, size) for size in (width, 2 * width, width))
        self.hidden = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, tokens: torch.Tensor, present: torch.Tensor, asking: int) -> torch.Tensor:
        """The first `asking` tokens, after they have asked all that are present.

        Args:
            tokens: Shape: (N, V, width).
            present: Shape: (N, V) bool.
            asking: 1 for the ego alone, V for all.
        """
        normed, asked = self.norm(tokens), tokens[:, :asking]
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(normed[:, :asking]), *self.key_value(normed).chunk(2, dim=2))
        )
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=present[:, None, None, :])
        asked = asked + self.out(heard.transpose(1, 2).flatten(2))
        return asked + self.hidden(self.norm_hidden(asked))


class EntityExtractor(VectorExtractor):
    """A list of vehicles, the ego first, as the ego's token after a transformer. Shape: (N, width) float32.

    What comes out does not depend on the order of the others, nor on what stands in the rows of those that are absent.
    Each column is in units of its standard deviation over all vehicles that were there; see `VectorExtractor`.

    Args:
        observation_space: "state" (V, F), whose first column is 1 where there is a vehicle and 0 elsewhere, and vectors
            that tell more about the ego.
        width: of the tokens.
        heads: of the attention.
        layers: in the last of them only the ego asks.
    """

    def __init__(self, observation_space: spaces.Dict, width: int = 64, heads: int = 4, layers: int = 2):
        columns = observation_space[STATE].shape[1]
        super().__init__(spaces.Box(-float("inf"), float("inf"), (columns,)))  # whose statistics are kept
        self._features_dim = width
        beside = {name: space for name, space in observation_space.items() if name != STATE}
        self.names = [STATE, *beside]
        self.beside = VectorExtractor(spaces.Dict(beside)) if beside else None
        told = self.beside.features_dim if self.beside else 0
        self.ego, self.other = nn.Linear(columns + told, width), nn.Linear(columns, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, obs: Observation) -> torch.Tensor:
        state = obs[STATE].float()
        scaled, there = self._scaled(state), _present(state)
        ego = scaled[:, :1]
        if self.beside is not None:
            ego = torch.cat([ego, self.beside(obs).unsqueeze(1)], 2)
        tokens = torch.cat([self.ego(ego), self.other(scaled[:, 1:])], 1)
        for layer in self.layers[:-1]:
            tokens = layer(tokens, there, tokens.shape[1])
        return self.norm(self.layers[-1](tokens, there, 1).squeeze(1))

    def update(self, obs: Observation) -> None:
        """See `VectorExtractor`."""
        super().update(obs)
        if self.beside is not None:
            self.beside.update(obs)

    def _flatten(self, obs: Observation) -> torch.Tensor:
        """The vehicles that are there. Shape: (M, F)."""
        state = obs[STATE].float()
        return state[_present(state)]


def _present(state: torch.Tensor) -> torch.Tensor:
    """Which rows hold a vehicle; the ego's always does. Shape: (N, V) bool."""
    ego = torch.arange(state.shape[1], device=state.device) == 0
    return (state[:, :, 0] > 0.5) | ego
