"""PettingZoo's parallel interface over one world of several agents.

    from envs.pettingzoo import parallel_env

    env = parallel_env("intersection-multi-agent", observation="state")
    observations, infos = env.reset(seed=0)
    while env.agents:
        actions = {agent: env.action_space(agent).sample() for agent in env.agents}
        observations, rewards, terminations, truncations, infos = env.step(actions)

Needs the optional dependency: pip install lanewise[pettingzoo].
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding

from envs.api import make_vec

try:
    from pettingzoo import ParallelEnv
except ImportError as missing:
    raise ImportError("envs.pettingzoo needs PettingZoo: pip install pettingzoo") from missing

# What an agent that has left does: the meta-action, or no throttle and no steering.
IDLE = "IDLE"


class DrivingParallelEnv(ParallelEnv):
    """One world whose agents, "agent_0" and so on, act at the same time; see `parallel_env`.

    Observations, actions and rewards are those of `envs.api.VecWorlds`, by agent. An agent that has finished (crashed
    or arrived) is terminated and leaves `agents`; its vehicle stays in the world, where it goes on as it is. When the
    world's episode ends, by its rules or its time limit, so does that of all who are left. `infos` hold
    "success" where that is so: whether the ego reached its goal, see `VecWorlds.step`.
    """

    metadata = {"name": "lanewise", "render_modes": ["rgb_array"], "render_fps": 5, "is_parallelizable": True}

    def __init__(self, scenario: str, render_mode: str | None = None, device: str = "cpu", **options: Any):
        self.worlds = make_vec(scenario, 1, device=device, **options)
        self.render_mode = render_mode
        self._count = self.worlds.scenario.agents
        self.possible_agents = [f"agent_{k}" for k in range(self._count)]
        self.agents: list[str] = []
        observation, action = self._spaces()
        self.observation_spaces = dict.fromkeys(self.possible_agents, observation)
        self.action_spaces = {agent: _copy(action) for agent in self.possible_agents}
        self._generator: np.random.Generator | None = None

    def _spaces(self) -> tuple[spaces.Dict, spaces.Space]:
        """One agent's spaces."""
        seen, action = self.worlds.single_observation_space, self.worlds.single_action_space
        if self._count == 1:
            return seen, action
        boxes = {name: spaces.Box(box.low[0], box.high[0], dtype=box.dtype.type) for name, box in seen.items()}
        if isinstance(action, spaces.MultiDiscrete):
            return spaces.Dict(boxes), spaces.Discrete(int(action.nvec[0]))
        return spaces.Dict(boxes), spaces.Box(action.low[0], action.high[0], dtype=action.dtype.type)

    def observation_space(self, agent: str) -> spaces.Dict:
        """The space of an agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        """The space of an agent's actions."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, dict], dict[str, dict]]:
        """Begin an episode: the first of a seed, or the next of the present one."""
        drawn = None
        if seed is not None or self._generator is None:
            self._generator, _ = seeding.np_random(seed)
            drawn = int(self._generator.integers(2**63))
        obs, _ = self.worlds.reset(drawn)
        self.agents = list(self.possible_agents)
        return self._by_agent(obs), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """One decision of every agent in `agents`.

        Returns:
            observations, rewards, terminations, truncations and infos, of the agents that acted.

        Raises:
            KeyError: an agent's action is missing.
        """
        obs, reward, terminated, truncated, info = self.worlds.step(self._joint(actions))
        over, cut = bool(terminated[0]), bool(truncated[0])
        # The world has begun its next episode already where this one ended.
        seen = self._by_agent(info["final_obs"] if over or cut else obs)
        own = info["agent_reward"][0] if self._count > 1 else reward
        finished = info["agent_finished"][0] if self._count > 1 else terminated
        acted = [(k, agent) for k, agent in enumerate(self.possible_agents) if agent in self.agents]
        rewards = {agent: float(own[k]) for k, agent in acted}
        terminations = {agent: over or bool(finished[k]) for k, agent in acted}
        truncations = {agent: cut for _, agent in acted}
        facts = {agent: {"success": bool(info["success"][0])} if over or cut else {} for _, agent in acted}
        self.agents = [agent for _, agent in acted if not (terminations[agent] or cut)]
        return {agent: seen[agent] for _, agent in acted}, rewards, terminations, truncations, facts

    def _joint(self, actions: dict[str, Any]) -> torch.Tensor:
        """The actions of all, those of agents that have left included. Shape: (1, A) or (1, A, K)."""
        rest = self._rest()
        rows = [np.asarray(actions[agent]) if agent in self.agents else rest for agent in self.possible_agents]
        joint = torch.as_tensor(np.stack(rows), device=self.worlds.device)
        return joint if self._count == 1 else joint[None]

    def _rest(self) -> np.ndarray:
        names = self.worlds.action_names
        return np.array(names.index(IDLE)) if names else np.zeros(self.worlds.scenario.actions.size, dtype=np.float32)

    def _by_agent(self, tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, np.ndarray]]:
        arrays = {name: tensor[0].cpu().numpy().copy() for name, tensor in tensors.items()}
        if self._count == 1:
            return {self.possible_agents[0]: arrays}
        return {agent: {name: a[k] for name, a in arrays.items()} for k, agent in enumerate(self.possible_agents)}

    def render(self) -> np.ndarray | None:
        """The viewer's picture, where `render_mode` is "rgb_array"."""
        return self.worlds.render() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the simulator's threads."""
        self.worlds.close()


def _copy(space: spaces.Space) -> spaces.Space:
    """The same space with a generator of its own."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    return spaces.Box(space.low, space.high, dtype=space.dtype.type)


def parallel_env(scenario: str = "intersection-multi-agent", **options: Any) -> DrivingParallelEnv:
    """A world of several agents as PettingZoo's `ParallelEnv`.

    Args:
        scenario: a name from `envs.list_scenarios()`.
        options: `render_mode` ("rgb_array" or None), `device`, and the keyword arguments of `envs.make_vec`; with
            `agents` any scenario that has room for several.

    Raises:
        UserError: see `envs.make_vec`.
    """
    return DrivingParallelEnv(scenario, **options)
