"""Gymnasium's interfaces: one world as an `Env`, a batch as a `VectorEnv`, and their registration.

`gymnasium.make("lanewise/highway-v0")` and `gymnasium.make_vec("lanewise/highway-v0", num_envs=64)` work once `envs`
is imported.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.api import make_vec
from envs.scenarios import SCENARIOS

AGENT_FACTS = ("agent_reward", "agent_finished")  # of each of several agents, in a step's info


def _numpy(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}


def _seed(env: gymnasium.Env | gymnasium.vector.VectorEnv, seed: int | None) -> int | None:
    """The simulator's seed for a reset: the caller's, or at the first reset one that Gymnasium's generator draws."""
    if seed is None and env.np_random_seed != -1 and env.unwrapped._begun:
        return None
    return int(env.np_random.integers(2**63))


class DrivingEnv(gymnasium.Env):
    """One world with NumPy observations.

    Takes the keyword arguments of `envs.make_vec`. Actions, observations, rewards and endings are those of
    `envs.api.VecWorlds`, without the leading dimension. `info` holds "speed" [m/s] and "crashed", at the end of an
    episode "is_success", and with several agents "agent_reward" and "agent_finished" (A,).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(self, scenario: str, render_mode: str | None = None, device: str = "cpu", **options: Any):
        self.worlds = make_vec(scenario, 1, device=device, **options)
        self.render_mode = render_mode
        self.observation_space = self.worlds.single_observation_space
        self.action_space = self.worlds.single_action_space
        self._begun = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Begin an episode: the first of a seed, or the next of the present one."""
        super().reset(seed=seed)
        obs, _ = self.worlds.reset(_seed(self, seed))
        self._begun = True
        return self._first(obs), {}

    def step(self, action) -> tuple[dict[str, np.ndarray], float, bool, bool, dict]:
        """One decision. After the end of an episode, call `reset`."""
        actions = torch.as_tensor(np.asarray(action), device=self.worlds.device)[None]
        obs, reward, terminated, truncated, info = self.worlds.step(actions)
        terminated, truncated = bool(terminated[0]), bool(truncated[0])
        # The batch has begun the next episode already where this one ended.
        last = info["final_obs"] if terminated or truncated else obs
        facts: dict[str, Any] = {"speed": float(info["speed"][0]), "crashed": bool(info["crashed"][0])}
        facts |= {name: info[name][0].cpu().numpy() for name in AGENT_FACTS if name in info}
        if terminated or truncated:
            facts["is_success"] = bool(info["success"][0])
        return self._first(last), float(reward[0]), terminated, truncated, facts

    def render(self) -> np.ndarray | None:
        """The viewer's picture, where `render_mode` is "rgb_array"."""
        return self.worlds.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the simulator's threads."""
        self.worlds.close()

    @staticmethod
    def _first(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        return {name: array[0] for name, array in _numpy(tensors).items()}


class DrivingVectorEnv(gymnasium.vector.VectorEnv):
    """The batched simulator behind Gymnasium's `VectorEnv`, with NumPy arrays and same-step autoreset.

    Takes the keyword arguments of `envs.make_vec`. `info` holds "speed" [m/s] and "crashed" (N,), with several agents
    "agent_reward" and "agent_finished" (N, A), and where episodes end "final_obs", "_final_obs" and "is_success" (N,).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5, "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self, scenario: str, num_envs: int = 1, render_mode: str | None = None, device: str = "auto", **options: Any
    ):
        self.worlds = make_vec(scenario, num_envs, device=device, **options)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = self.worlds.single_observation_space
        self.single_action_space = self.worlds.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._begun = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Begin an episode in every world."""
        super().reset(seed=seed)
        obs, _ = self.worlds.reset(_seed(self, seed))
        self._begun = True
        return _numpy(obs), {}

    def step(self, actions: np.ndarray) -> tuple[dict, np.ndarray, np.ndarray, np.ndarray, dict]:
        """One decision in every world; `info["final_obs"]` holds last observations where `info["_final_obs"]`."""
        actions = torch.as_tensor(np.asarray(actions), device=self.worlds.device)
        obs, reward, terminated, truncated, info = self.worlds.step(actions)
        ended = info["_final_obs"].cpu().numpy()
        facts = {name: info[name].cpu().numpy() for name in ("speed", "crashed", *AGENT_FACTS) if name in info}
        if ended.any():
            final = _numpy(info["final_obs"])
            rows = np.full(self.num_envs, None, dtype=object)
            for k in np.flatnonzero(ended):
                rows[k] = {name: array[k] for name, array in final.items()}
            facts |= {"final_obs": rows, "_final_obs": ended, "is_success": info["success"].cpu().numpy() & ended}
        return (
            _numpy(obs),
            reward.cpu().numpy().astype(np.float64),
            terminated.cpu().numpy(),
            truncated.cpu().numpy(),
            facts,
        )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The viewer's picture of every world, where `render_mode` is "rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return tuple(self.worlds.render(world) for world in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """End the simulator's threads."""
        self.worlds.close()


def register() -> None:
    """Register every scenario as "lanewise/NAME-v0"."""
    for name in SCENARIOS:
        gymnasium.register(
            id=f"lanewise/{name}-v0",
            entry_point="envs.gymnasium:DrivingEnv",
            vector_entry_point="envs.gymnasium:DrivingVectorEnv",
            kwargs={"scenario": name},
            # Time limits are the scenario's own: the simulator reports truncation.
            max_episode_steps=None,
        )
