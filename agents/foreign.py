"""Policies that are not ours: a Python callable, a factory named by its import path, a stable-baselines3 model.

Importing a module and reading a stable-baselines3 .zip (which holds pickled objects) both run code of whoever made
them, so that names and files are only loaded where the caller trusts them. Objects that are handed over are code that
runs already.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces

from envs.errors import UserError
from envs.scenarios import Scenario
from envs.sensors import rig

Tensors = dict[str, torch.Tensor]
# What envs.make_vec can be asked to observe, where an observation space names it.
SEEN = ("camera", "bev", "lidar", "grid")


class Called:
    """A callable, or an object with `act`, as a policy; see `agents.policies.Policy`.

    Args:
        policy: takes the observations of N worlds, a dict of tensors, and returns N actions as a tensor or array. Its
            attributes `name`, `env_options` and `scenario`, its methods `act`, `reset`, `explain` and `on_frame` (see
            `evaluation.recorder`) are used where it has them.

    Attributes:
        env_options: the policy's, or `observation="state"`.
        scenario: name of the scenario whose actions it takes, or None.
    """

    def __init__(self, policy: Any):
        self._policy = policy
        self._act: Callable[[Tensors], Any] = getattr(policy, "act", policy)
        name = getattr(policy, "name", None) or getattr(policy, "__name__", type(policy).__name__)
        self.name = str(name)
        self.env_options: dict[str, Any] = dict(getattr(policy, "env_options", {"observation": "state"}))
        if hasattr(policy, "on_frame"):
            self.on_frame = policy.on_frame
        header = getattr(policy, "header", {})
        self.scenario: str | None = getattr(policy, "scenario", None) or header.get("scenario")

    def prepare(self, scenario: Scenario) -> None:
        """It knows what it takes."""

    def act(self, obs: Tensors) -> Any:
        """What the callable returns."""
        return self._act(obs)

    def explain(self, obs: Tensors) -> Tensors | None:
        """What it explains, if it does."""
        return self._policy.explain(obs) if hasattr(self._policy, "explain") else None

    def reset(self, done: torch.Tensor | None = None) -> None:
        """Tell it, if it wants to know."""
        if hasattr(self._policy, "reset"):
            self._policy.reset(done)


class SB3Policy:
    """A stable-baselines3 model as a policy; see `agents.policies.Policy`. It takes its most probable actions.

    Its observation space says what it observes: a dict with one of `SEEN`, a picture (C, H, W), or anything else, which
    is taken to be the scenario's state. Boxes of other shapes but as many numbers are reshaped.

    Args:
        model: with `predict`, `observation_space` and `action_space`.
        name: for reports.
    """

    scenario: str | None = None

    def __init__(self, model: Any, name: str):
        self.model, self.name = model, name
        self.env_options = _options(model.observation_space)

    def prepare(self, scenario: Scenario) -> None:
        """Get ready for a scenario.

        Raises:
            UserError: it has other actions.
        """
        space, offered = self.model.action_space, scenario.actions
        if isinstance(space, spaces.Discrete) and len(offered.names) == space.n:
            return
        if isinstance(space, spaces.Box) and not offered.names and space.shape == (offered.size,):
            return
        if isinstance(space, spaces.Box) and offered.names and space.shape == (2,):
            self.env_options["ego"] = "continuous"
            return
        takes = f"{len(offered.names)} meta-actions" if offered.names else f"{offered.size} continuous actions"
        raise UserError(f"{self.name} takes actions {space}, and '{scenario.name}' has {takes}")

    def act(self, obs: Tensors) -> torch.Tensor:
        """Shape: (N,) int64 or (N, K) float32.

        Raises:
            UserError: the worlds do not give what it observes.
        """
        return torch.as_tensor(self.model.predict(self._seen(obs), deterministic=True)[0])

    def explain(self, obs: Tensors) -> None:
        """It has nothing to explain that all models share."""

    def reset(self, done: torch.Tensor | None = None) -> None:
        """It remembers nothing."""

    def _seen(self, obs: Tensors) -> np.ndarray | dict[str, np.ndarray]:
        space = self.model.observation_space
        if isinstance(space, spaces.Dict) and space.spaces.keys() <= obs.keys():
            return {name: _array(obs[name], part) for name, part in space.items()}
        if isinstance(space, spaces.Box):
            for name in ("state", "camera", *obs):
                if name in obs and obs[name][0].numel() == np.prod(space.shape):
                    return _array(obs[name], space)
        given = ", ".join(f"{name} {tuple(part.shape[1:])}" for name, part in obs.items())
        raise UserError(f"{self.name} observes {space}, and these worlds give {given}".replace("\n", " "))


def _array(values: torch.Tensor, space: spaces.Space) -> np.ndarray:
    return values.cpu().numpy().reshape(-1, *space.shape).astype(space.dtype)


def _options(space: spaces.Space) -> dict[str, Any]:
    """What `envs.make_vec` has to be told so that worlds give such observations."""
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    picture = parts.get("camera")
    if isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8:
        picture = space
    if picture is not None:
        channels, height, width = picture.shape
        mounted = rig.of_image(height, width) or rig.FRONT
        return {"observation": "camera", "frames": max(1, channels // 3), "rig": mounted.name}
    return {"observation": next((name for name in SEEN if name in parts), "state")}


def is_foreign(spec: str) -> bool:
    """Whether a specification names a policy that is not ours: FILE.zip or MODULE:NAME."""
    return spec.endswith(".zip") or (":" in spec and not os.path.exists(spec))


def load(policy: Any, device: torch.device | str = "cpu", trust: bool = False) -> Called | SB3Policy:
    """A policy that is not ours.

    Args:
        policy: "FILE.zip" of a stable-baselines3 model; "MODULE:NAME" of something that gives a policy when it is
            called without arguments; a stable-baselines3 model; a callable; or anything with `act`.
        device: of a model that is read.
        trust: whether a file or a module may run code of its own.

    Raises:
        UserError: a name that is not trusted, or leads to no policy.
    """
    if not isinstance(policy, str):
        return _adapted(policy, type(policy).__name__)
    if policy.endswith(".zip"):
        return SB3Policy(_read(Path(policy), device, trust), Path(policy).stem)
    made = _made(policy, trust)
    adapted = _adapted(made, policy)
    if adapted.name in ("function", "<lambda>", ""):
        adapted.name = policy
    return adapted


def _adapted(policy: Any, name: str) -> Called | SB3Policy:
    if isinstance(policy, Called | SB3Policy):
        return policy
    if hasattr(policy, "predict") and hasattr(policy, "observation_space"):
        return SB3Policy(policy, name)
    if not callable(getattr(policy, "act", policy)):
        raise UserError(f"a policy is something that can be called, or has 'act', and a {type(policy).__name__} is not")
    return Called(policy)


def _made(spec: str, trust: bool) -> Any:
    """What the factory of an import path gives."""
    if not trust:
        raise UserError(
            f"{spec} is a Python module, and importing it runs whatever is in it; add --trust if you know what that is"
        )
    module, _, name = spec.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cannot import {spec} ({error}); MODULE:NAME is what is looked for, from {os.getcwd()}"
        ) from None
    if not callable(factory):
        raise UserError(f"{spec} is a {type(factory).__name__}; it must be callable and return a policy")
    try:
        return factory()
    except TypeError as error:
        raise UserError(f"{spec} must return a policy when it is called without arguments ({error})") from None


def _read(path: Path, device: torch.device | str, trust: bool) -> Any:
    """A stable-baselines3 model from its file."""
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read("data"))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a stable-baselines3 model, or damaged ({error})") from None
    if not trust:
        raise UserError(
            f"{path} is a stable-baselines3 model: such a .zip holds pickled objects, and reading them runs whatever "
            "code is in there; add --trust if you know who made it"
        )
    # Schedules are for training, and may not unpickle under another Python.
    unused = {"learning_rate": 0.0, "lr_schedule": _zero, "clip_range": _zero, "exploration_schedule": _zero}
    try:
        return getattr(stable_baselines3, _algorithm(settings, path)).load(path, device=device, custom_objects=unused)
    except UserError:
        raise
    except Exception as error:  # whatever a pickled object may raise
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error})".replace("\n", " ")) from None


def _zero(progress: float) -> float:
    return 0.0


def _algorithm(settings: Mapping[str, Any], path: Path) -> str:
    """The class of a saved model, by the settings that only it has."""
    marks = {"clip_range": "PPO", "exploration_fraction": "DQN", "policy_delay": "TD3", "target_entropy": "SAC"}
    marks["gae_lambda"] = "A2C"  # PPO has it too, and comes first
    for mark, name in marks.items():
        if mark in settings:
            return name
    raise UserError(f"{path} is of an algorithm that is not known here: PPO, A2C, DQN, SAC, TD3 and DDPG are")


def digest(spec: str) -> str:
    """SHA-256 of the file that a policy is in; of MODULE:NAME the file of the module, but none that it imports."""
    path: str | None = spec
    if not spec.endswith(".zip"):
        module = spec.partition(":")[0]
        loaded = sys.modules.get(module)
        found = importlib.util.find_spec(module) if loaded is None else loaded.__spec__
        path = found.origin if found is not None else None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and os.path.isfile(path) else ""
