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
from envs.physics.collision import LARGEST_DIAGONAL
from envs.physics.idm import DriverModel
from envs.scenarios.base import Scenario
from envs.scenarios.highway import CAR_SIZE
from envs.sensors.rig import Rig
from envs.simulation import Simulation, resolve_device
from envs.state import IDM, KINDS, META, PLAIN


def scenario_of(env: gymnasium.Env) -> Scenario:
    """The scenario that a live highway-env environment is, from its configuration and its drivers' parameters.

    Raises:
        UserError: it is not of the highway family, has several egos, or a configuration that is not simulated.
    """
    from highway_env.envs.highway_env import HighwayEnv
    from highway_env.vehicle.behavior import IDMVehicle

    env = env.unwrapped
    if not isinstance(env, HighwayEnv):
        raise UserError(f"{type(env).__name__} cannot be imported: only highway-env's HighwayEnv and its variants can")
    config, vehicles = env.config, env.road.vehicles
    if len(env.controlled_vehicles) != 1 or vehicles[0] is not env.vehicle:
        raise UserError(f"{len(env.controlled_vehicles)} controlled vehicles cannot be imported: exactly one can")
    if not config["normalize_reward"] or config["lane_change_reward"] or config["offroad_terminal"]:
        raise UserError("normalize_reward must be True, lane_change_reward 0 and offroad_terminal False to be imported")
    refuse_other_egos(env)
    drivers = [vehicle for vehicle in vehicles if isinstance(vehicle, IDMVehicle)]
    unlike = {type(vehicle).__name__ for vehicle in vehicles[1:] if type(vehicle) is not IDMVehicle}
    if unlike:
        raise UserError(f"vehicles of class {', '.join(sorted(unlike))} cannot be imported: only IDMVehicle can")
    if any(vehicle.diagonal > LARGEST_DIAGONAL for vehicle in vehicles):
        raise UserError(f"vehicles of more than {LARGEST_DIAGONAL:g} m across cannot be imported")
    model = DriverModel()
    if drivers:
        one = drivers[0]
        model = DriverModel(
            max_acceleration=one.ACC_MAX,
            comfort_acceleration=one.COMFORT_ACC_MAX,
            comfort_deceleration=-one.COMFORT_ACC_MIN,
            jam_distance=one.DISTANCE_WANTED,
            headway=one.TIME_WANTED,
            politeness=one.POLITENESS,
            min_gain=one.LANE_CHANGE_MIN_ACC_GAIN,
            max_imposed_braking=one.LANE_CHANGE_MAX_BRAKING_IMPOSED,
            decision_delay=one.LANE_CHANGE_DELAY,
        )
    lanes = env.road.network.lanes_list()
    speeds = getattr(env.vehicle, "target_speeds", np.array([20.0, 25.0, 30.0]))
    return Scenario(
        name=env.spec.id if env.spec else "highway-env",
        family="highway",
        upstream_id=env.spec.id if env.spec else "",
        lanes=len(lanes),
        vehicles=len(vehicles) - 1,
        simulation_frequency=config["simulation_frequency"],
        policy_frequency=config["policy_frequency"],
        duration=float(config["duration"]),
        speed_limit=float(lanes[0].speed_limit),
        road_length=float(lanes[0].length),
        others_collide=all(vehicle.check_collisions for vehicle in vehicles[1:]),
        collision_reward=float(config["collision_reward"]),
        right_lane_reward=float(config["right_lane_reward"]),
        high_speed_reward=float(config["high_speed_reward"]),
        reward_speeds=tuple(float(speed) for speed in config["reward_speed_range"]),
        target_speeds=(float(speeds[0]), float(speeds[-1]), len(speeds)),
        driver=model,
    )


def refuse_other_egos(env: gymnasium.Env) -> None:
    """Raise for an ego, or a meaning of its actions, that would be simulated differently.

    Raises:
        UserError: names what differs.
    """
    from highway_env.vehicle.behavior import IDMVehicle
    from highway_env.vehicle.controller import MDPVehicle
    from highway_env.vehicle.kinematics import Vehicle

    if type(env.vehicle) not in (Vehicle, MDPVehicle, IDMVehicle):
        raise UserError(f"an ego of class {type(env.vehicle).__name__} cannot be imported")
    action = env.config["action"]
    if action["type"] not in ("DiscreteMetaAction", "ContinuousAction"):
        raise unknown("action type to import", action["type"], ("DiscreteMetaAction", "ContinuousAction"))
    defaults = {"type": action["type"], "longitudinal": True, "lateral": True, "dynamical": False, "clip": True}
    for name, value in action.items():
        if name != "target_speeds" and defaults.get(name) != value:
            raise UserError(f"actions with {name} {value} cannot be imported: it must be left at its default")
    if not np.allclose(np.diff(getattr(env.vehicle, "target_speeds", (0.0, 1.0)), n=2), 0.0):
        raise UserError(f"target_speeds must be evenly spaced to be imported, not {action['target_speeds']}")


def kind_of(vehicle) -> int:
    """The kind of slot that a highway-env vehicle is."""
    from highway_env.vehicle.behavior import IDMVehicle
    from highway_env.vehicle.controller import MDPVehicle

    return IDM if isinstance(vehicle, IDMVehicle) else META if isinstance(vehicle, MDPVehicle) else PLAIN


