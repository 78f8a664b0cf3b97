"""stable-baselines3's `VecEnv` over a batch of worlds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from envs.api import VecWorlds
from envs.errors import UserError


class SB3VecEnv(VecEnv):
    """A batch of worlds as stable-baselines3 expects it: NumPy arrays, same-step autoreset, one info dict a world.

    At the end of an episode a world's info holds "terminal_observation", "TimeLimit.truncated" and "episode" with the
    keys that `Monitor` gives ("r", "l"), and "is_success", see `VecWorlds.step`.

    Args:
        worlds: the batch, see `envs.make_vec`.

    Raises:
        UserError: it has several agents a world.
    """

    def __init__(self, worlds: VecWorlds):
        state = getattr(worlds, "state", None)
        if state is not None and state.agents > 1:
            raise UserError(
                f"stable-baselines3 knows one agent a world, not {state.agents}: use envs.pettingzoo, or agents=1"
            )
        self.worlds = worlds
        self.render_mode = "rgb_array"
        super().__init__(worlds.num_worlds, worlds.single_observation_space, worlds.single_action_space)
        self._actions: torch.Tensor | None = None

    def reset(self) -> dict[str, np.ndarray]:
        """Begin an episode in every world: with the seed last given to `seed`, or the next episodes."""
        seed = self._seeds[0]
        obs, _ = self.worlds.reset(seed)
        self._reset_seeds()
        return self._numpy(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = torch.as_tensor(actions, device=self.worlds.device)

    def step_wait(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[dict]]:
        """One decision in every world."""
        obs, reward, terminated, truncated, info = self.worlds.step(self._actions)
        done = info["_final_obs"].cpu().numpy()
        speed, crashed = info["speed"].cpu().numpy(), info["crashed"].cpu().numpy()
        infos: list[dict] = [{"speed": float(v), "crashed": bool(c)} for v, c in zip(speed, crashed, strict=True)]
        if done.any():
            final = self._numpy(info["final_obs"])
            returns, lengths = info["episode_return"].cpu().numpy(), info["episode_length"].cpu().numpy()
            ended_by_rules = terminated.cpu().numpy()
            # Worlds without a notion of success succeed where they do not crash.
            success = info["success"].cpu().numpy() if "success" in info else ~crashed
            for k in np.flatnonzero(done):
                infos[k] |= {
                    "terminal_observation": {name: array[k] for name, array in final.items()},
                    "TimeLimit.truncated": not ended_by_rules[k],
                    "episode": {"r": float(returns[k]), "l": int(lengths[k])},
                    "is_success": bool(success[k]),
                }
        return self._numpy(obs), reward.cpu().numpy().astype(np.float32), done, infos

    def close(self) -> None:
        """End the simulator's threads."""
        self.worlds.close()

    def get_images(self) -> Sequence[np.ndarray]:
        """The viewer's picture of every world."""
        return [self.worlds.render(world) for world in range(self.num_envs)]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the batch, once for every world asked for."""
        value = self.render_mode if attr_name == "render_mode" else getattr(self.worlds, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the whole batch.

        Raises:
            ValueError: `indices` names only some of the worlds, which share the attribute.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("worlds of a batch share their attributes: set them for all worlds")
        setattr(self.worlds, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the batch, once."""
        value = getattr(self.worlds, method_name)(*method_args, **method_kwargs)
        return [value for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False for every world: the batch is not a chain of wrappers."""
        return [False for _ in self._get_indices(indices)]

    @staticmethod
    def _numpy(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        return {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}
