"""Policies that act: what evaluation and viewer drive with, from a name, a run directory or the zoo."""

from pathlib import Path
from typing import Any, Protocol

import torch
from gymnasium import spaces

import envs
from agents import checkpoint, defects, features
from agents.drivers import IDMDriver, RandomDriver, action_space
from agents.extractors import CameraExtractor, told
from agents.networks import ActorCritic, QNetwork, load_weights, policy_kwargs, q_network, weights
from agents.recurrent import Memory, RecurrentActorCritic, one_step
from agents.reference_drivers import DRIVERS
from envs.errors import UserError, unknown
from envs.scenarios import Scenario
from perception import encoders

NAME = "policy.safetensors"
ZOO = Path(__file__).parent.parent / "zoo"
Tensors = dict[str, torch.Tensor]


class Policy(Protocol):
    """Something that drives.

    Attributes:
        name: for reports.
        env_options: the keyword arguments of `envs.make_vec` without which it cannot drive.
    """

    name: str
    env_options: dict[str, Any]

    def act(self, obs: Tensors) -> torch.Tensor:
        """Actions for the observations of N worlds; the most probable ones, except for "random". Shape: (N,) int64, or
        as the worlds' action space has it."""

    def explain(self, obs: Tensors) -> Tensors | None:
        """ "value" (N,), discounted return to come, and what the policy's actions come from: "probabilities" (N, A) of
        meta-actions, "mean" and "deviation" (N, K) of continuous ones, or "action_values" (N, A). None for drivers
        without them."""

    def reset(self, done: torch.Tensor | None = None) -> None:
        """Forget what is remembered of worlds: all, or those where `done` (N,) is True."""


class TrainedPolicy:
    """A trained actor-critic with its encoder, if the worlds are seen through one. See `Policy`.

    Attributes:
        told: names of what it observes beside pictures, see `agents.extractors.told`.
        remembers: whether what it does depends on what it saw before.
    """

    remembers = False

    def __init__(
        self, name: str, network: ActorCritic | QNetwork, encoder: torch.nn.Module | None, header: dict[str, Any]
    ):
        self.name, self.network, self.encoder, self.header = name, network, encoder, header
        self.env_options: dict[str, Any] = dict(header["env_options"])
        self.told = told(header["observation"])

    def camera_encoder(self) -> tuple[torch.nn.Module, dict[str, Any]]:
        """The encoder of its camera, frozen or learnt with the policy, and what `encoders.rebuild` needs.

        Raises:
            UserError: it sees no camera.
        """
        if self.encoder is not None:
            return self.encoder, self.header["encoder"]
        extractor = self.network.features_extractor
        if not isinstance(extractor, CameraExtractor) or extractor.image != "camera":
            raise UserError(f"the policy in {self.name} has no encoder: it sees no camera")
        sizes = zip(("in_channels", "height", "width"), self.header["observation"]["camera"], strict=True)
        return extractor.encoder, {"encoder": self.header["learned_encoder"], **dict(sizes)}

    def _seen(self, obs: Tensors) -> Tensors:
        return obs if self.encoder is None else features.encode(self.encoder, obs, self.told)

    @torch.no_grad()
    def act(self, obs: Tensors) -> torch.Tensor:
        """See `Policy`."""
        actions = self.network(self._seen(obs), deterministic=True)[0]
        return actions.clamp(-1, 1) if isinstance(self.network.action_space, spaces.Box) else actions

    @torch.no_grad()
    def explain(self, obs: Tensors) -> Tensors:
        """See `Policy`."""
        seen = self._seen(obs)
        if isinstance(self.network.action_space, spaces.Discrete):
            values, log_p = self.network.values_and_log_probabilities(seen)
            return {"probabilities": log_p.exp(), "value": values.squeeze(1)}
        normal = self.network.get_distribution(seen).distribution
        value = self.network.predict_values(seen).squeeze(1)
        return {"mean": normal.mean, "deviation": normal.stddev, "value": value}

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""


class TrainedRecurrent(TrainedPolicy):
    """A trained actor-critic with a memory of the episode, which `act` adds to. See `Policy`."""

    remembers = True

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._state: torch.Tensor | None = None  # see `agents.recurrent.Memory`

    def _seen(self, obs: Tensors) -> Memory:
        """The observations, and what was seen before them.

        Raises:
            UserError: they are not of the worlds that were seen before.
        """
        seen, count = super()._seen(obs), len(next(iter(obs.values())))
        state = self.network.first_state(count) if self._state is None else self._state
        if state.shape[1] != count:
            raise UserError(f"'{self.name}' remembers {state.shape[1]} worlds, and was shown {count}")
        starts = torch.zeros(count, dtype=torch.bool, device=state.device)
        return self.network.remember(one_step(seen, state, starts))

    @torch.no_grad()
    def act(self, obs: Tensors) -> torch.Tensor:
        """See `Policy`. Call it once a step."""
        memory = self._seen(obs)
        self._state = memory.state
        actions = self.network(memory, deterministic=True)[0]
        return actions.clamp(-1, 1) if isinstance(self.network.action_space, spaces.Box) else actions

    def reset(self, done: torch.Tensor | None = None) -> None:
        """See `Policy`."""
        if done is None:
            self._state = None
        elif self._state is not None:
            self._state[:, done] = 0.0


