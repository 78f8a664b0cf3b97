"""Our sensors for a live highway-env environment's observation."""

from collections.abc import Callable
from typing import Any

import gymnasium

from envs.errors import UserError, unknown
from envs.sensors.collision_times import CollisionTimes
from envs.sensors.goal import Goal
from envs.sensors.kinematics import Kinematics
from envs.sensors.lidar import Lidar
from envs.sensors.occupancy import OccupancyGrid
from envs.sensors.tracking import Tracking
from envs.sensors.vehicle_list import VehicleList
from envs.simulation import Simulation


def sensors_of(env: gymnasium.Env, simulation: Simulation) -> list:
    """What an environment's configured observation is in ours.

    Raises:
        UserError: a type of observation that has no equal; on the straight highway anything but the default.
    """
    env = env.unwrapped
    config = dict(env.config["observation"])
    if config["type"] == "MultiAgentObservation":
        config = dict(config["observation_config"])
    kind = config.pop("type")
    if kind not in OBSERVATIONS:
        raise unknown("observation to import", kind, OBSERVATIONS)
    if simulation.maps is None:
        if kind != "Kinematics" or config:
            raise UserError("on the straight highway only the default Kinematics observation can be imported")
        return [Kinematics(simulation)]
    return [OBSERVATIONS[kind](env, simulation, config)]


def _vehicle_list(env, simulation: Simulation, config: dict) -> VehicleList:
    names = {
        "features": "features",
        "vehicles_count": "rows",
        "features_range": "ranges",
        "absolute": "absolute",
        "order": "order",
        "normalize": "normalize",
        "clip": "clip",
        "see_behind": "see_behind",
        "observe_intentions": "intentions",
        "include_obstacles": "obstacles",
    }
    options = {names[name]: value for name, value in config.items() if name in names and value is not None}
    # The scale of y is that of the road on which the environment first observed.
    lanes = len(env.road.network.all_side_lanes(env.vehicle.lane_index))
    exit_lane = None
    if env.config["observation"]["type"] == "ExitObservation":
        exit_lane = simulation.maps[0].number(("1", "2", len(env.road.network.graph["1"]["2"]) - 1))
    return VehicleList(simulation, **options, lanes=lanes, exit_lane=exit_lane)


def _grid(env, simulation: Simulation, config: dict) -> OccupancyGrid:
    names = {
        "features": "features",
        "grid_size": "size",
        "grid_step": "step",
        "features_range": "ranges",
        "align_to_vehicle_axes": "aligned",
        "clip": "clip",
        "as_image": "as_image",
    }
    upstream = {"features": ("presence", "vx", "vy", "on_road"), "grid_size": ((-27.5, 27.5), (-27.5, 27.5))}
    upstream |= {"grid_step": (5, 5), "align_to_vehicle_axes": False}
    options = upstream | {name: value for name, value in config.items() if value is not None}
    return OccupancyGrid(simulation, **{names[name]: value for name, value in options.items() if name in names})


def _collision_times(env, simulation: Simulation, config: dict) -> CollisionTimes:
    return CollisionTimes(simulation, config.get("horizon", 10))


def _lidar(env, simulation: Simulation, config: dict) -> Lidar:
    return Lidar(simulation, **config)


def _goal(env, simulation: Simulation, config: dict) -> Goal:
    return Goal(simulation, tuple(config["features"]), tuple(config["scales"]))


def _tracking(env, simulation: Simulation, config: dict) -> Tracking:
    return Tracking(simulation, simulation.state.reference_lane, simulation.scenario.noise)


OBSERVATIONS: dict[str, Callable[[Any, Simulation, dict], Any]] = {
    "AttributesObservation": _tracking,
    "ExitObservation": _vehicle_list,
    "Kinematics": _vehicle_list,
    "KinematicsGoal": _goal,
    "LidarObservation": _lidar,
    "OccupancyGrid": _grid,
    "TimeToCollision": _collision_times,
}