def import_vehicles(simulation: Simulation, world: int, env: gymnasium.Env) -> None:
    """Copy a live highway-env environment's vehicles, in the order of `road.vehicles`, into one world."""
    env = env.unwrapped
    rows = []
    for vehicle in env.road.vehicles:
        impact = vehicle.impact if vehicle.impact is not None else (0.0, 0.0)
        action = getattr(vehicle, "action", None) or {"steering": 0.0, "acceleration": 0.0}
        rows.append(
            {
                "x": vehicle.position[0],
                "y": vehicle.position[1],
                "heading": vehicle.heading,
                "cos_heading": np.cos(vehicle.heading),
                "sin_heading": np.sin(vehicle.heading),
                "speed": vehicle.speed,
                "sin_slip": np.sin(np.arctan(np.tan(action["steering"]) / 2)),
                "acceleration": action["acceleration"],
                "target_speed": getattr(vehicle, "target_speed", 0.0),
                "exponent": getattr(vehicle, "DELTA", 4.0),
                "timer": getattr(vehicle, "timer", 0.0),
                "impact_x": impact[0],
                "impact_y": impact[1],
                "length": vehicle.LENGTH,
                "width": vehicle.WIDTH,
                "height": CAR_SIZE[2],
                "lane": vehicle.lane_index[2],
                "target_lane": getattr(vehicle, "target_lane_index", vehicle.lane_index)[2],
                "proposed_lane": getattr(vehicle, "target_lane_index", vehicle.lane_index)[2],
                "speed_index": getattr(vehicle, "speed_index", 0),
                "kind": kind_of(vehicle),
                "crashed": int(vehicle.crashed),
                "has_impact": int(vehicle.impact is not None),
                "checks_collisions": int(vehicle.check_collisions),
            }
        )
    state = simulation.state
    for name in rows[0]:
        column = torch.tensor(np.array([row[name] for row in rows], dtype=np.float64))
        state.tensors[name][world].copy_(column)
    order = torch.argsort(state.x[world], stable=True).to(torch.int32)
    state.order[world].copy_(order)
    state.rank[world, order.long()] = torch.arange(len(rows), dtype=torch.int32, device=state.device)
    state.time[world] = env.time


class ImportedWorld:
    """One world that began as the exact state of a highway-env environment. See `from_highway_env`."""

    def __init__(self, env: gymnasium.Env, dtype: str = "float64"):
        env = env.unwrapped
        kind = {number: name for name, number in KINDS.items()}[kind_of(env.vehicle)]
        self.scenario = scenario_of(env)
        self.simulation = Simulation(self.scenario, 1, resolve_device("cpu"), dtype, kind)
        import_vehicles(self.simulation, 0, env)

    def step(self, action) -> tuple[float, bool, bool]:
        """One policy step without renewal: the world goes on after its end, as highway-env's does.

        Args:
            action: a meta-action, or [throttle, steering] for a plain ego.

        Returns:
            reward, terminated and truncated.
        """
        self.simulation.commands[0, : np.size(action)] = torch.as_tensor(action, dtype=torch.float32)
        self.simulation.step_once()
        state = self.simulation.state
        return state.reward.item(), bool(state.terminated.item()), bool(state.truncated.item())

    def vehicles(self) -> dict[str, np.ndarray]:
        """Position [V, 2], heading [V], speed [V] and crashed [V] (bool), in the order of `road.vehicles`."""
        state = self.simulation.state
        return {
            "position": torch.stack((state.x[0], state.y[0]), dim=1).numpy().copy(),
            "heading": state.heading[0].numpy().copy(),
            "speed": state.speed[0].numpy().copy(),
            "crashed": state.crashed[0].numpy() != 0,
        }


def from_highway_env(env: gymnasium.Env, dtype: str = "float64") -> ImportedWorld:
    """Our simulation of a live highway-env environment, from its exact present state.

    Args:
        env: a highway-env environment of the highway family that has been reset; wrappers are looked through.
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
        self._idm = IDMVehicle if ego == "idm" else None
        self._envs = [gymnasium.make(ours.upstream_id).unwrapped for _ in range(num_worlds)]
        scenario = replace(scenario_of(self._envs[0]), name=ours.name, upstream_id=ours.upstream_id)
        super().__init__(
            scenario, num_worlds, resolve_device("cpu"), observation, seed, frames, ego, False, rig, ("rgb",), "float32"
        )
        self._first_world = 0

    def _begin(self, world: int, seed: int | None = None) -> None:
        env = self._envs[world]
        env.reset(seed=seed)
        if self._idm:
            ego = self._idm.create_from(env.vehicle)
            ego.target_speed = self.scenario.speed_limit
            env.road.vehicles[0] = env.vehicle = ego
        import_vehicles(self.sim, world, env)

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
                    env.action_type.act(int(actions[world]))
                env.road.act()
                env.road.step(dt)
                env.steps += 1
                if on_frame is not None:
                    import_vehicles(self.sim, world, env)
            if on_frame is not None:
                on_frame()
        for world, env in enumerate(self._envs):
            import_vehicles(self.sim, world, env)
            state.reward[world] = float(env._reward(int(actions[world])))
            state.terminated[world] = int(env._is_terminated())
            state.truncated[world] = int(env._is_truncated())
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
            "final_obs": self._final,
            "_final_obs": ended,
            "episode_return": state.episode_return.clone(),
            "episode_length": state.episode_length.clone(),
        }
        reward = state.reward.clone()
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

    def close(self) -> None:
        """See `VecWorlds.close`."""
        for env in self._envs:
            env.close()
        super().close()