class TrainedValues(TrainedPolicy):
    """Trained action values, of which the highest is taken. See `Policy`."""

    @torch.no_grad()
    def act(self, obs: Tensors) -> torch.Tensor:
        """See `Policy`."""
        return self.network(self._seen(obs)).argmax(1)

    @torch.no_grad()
    def explain(self, obs: Tensors) -> Tensors:
        """See `Policy`; the value is that of the best action."""
        values = self.network(self._seen(obs))
        return {"action_values": values, "value": values.amax(1)}


def save(path: Path, network: ActorCritic | QNetwork, encoder: torch.nn.Module | None, header: dict[str, Any]) -> None:
    """Write a policy: all that is needed to drive, and nothing else.

    Args:
        path: the file.
        network: its weights.
        encoder: frozen, in front of the network; None if there is none.
        header: "scenario", "family", "env_options", "actions" (see `describe_actions`), "observation" (name: shape),
            "hidden" and "learned_encoder" (see `networks.policy_kwargs`), "encoder" (of the frozen one, if any:
            {"encoder": name, "in_channels", "height", "width"}); with action values "action_values", the options of
            `networks.q_network`; "architecture" (see `networks.policy_kwargs`), "auto" if left out. Further entries are
            for readers.

    Raises:
        OSError: the file could not be written; the old one is as it was.
    """
    tensors = {f"policy.{name}": tensor for name, tensor in weights(network).items()}
    if encoder is not None:
        tensors |= {f"encoder.{name}": tensor for name, tensor in weights(encoder).items()}
    checkpoint.write(path, tensors, {"kind": "policy", **header})


def read(path: Path, name: str, device: torch.device | str = "cpu") -> TrainedPolicy:
    """Read what `save` wrote.

    Raises:
        UserError: the file is missing, damaged, or no policy.
    """
    tensors, header = checkpoint.read(path)
    if header.get("kind") != "policy":
        raise UserError(f"{path} is no policy")
    encoder = None
    if card := header["encoder"]:
        encoder = encoders.rebuild(card)
    space, actions = _space(header, encoder), actions_of(header["actions"])
    layers, architecture = (header["hidden"], header["learned_encoder"]), header.get("architecture", "auto")
    if options := header.get("action_values"):
        kind, network = TrainedValues, q_network(space, actions, *layers, options, architecture)
    else:
        made_of = RecurrentActorCritic if architecture == "lstm" else ActorCritic
        network = made_of(space, actions, lambda _: 0.0, **policy_kwargs(*layers, architecture))
        kind = TrainedRecurrent if architecture == "lstm" else TrainedPolicy
    for module, prefix in ((network, "policy."), (encoder, "encoder.")):
        if module is not None:
            load_weights(module, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            module.to(device).eval().requires_grad_(False)
    return kind(name, network, encoder, header)


def describe_actions(space: spaces.Space) -> int | dict[str, list[int]]:
    """A space of actions as JSON holds it: how many there are, or {"shape": ...} of continuous ones."""
    return int(space.n) if isinstance(space, spaces.Discrete) else {"shape": list(space.shape)}


def actions_of(described: int | dict[str, list[int]]) -> spaces.Space:
    """Undo `describe_actions`."""
    return spaces.Discrete(described) if isinstance(described, int) else spaces.Box(-1.0, 1.0, described["shape"])


def _space(header: dict[str, Any], encoder: torch.nn.Module | None) -> spaces.Space:
    """The observation space that the network was built for."""
    if encoder is not None:
        return features.space(encoder, sum(header["observation"][name][0] for name in told(header["observation"])))
    kinds = dict.fromkeys(("camera", "bev"), (0, 255, "uint8"))
    return spaces.Dict(
        {
            name: spaces.Box(low, high, tuple(shape), dtype)
            for name, shape in header["observation"].items()
            for low, high, dtype in [kinds.get(name, (-float("inf"), float("inf"), "float32"))]
        }
    )


def zoo() -> list[str]:
    """The names of the shipped policies, as "zoo/NAME"."""
    return sorted(f"zoo/{path.parent.name}" for path in ZOO.glob(f"*/{NAME}"))


def load(spec: str, scenario: str | Scenario = "highway", device: torch.device | str = "cpu") -> Policy:
    """A policy by its specification.

    Args:
        spec: "random", "idm", a reference driver's name (`agents.reference_drivers.DRIVERS`), which may be followed by
            seeded defects ("careful+late", see `agents.defects`), "zoo/NAME", or the path of a run directory.
        scenario: the scenario that it is to drive, or its name.
        device: where its observations will be.

    Raises:
        UserError: nothing of that name, a damaged file, or a policy of a scenario with other actions or observations;
            "idm" where nobody drives along lanes; a reference driver outside staged cases.
    """
    wanted = envs.scenarios.get(scenario)
    if spec == "random":
        return RandomDriver(action_space(wanted), device)
    if spec == "idm":
        return IDMDriver(wanted, device)
    reference, *seeded = spec.split("+")
    if reference in DRIVERS:
        return defects.seed(DRIVERS[reference](wanted, device), seeded)
    folder = ZOO / spec.removeprefix("zoo/") if spec.startswith("zoo/") else Path(spec)
    if not folder.is_dir():
        raise unknown("policy", spec, ["random", "idm", *DRIVERS, *zoo(), "the path of a run directory"])
    if not (folder / NAME).exists():
        raise UserError(f"no policy in {folder}: {NAME} is missing")
    policy = read(folder / NAME, spec, device)
    if policy.header["family"] != wanted.family:
        raise UserError(
            f"the policy in {folder} was trained on '{policy.header['scenario']}' and cannot drive '{wanted.name}'"
        )
    return policy
