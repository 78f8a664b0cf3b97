"""highway-env itself: as the oracle that our worlds must equal, and as a second back end to drive and film policies in.

`from_highway_env` takes the exact state of a live highway-env environment into our simulator. `HighwayEnvWorlds` has
the interface of `envs.api.VecWorlds`, but every world is a highway-env environment, which our sensors observe.
"""

from collections.abc import Callable
from dataclasses import replace

import gymnasium
import numpy as np
import torch

from envs import scenarios
from envs.api import VecWorlds
from envs.errors import UserError, unknown
from envs.physics.actions import META_ACTIONS
from envs.sensors.rig import Rig
from envs.simulation import Simulation, resolve_device
from envs.state import KINDS
from envs.upstream.observations import sensors_of
from envs.upstream.scenarios import kind_of, scenario_of
from envs.upstream.state import import_state


class ImportedWorld:
    """One world that began as the exact state of a highway-env environment. See `from_highway_env`."""

    def __init__(self, env: gymnasium.Env, dtype: str = "float64"):
        env = env.unwrapped
        self.scenario = scenario_of(env)
        kind = {number: name for name, number in KINDS.items()}[kind_of(env.vehicle)]
        try:
            self.simulation = self._simulate(kind, dtype, lambda simulation: sensors_of(env, simulation))
            self._observes = True
        except UserError:
            # It can be driven even where it cannot be observed: `observation` then tells why.
            self._observes = False
            self.simulation = self._simulate(kind, dtype)
        self._env = env
        self.resume(env)

    def _simulate(self, kind: str, dtype: str, sensors: Callable[[Simulation], list] | None = None) -> Simulation:
        return Simulation(self.scenario, 1, resolve_device("cpu"), dtype, kind, sensors)

    def resume(self, env: gymnasium.Env) -> None:
        """Take the present state of the environment again, where it has drawn something that ours cannot know."""
        import_state(self.simulation, 0, env)
        self._vehicles = len(env.unwrapped.road.vehicles)
        self._begun = False

    def step(self, action) -> tuple[float, bool, bool]:
        """One policy step without renewal: the world goes on after its end, as highway-env's does.

        Args:
            action: as the environment takes it: a number, an array in [-1, 1], or a tuple of them for several egos.

        Returns:
            reward, terminated and truncated.
        """
        if self._begun:
            self.simulation.exchange_traffic()
        self._begun = True
        actions = self.scenario.actions
        commands = self.simulation.commands.view(self.scenario.agents, 2)
        for agent, chosen in enumerate(action if self.scenario.agents > 1 else (action,)):
            if actions.names:
                commands[agent, 0] = META_ACTIONS.index(actions.names[int(chosen)])
                continue
            chosen = np.ravel(chosen)
            if actions.throttle:
                commands[agent, 0] = float(chosen[0])
            if actions.steering:
                commands[agent, 1] = float(chosen[-1])
        self.simulation.step_once()
        state = self.simulation.state
        return state.reward.item(), bool(state.terminated.item()), bool(state.truncated.item())

    def observation(self) -> dict[str, np.ndarray]:
        """What the environment observes after the same steps, by name; {"state": ...} for a single array.

        Raises:
            UserError: the environment's observation has no equal here.
        """
        if not self._observes:
            sensors_of(self._env, self.simulation)
        outputs = {name: output for sensor in self.simulation.sensors for name, output in sensor.outputs.items()}
        return {name: output[0].numpy().copy() for name, output in outputs.items()}

    def vehicles(self) -> dict[str, np.ndarray]:
        """Position [V, 2], heading [V], speed [V] and crashed [V] (bool), in the order of `road.vehicles`."""
        state = self.simulation.state
        order = torch.argsort(state.sequence[0])[: self._vehicles]
        return {
            "position": torch.stack((state.x[0], state.y[0]), dim=1)[order].numpy().copy(),
            "heading": state.heading[0][order].numpy().copy(),
            "speed": state.speed[0][order].numpy().copy(),
            "crashed": state.crashed[0][order].numpy() != 0,
        }


def from_highway_env(env: gymnasium.Env, dtype: str = "float64") -> ImportedWorld:
    """Our simulation of a live highway-env environment, from its exact present state.

    Args:
        env: a highway-env environment that has been reset; wrappers are looked through.
        dtype: "float64" to stay equal to it, "float32" to see what training precision does.

    Raises:
        UserError: the environment cannot be imported; the message says what about it.
    """
    return ImportedWorld(env, dtype)


