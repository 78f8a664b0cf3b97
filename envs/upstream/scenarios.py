"""Our scenario of a live highway-env environment: what it rewards, how it ends, who drives in it and how."""

import functools
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from envs.errors import UserError, unknown
from envs.physics.collision import LARGEST_DIAGONAL
from envs.physics.idm import DriverModel
from envs.scenarios.base import ActionSet, Scenario
from envs.state import DYNAMIC, IDM, LANDMARK, META, OBSTACLE, PLAIN
from envs.upstream.maps import network_of

SPARE_SLOTS = 10  # for vehicles that enter an imported intersection later


def scenario_of(env: gymnasium.Env) -> Scenario:
    """The scenario that a live highway-env environment is, from its configuration, its map and its drivers.

    Raises:
        UserError: a configuration that would be simulated differently; the message says what about it.
    """
    env = env.unwrapped
    make = _family_of(env)
    road, config = env.road, env.config
    egos = env.controlled_vehicles
    if not egos or any(ego not in road.vehicles for ego in egos):
        raise UserError("an environment without controlled vehicles cannot be imported")
    _refuse_others(env)
    common = {
        "name": env.spec.id if env.spec else type(env).__name__,
        "upstream_id": env.spec.id if env.spec else "",
        "agents": len(egos),
        "vehicles": len(road.vehicles) + len(road.objects) - len(egos),
        "simulation_frequency": int(config["simulation_frequency"]),
        "policy_frequency": int(config["policy_frequency"]),
        "duration": float(config.get("duration", math.inf)),
        "actions": _actions_of(env),
        "target_speeds": _speeds_of(egos[0]),
        "driver": _driver_of(env),
        "connected_lanes": bool(road.neighbour_vehicles_connected_lanes),
        "regulated": type(road).__name__ == "RegulatedRoad",
        "route_steps": max([1, *(len(getattr(vehicle, "route", None) or ()) for vehicle in road.vehicles)]),
        "network": network_of(road.network),
    }
    scenario = make(env, config, common)
    longest = max(thing.diagonal for thing in [*road.vehicles, *road.objects])
    if longest > scenario.longest:
        raise UserError(f"something {longest:.0f} m long cannot be imported: at most {scenario.longest:g} m")
    return scenario


def _reals(config: dict, *names: str) -> dict[str, float]:
    return {name: float(config[name]) for name in names}


