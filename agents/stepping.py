"""Stepping worlds in tensors: ours directly, any other stable-baselines3 VecEnv by way of NumPy."""

from typing import Protocol

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.buffers import Observation
from envs.sb3 import SB3VecEnv


class Stepper(Protocol):
    """What PPO needs of an environment: the step of `envs.api.VecWorlds`."""

    def step(
        self, actions: torch.Tensor
    ) -> tuple[Observation, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Advance every world by one policy step; those whose episode ends begin the next at once.

        Args:
            actions: Shape: (N,) or (N, A).

        Returns:
            observation (of the new episode where one ended), reward (N,), terminated (N,), truncated (N,), info with
            "final_obs" (what the ended episodes saw last). All of them may be overwritten by the next step.
        """


class HostStepper:
    """An SB3 VecEnv whose arrays are copied to and from a device. `info["host"]` is its list of dicts."""

    def __init__(self, env: VecEnv, device: torch.device):
        self.env, self.device = env, device

    def step(self, actions: torch.Tensor):
        """See `Stepper`."""
        obs, rewards, dones, infos = self.env.step(actions.numpy(force=True))
        truncated = dones & np.array([info.get("TimeLimit.truncated", False) for info in infos])
        final_obs = self._final_obs(obs, truncated, infos) if truncated.any() else None
        tensors = (torch.as_tensor(array, device=self.device) for array in (rewards, dones & ~truncated, truncated))
        return to_device(obs, self.device), *tensors, {"host": infos, "final_obs": final_obs}

    def _final_obs(self, obs, truncated: np.ndarray, infos: list[dict]) -> Observation:
        """The observations, with those that ended an episode by timeout in their rows."""
        rows = np.flatnonzero(truncated)
        if isinstance(obs, dict):
            final = {key: value.copy() for key, value in obs.items()}
            for row in rows:
                for key, value in infos[row]["terminal_observation"].items():
                    final[key][row] = value
        else:
            final = obs.copy()
            for row in rows:
                final[row] = infos[row]["terminal_observation"]
        return to_device(final, self.device)


def stepper(env: VecEnv, device: torch.device) -> Stepper:
    """The worlds themselves where `env` is an `envs.sb3.SB3VecEnv`, else `env` with its arrays copied."""
    if isinstance(env, SB3VecEnv):
        return env.worlds
    return HostStepper(env, device)


def to_device(obs, device: torch.device, copy: bool = False) -> Observation:
    """An observation (array, tensor or dict of either) as tensors on the device; float64 becomes float32."""
    if isinstance(obs, dict):
        return {key: to_device(value, device, copy) for key, value in obs.items()}
    tensor = torch.as_tensor(obs, device=device)
    if tensor.dtype == torch.float64:
        return tensor.float()
    return tensor.clone() if copy else tensor


def episode_ends(info: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return "r", length "l" and, where known, "crashed" of the episodes that ended. Shape of each: (N,) float32."""
    names = {"episode_return": "r", "episode_length": "l", "crashed": "crashed"}
    return {short: info[name].to(torch.float32, copy=True) for name, short in names.items() if name in info}
