"""Networks of the agents: actor-critic and action values, without host reads. The ways into them are in
`agents.extractors` and `agents.entities`."""

import itertools
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from torch import nn

from agents import ranks
from agents.buffers import Observation
from agents.entities import EntityExtractor
from agents.extractors import CameraExtractor, VectorExtractor


class Trunk(nn.Module):
    """Hidden layers that actor and critic share, with the interface of stable-baselines3's `MlpExtractor`.

    One trunk costs half of two, and learns as well where the value loss weighs little (0.1).

    Args:
        inputs: features in.
        hidden: units of each layer.
        activation: after each layer.
    """

    def __init__(self, inputs: int, hidden: list[int], activation: type[nn.Module]):
        super().__init__()
        sizes = [inputs, *hidden]
        layers = [(nn.Linear(a, b), activation()) for a, b in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*itertools.chain.from_iterable(layers))
        self.latent_dim_pi = self.latent_dim_vf = sizes[-1]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the actor's and the critic's last layer take: the same."""
        latent = self.layers(features)
        return latent, latent

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """What the actor's last layer takes."""
        return self.layers(features)

    forward_critic = forward_actor


class ActorCritic(ActorCriticPolicy):
    """stable-baselines3's actor-critic with a shared trunk, whose features extractor takes observations as they are
    stored (uint8 images, float16 features), with discrete actions sampled and scored in a few tensor operations.

    Sampling takes the largest of logits plus Gumbel noise: `torch.multinomial` checks its input on the host.
    """

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = Trunk(self.features_dim, self.net_arch, self.activation_fn)

    def extract_features(
        self, obs: Observation, features_extractor: BaseFeaturesExtractor | None = None
    ) -> torch.Tensor:
        """Features of raw observations, which actor and critic share. Shape: (N, features)."""
        return self.features_extractor(obs)

    def forward(self, obs: Observation, deterministic: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions (N,), values (N, 1) and log-probabilities (N,) for observations of N worlds."""
        if not isinstance(self.action_space, spaces.Discrete):
            return self._forward_continuous(obs, deterministic)
        values, log_p = self.values_and_log_probabilities(obs)
        scores = log_p if deterministic else log_p - ranks.drawn(log_p, torch.Tensor.exponential_).log()
        actions = scores.argmax(1)
        return actions, values, log_p.gather(1, actions.unsqueeze(1)).squeeze(1)

    def _forward_continuous(
        self, obs: Observation, deterministic: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As stable-baselines3's, which draws for the worlds of one rank alone."""
        if self.use_sde or not isinstance(self.action_space, spaces.Box):
            return super().forward(obs, deterministic)
        latent_pi, latent_vf = self.mlp_extractor(self.extract_features(obs))
        distribution = self._get_action_dist_from_latent(latent_pi)
        actions = distribution.mode()
        if not deterministic:
            actions = actions + distribution.distribution.stddev * ranks.drawn(actions, torch.Tensor.normal_)
        return actions, self.value_net(latent_vf), distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Observation, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values (N, 1), log-probabilities of `actions` (N,) and entropies (N,)."""
        if not isinstance(self.action_space, spaces.Discrete):
            return super().evaluate_actions(obs, actions)
        values, log_p = self.values_and_log_probabilities(obs)
        chosen = log_p.gather(1, actions.long().reshape(-1, 1)).squeeze(1)
        return values, chosen, -(log_p.exp() * log_p).sum(1)

    def values_and_log_probabilities(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (N, 1) and the log-probabilities of every discrete action (N, A)."""
        latent_pi, latent_vf = self.mlp_extractor(self.extract_features(obs))
        return self.value_net(latent_vf), torch.log_softmax(self.action_net(latent_pi), dim=1)

    def values_and_distributions(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (N, 1), and what actions are drawn from: log-probabilities (N, A) of discrete ones, means and standard
        deviations (N, 2, K) of continuous ones."""
        if isinstance(self.action_space, spaces.Discrete):
            return self.values_and_log_probabilities(obs)
        latent_pi, latent_vf = self.mlp_extractor(self.extract_features(obs))
        mean = self.action_net(latent_pi)
        return self.value_net(latent_vf), torch.stack([mean, self.log_std.exp().expand_as(mean)], 1)

    def get_distribution(self, obs: Observation) -> Distribution:
        """The distribution over actions, as an object of stable-baselines3."""
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(self.extract_features(obs)))

    def predict_values(self, obs: Observation) -> torch.Tensor:
        """Values. Shape: (N, 1)."""
        return self.value_net(self.mlp_extractor.forward_critic(self.extract_features(obs)))


class QNetwork(BasePolicy):
    """Values of every discrete action; with several quantiles, their distributions.

    Args:
        observation_space, action_space: of one world.
        features_extractor: observations in, vectors out.
        features_dim: size of those vectors.
        net_arch: units of the hidden layers.
        activation_fn: after each hidden layer.
        normalize_images: scale images to 0..1 before the extractor, where it is one of stable-baselines3's.
        duelling: a state's value and the actions' advantages have a hidden layer each, the last one, and are added
            (Wang et al. 2016, https://arxiv.org/abs/1511.06581).
        quantiles: of the return's distribution; 1 for its mean alone.
        layer_norm: normalise each hidden layer before its activation.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        duelling: bool = True,
        quantiles: int = 1,
        layer_norm: bool = False,
    ):
        super().__init__(
            observation_space, action_space, features_extractor=features_extractor, normalize_images=normalize_images
        )
        self.duelling, self.outputs = duelling, (int(action_space.n), quantiles)

        def layers(sizes: list[int]) -> list[nn.Module]:
            made = []
            for a, b in itertools.pairwise(sizes):
                made += [nn.Linear(a, b), *([nn.LayerNorm(b)] if layer_norm else []), activation_fn()]
            return made

        sizes = [features_dim, *net_arch]
        shared, own = (sizes[:-1], sizes[-2:]) if duelling and net_arch else (sizes, sizes[-1:])
        self.trunk = nn.Sequential(*layers(shared))
        self.advantages = nn.Sequential(*layers(own), nn.Linear(own[-1], self.outputs[0] * quantiles))
        self.state_value = nn.Sequential(*layers(own), nn.Linear(own[-1], quantiles)) if duelling else None

    def extract_features(
        self, obs: Observation, features_extractor: BaseFeaturesExtractor | None = None
    ) -> torch.Tensor:
        """Features of raw observations; those for stable-baselines3's extractors are preprocessed. Shape: (N, F)."""
        if isinstance(self.features_extractor, VectorExtractor | CameraExtractor):
            return self.features_extractor(obs)
        return super().extract_features(obs, self.features_extractor)

    def quantiles(self, obs: Observation) -> torch.Tensor:
        """Equally probable returns of every action, in no order. Shape: (N, A, Q)."""
        latent = self.trunk(self.extract_features(obs))
        values = self.advantages(latent).unflatten(1, self.outputs)
        if self.state_value is None:
            return values
        return self.state_value(latent).unsqueeze(1) + values - values.mean(1, keepdim=True)

    def forward(self, obs: Observation) -> torch.Tensor:
        """The value of every action. Shape: (N, A)."""
        return self.quantiles(obs).mean(2)

    def _predict(self, observation: Observation, deterministic: bool = True) -> torch.Tensor:
        return self(observation).argmax(1)


class QPolicy(DQNPolicy):
    """stable-baselines3's DQN policy around `QNetwork`, for observations of any kind.

    Args:
        observation_space, action_space: of one world.
        lr_schedule: learning rate as a function of the remaining progress.
        duelling, quantiles, layer_norm: see `QNetwork`.
        target: whether there is a target network, as DQN has it.
        features_extractor_class: by default the one that stable-baselines3 has for that kind of observation.
        others: see stable-baselines3's `DQNPolicy`.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        duelling: bool = True,
        quantiles: int = 1,
        layer_norm: bool = False,
        target: bool = True,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **others: Any,
    ):
        self.options = {"duelling": duelling, "quantiles": quantiles, "layer_norm": layer_norm}
        self.target = target
        if features_extractor_class is None:
            features_extractor_class = FlattenExtractor
            if isinstance(observation_space, spaces.Dict):
                features_extractor_class = CombinedExtractor
            elif is_image_space(observation_space):
                features_extractor_class = NatureCNN
        others |= {"features_extractor_class": features_extractor_class}
        super().__init__(observation_space, action_space, lr_schedule, **others)

    def make_q_net(self) -> QNetwork:
        return QNetwork(**self._update_features_extractor(self.net_args), **self.options).to(self.device)

    def _build(self, lr_schedule: Schedule) -> None:
        if self.target:
            super()._build(lr_schedule)
            return
        self.q_net, self.q_net_target = self.make_q_net(), None
        self.optimizer = self.optimizer_class(self.q_net.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.options | {"target": self.target}


def q_network(
    space: spaces.Space,
    actions: spaces.Discrete,
    hidden: list[int],
    encoder: str | None,
    options: dict[str, Any],
    architecture: str = "auto",
) -> QNetwork:
    """A `QNetwork` alone, as driving needs it.

    Args:
        space, actions: of one world.
        hidden, encoder, architecture: see `policy_kwargs`.
        options: "duelling", "quantiles" and "layer_norm", see `QNetwork`.
    """
    kwargs = policy_kwargs(hidden, encoder, architecture)
    extractor = kwargs["features_extractor_class"](space, **kwargs.get("features_extractor_kwargs", {}))
    activation = kwargs["activation_fn"]
    return QNetwork(space, actions, extractor, extractor.features_dim, list(hidden), activation, **options)


def policy_kwargs(hidden: list[int], encoder: str | None, architecture: str = "auto") -> dict[str, Any]:
    """`policy_kwargs` for an `ActorCritic` or a `QPolicy`.

    Args:
        hidden: units of the hidden layers, see `Trunk`.
        encoder: name of the encoder that learns with the policy; None if observations are vectors.
        architecture: "entities" for `agents.entities.EntityExtractor`; "lstm" is a class of its own, see
            `agents.recurrent`.
    """
    kwargs = {
        "net_arch": list(hidden),
        "activation_fn": nn.ReLU,
        "features_extractor_class": VectorExtractor,
        "optimizer_kwargs": {"eps": 1e-5, "fused": True},
    }
    if encoder:
        kwargs |= {"features_extractor_class": CameraExtractor, "features_extractor_kwargs": {"encoder": encoder}}
    elif architecture == "entities":
        kwargs |= {"features_extractor_class": EntityExtractor}
    return kwargs


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each once (a state dict repeats what is shared under every name)."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


@torch.no_grad()
def load_weights(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy `weights` of a module of the same shape into `module`.

    Raises:
        ValueError: names or shapes differ.
    """
    own = weights(module)
    if different := {name for name in own.keys() | tensors.keys() if _shape(own, name) != _shape(tensors, name)}:
        raise ValueError(f"different weights: {', '.join(sorted(different)[:3])}")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def _shape(tensors: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