class HighwayEnvWorlds(VecWorlds):
    """highway-env environments behind the interface of `VecWorlds`: same spaces, sensors, rewards and autoreset.

    World k of seed s is `gymnasium.make(upstream_id)` reset with seed s + k, then reset without a seed. It is as slow
    as highway-env is. `randomize` has no effect on its traffic.
    """

    def __init__(
        self,
        scenario: str = "highway",
        num_worlds: int = 1,
        *,
        observation: str = "camera",
        seed: int = 0,
        frames: int = 2,
        ego: str = "policy",
        rig: str | Rig = "surround",
    ):
        import highway_env  # noqa: F401  registers its environments
        from highway_env.vehicle.behavior import IDMVehicle

        if ego not in ("policy", "idm"):
            raise unknown("ego of highway-env", ego, ("policy", "idm"))
        if num_worlds < 1:
            raise UserError(f"num_worlds must be at least 1, not {num_worlds}")
        ours = scenarios.get(scenario)
        if not ours.upstream_id:
            raise UserError(f"highway-env has no environment like '{ours.name}'")
        self._idm = IDMVehicle if ego == "idm" else None
        self._envs = [gymnasium.make(ours.upstream_id).unwrapped for _ in range(num_worlds)]
        # There may be more vehicles and longer routes in later episodes than in the first.
        first = scenario_of(self._envs[0])
        scenario = replace(
            first,
            name=ours.name,
            upstream_id=ours.upstream_id,
            vehicles=max(first.vehicles, ours.vehicles),
            route_steps=max(first.route_steps, ours.route_steps),
            duration=ours.duration,
        )
        super().__init__(
            scenario, num_worlds, resolve_device("cpu"), observation, seed, frames, ego, False, rig, ("rgb",), "float32"
        )
        self._first_world = 0

    def _begin(self, world: int, seed: int | None = None) -> None:
        env = self._envs[world]
        env.reset(seed=seed)
        if self._idm:
            if not hasattr(env.vehicle, "target_speed"):
                raise UserError(f"nobody drives by IDM in '{self.scenario.name}'")
            ego = self._idm.create_from(env.vehicle)
            ego.target_speed = env.vehicle.lane.speed_limit
            env.road.vehicles[env.road.vehicles.index(env.vehicle)] = ego
            env.vehicle = ego
        import_state(self.sim, world, env)

    def reset(self, seed: int | None = None, first_world: int | None = None):
        """See `VecWorlds.reset`."""
        self._first_world = self._first_world if first_world is None else first_world
        if seed is not None or not self._started:
            self._seed = self._seed if seed is None else seed
            for world in range(self.num_worlds):
                self._begin(world, self._seed + self._first_world + world)
        else:
            for world in range(self.num_worlds):
                self._begin(world)
        for name in ("episode_return", "episode_length", "terminated", "truncated"):
            self.state.tensors[name].zero_()
        self._started = True
        return self.observe(), {}

    def step(self, actions: torch.Tensor, on_frame: Callable[[], None] | None = None):
        """See `VecWorlds.step`."""
        dt = 1.0 / self.scenario.simulation_frequency
        state = self.state
        for env in self._envs:
            env.time += 1.0 / self.scenario.policy_frequency
        for frame in range(self.scenario.frames_per_step):
            for world, env in enumerate(self._envs):
                if frame == 0 and not self._idm:
                    env.action_type.act(self._action(actions[world]))
                env.road.act()
                env.road.step(dt)
                env.steps += 1
                if on_frame is not None:
                    import_state(self.sim, world, env)
            if on_frame is not None:
                on_frame()
        for world, env in enumerate(self._envs):
            import_state(self.sim, world, env)
            state.reward[world] = float(env._reward(self._action(actions[world])))
            state.terminated[world] = int(env._is_terminated())
            # Time limits that highway-env leaves to Gymnasium are the scenario's here.
            state.truncated[world] = int(env._is_truncated() or env.time >= self.scenario.duration)
            state.success[world] = int(self._succeeds(env))
        state.ego_speed.copy_(state.speed[:, 0])
        state.ego_crashed.copy_(state.crashed[:, 0])
        state.episode_return += state.reward
        state.episode_length += 1
        self.sim.film()

        terminated, truncated = state.terminated != 0, state.truncated != 0
        ended = terminated | truncated
        info = {
            "speed": state.ego_speed.clone(),
            "crashed": state.ego_crashed != 0,
            "success": state.success != 0,
            "final_obs": self._final,
            "_final_obs": ended,
            "episode_return": state.episode_return.clone(),
            "episode_length": state.episode_length.clone(),
        }
        reward = state.reward.clone()
        for env in self._envs:
            if hasattr(env, "_spawn_vehicle"):
                env._clear_vehicles()
                env._spawn_vehicle(spawn_probability=env.config["spawn_probability"])
        if ended.any():
            for name, final in self._final.items():
                final[ended] = self._obs[name][ended]
            for world in ended.nonzero().flatten().tolist():
                self._begin(world)
                state.episode[world] += 1
            state.episode_return[ended] = 0
            state.episode_length[ended] = 0
            self.sim.film_ended()
        return self._obs, reward, terminated, truncated, info

    def _action(self, action: torch.Tensor):
        """An action as highway-env takes it."""
        if self.action_names:
            return int(action) if action.dim() == 0 else tuple(int(one) for one in action)
        return action.cpu().numpy()

    def _succeeds(self, env) -> bool:
        """Whether the ego has reached its goal; where there is none, whether it has lasted."""
        if hasattr(env, "_is_success") and hasattr(env, "observation_type_parking"):
            goal = env.observation_type_parking.observe()
            return bool(env._is_success(goal["achieved_goal"], goal["desired_goal"]))
        if hasattr(env, "_is_success"):
            return bool(env._is_success())
        if hasattr(env, "has_arrived"):
            return all(env.has_arrived(vehicle) for vehicle in env.controlled_vehicles)
        if env._is_terminated():
            return not env.vehicle.crashed and self.scenario.family == "merge"
        return env.time >= self.scenario.duration

    def close(self) -> None:
        """See `VecWorlds.close`."""
        for env in self._envs:
            env.close()
        super().close()