def _highway(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.highway import Highway

    if not config["normalize_reward"] or config["lane_change_reward"] or config["offroad_terminal"]:
        raise UserError("normalize_reward must be True, lane_change_reward 0 and offroad_terminal False to be imported")
    if any(vehicle.diagonal > LARGEST_DIAGONAL for vehicle in env.road.vehicles):
        raise UserError(f"vehicles of more than {LARGEST_DIAGONAL:g} m across cannot be imported")
    if len(env.controlled_vehicles) != 1 or env.road.vehicles[0] is not env.vehicle or env.road.objects:
        raise UserError(f"{len(env.controlled_vehicles)} controlled vehicles cannot be imported: exactly one can")
    lanes = env.road.network.lanes_list()
    return Highway(
        family="highway",
        lanes=len(lanes),
        speed_limit=float(lanes[0].speed_limit),
        road_length=float(lanes[0].length),
        others_collide=all(vehicle.check_collisions for vehicle in env.road.vehicles[1:]),
        reward_speeds=tuple(float(speed) for speed in config["reward_speed_range"]),
        **_reals(config, "collision_reward", "right_lane_reward", "high_speed_reward"),
        **{**common, "network": None},
    )


def _merge(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.merge import Merge

    return Merge(
        family="merge",
        lanes=int(config.get("lanes_count", 2)),
        generic="lanes_count" in config,
        end=float(getattr(env, "end_position", 370.0)),
        reward_speeds=tuple(float(speed) for speed in config["reward_speed_range"]),
        **_reals(
            config,
            "collision_reward",
            "right_lane_reward",
            "high_speed_reward",
            "merging_speed_reward",
            "lane_change_reward",
        ),
        **common,
    )


def _two_way(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.two_way import TwoWay

    weights = _reals(config, "left_lane_reward", "high_speed_reward")
    return TwoWay(family="two-way", horizon=int(config["observation"].get("horizon", 10)), **weights, **common)


def _u_turn(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.u_turn import UTurn

    if not config["normalize_reward"]:
        raise UserError("normalize_reward must be True to be imported")
    return UTurn(
        family="u-turn",
        reward_speeds=tuple(float(speed) for speed in config["reward_speed_range"]),
        **_reals(config, "collision_reward", "left_lane_reward", "high_speed_reward"),
        **common,
    )


def _roundabout(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.roundabout import Roundabout

    return Roundabout(
        family="roundabout",
        generic="roundabout_radius" in config,
        normalize_reward=bool(config["normalize_reward"]),
        **_reals(config, "collision_reward", "high_speed_reward", "lane_change_reward"),
        **common,
    )


def _exit(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.exit import Exit

    return Exit(
        family="exit",
        lanes=int(config["lanes_count"]),
        normalize_reward=bool(config["normalize_reward"]),
        reward_speeds=tuple(float(speed) for speed in config["reward_speed_range"]),
        **_reals(config, "collision_reward", "goal_reward", "high_speed_reward", "right_lane_reward"),
        **common,
    )


def _racetrack(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.racetrack import Racetrack

    return Racetrack(
        family="racetrack",
        terminate_off_road=bool(config["terminate_off_road"]),
        **_reals(config, "collision_reward", "lane_centering_reward", "lane_centering_cost", "action_reward"),
        **common,
    )


def _parking(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.parking import Parking

    return Parking(
        family="parking",
        reward_weights=tuple(float(weight) for weight in config["reward_weights"]),
        **_reals(config, "collision_reward", "success_goal_reward"),
        **common,
    )


def _lane_keeping(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.lane_keeping import LaneKeeping

    if config["state_noise"] != config["derivative_noise"]:
        raise UserError("state_noise and derivative_noise must be equal to be imported")
    return LaneKeeping(family="lane-keeping", noise=float(config["state_noise"]), **common)


def _intersection(env, config: dict, common: dict) -> Scenario:
    from envs.scenarios.intersection import Intersection

    common = {**common, "vehicles": common["vehicles"] + SPARE_SLOTS, "route_steps": max(common["route_steps"], 3)}
    return Intersection(
        family="intersection",
        destination=config["destination"] or "",
        spawn_probability=float(config["spawn_probability"]),
        reward_speeds=tuple(float(speed) for speed in config["reward_speed_range"]),
        normalize_reward=bool(config["normalize_reward"]),
        offroad_terminal=bool(config["offroad_terminal"]),
        **_reals(config, "collision_reward", "high_speed_reward", "arrived_reward"),
        **common,
    )


# Class of environment -> how its scenario is made; the nearest ancestor counts.
FAMILIES: dict[str, Callable[[Any, dict, dict], Scenario]] = {
    "ExitEnv": _exit,
    "HighwayEnv": _highway,
    "IntersectionEnv": _intersection,
    "LaneKeepingEnv": _lane_keeping,
    "MergeEnv": _merge,
    "ParkingEnv": _parking,
    "RacetrackEnv": _racetrack,
    "RoundaboutEnv": _roundabout,
    "TwoWayEnv": _two_way,
    "UTurnEnv": _u_turn,
}


def _family_of(env) -> Callable[[Any, dict, dict], Scenario]:
    for ancestor in type(env).__mro__:
        if ancestor.__name__ in FAMILIES and ancestor.__module__.startswith("highway_env."):
            return FAMILIES[ancestor.__name__]
    raise UserError(f"{type(env).__name__} cannot be imported: only highway-env's own environments can")


def _actions_of(env) -> ActionSet:
    config = env.config["action"]
    if config["type"] == "MultiAgentAction":
        config = config["action_config"]
    kinds = ("DiscreteMetaAction", "ContinuousAction", "DiscreteAction")
    if config["type"] not in kinds:
        raise unknown("action type to import", config["type"], kinds)
    along, across = config.get("longitudinal", True), config.get("lateral", True)
    if config["type"] == "DiscreteMetaAction":
        names = {(True, True): "LANE_LEFT IDLE LANE_RIGHT FASTER SLOWER", (True, False): "SLOWER IDLE FASTER"}
        actions = ActionSet(names=tuple(names.get((along, across), "LANE_LEFT IDLE LANE_RIGHT").split()))
    else:
        if not config.get("clip", True) or config.get("speed_range"):
            raise UserError("continuous actions can be imported with clip True and without a speed_range only")
        ranges = {
            name: tuple(float(bound) for bound in config[name])
            for name in ("acceleration_range", "steering_range")
            if config.get(name)
        }
        kind = "dynamic" if config.get("dynamical") else "plain"
        actions = ActionSet(kind=kind, names=(), throttle=along, steering=across, **ranges)
    kind = {number: name for number, name in ((META, "meta"), (PLAIN, "plain"), (DYNAMIC, "dynamic"), (IDM, "idm"))}
    driven = {kind[kind_of(vehicle)] for vehicle in env.controlled_vehicles}
    if driven != {actions.kind} and driven != {"idm"}:
        raise UserError(f"{config['type']} on an ego of class {type(env.vehicle).__name__} cannot be imported")
    return actions


def _speeds_of(ego) -> tuple[float, float, int]:
    speeds = np.asarray(getattr(ego, "target_speeds", (20.0, 25.0, 30.0)), dtype=float)
    if len(speeds) < 2 or not np.allclose(np.diff(speeds, n=2), 0.0):
        raise UserError(f"target_speeds must be evenly spaced to be imported, not {speeds.tolist()}")
    return float(speeds[0]), float(speeds[-1]), len(speeds)


def _driver_of(env) -> DriverModel:
    drivers = [vehicle for vehicle in env.road.vehicles if kind_of(vehicle) == IDM]
    models = {
        DriverModel(
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
        for one in drivers
    }
    if len(models) > 1:
        raise UserError("drivers with parameters of their own cannot be imported: all but DELTA must be the same")
    return models.pop() if models else DriverModel()


def _refuse_others(env) -> None:
    """Raise for vehicles and objects that would be simulated differently."""
    from highway_env.vehicle.objects import Landmark, Obstacle

    for thing in env.road.objects:
        if type(thing) not in (Landmark, Obstacle):
            raise UserError(f"objects of class {type(thing).__name__} cannot be imported")
    for vehicle in env.road.vehicles:
        kind_of(vehicle)
        if vehicle.LENGTH / 2 != 2.5:
            raise UserError("vehicles of another length than 5 m cannot be imported")


@functools.cache
def _kinds() -> dict[type, int]:
    from highway_env.vehicle.behavior import IDMVehicle
    from highway_env.vehicle.controller import MDPVehicle
    from highway_env.vehicle.dynamics import BicycleVehicle
    from highway_env.vehicle.kinematics import Vehicle
    from highway_env.vehicle.objects import Landmark, Obstacle

    return {
        IDMVehicle: IDM,
        MDPVehicle: META,
        Vehicle: PLAIN,
        BicycleVehicle: DYNAMIC,
        Obstacle: OBSTACLE,
        Landmark: LANDMARK,
    }


def kind_of(thing) -> int:
    """The kind of slot that a highway-env vehicle or object is.

    Raises:
        UserError: of a class that is not simulated.
    """
    kinds = _kinds()
    if type(thing) not in kinds:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise UserError(f"vehicles of class {type(thing).__name__} cannot be imported: only {known} can")
    return kinds[type(thing)]
