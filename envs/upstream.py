"""The exact state of live highway-env environments as ours: their maps, vehicles, objects, and what they reward."""

import functools
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

from envs.errors import UserError, unknown
from envs.physics.collision import LARGEST_DIAGONAL
from envs.physics.idm import DriverModel
from envs.roads import lanes as geometry
from envs.roads.general import PLACES
from envs.roads.lanes import Lane
from envs.roads.network import RoadNetwork
from envs.scenarios.base import ActionSet, Scenario
from envs.scenarios.placing import CAR_SIZE
from envs.sensors.collision_times import CollisionTimes
from envs.sensors.goal import Goal
from envs.sensors.kinematics import Kinematics
from envs.sensors.lidar import Lidar
from envs.sensors.occupancy import OccupancyGrid
from envs.sensors.tracking import Tracking
from envs.sensors.vehicle_list import VehicleList
from envs.simulation import Simulation
from envs.state import DYNAMIC, FORMS, IDM, LANDMARK, META, OBSTACLE, PLAIN

LINES = {0: "none", 1: "dashed", 2: "solid", 3: "solid"}
OBSTACLE_HEIGHT = 1.0  # m
WALL, BARRIER = FORMS.index("wall"), FORMS.index("barrier")
SPARE_SLOTS = 10  # for vehicles that enter an imported intersection later

# --- maps -------------------------------------------------------------------------------------------------------------


def lane_of(lane) -> Lane:
    """Our lane of highway-env's.

    Raises:
        UserError: a class of lane of someone's own.
    """
    from highway_env.road import lane as upstream

    limit = math.inf if lane.speed_limit is None else float(lane.speed_limit)
    options: dict[str, Any] = {
        "width": float(lane.width) if hasattr(lane, "width") else 4.0,
        "speed_limit": limit,
        "priority": int(lane.priority),
        "forbidden": bool(lane.forbidden),
        "lines": tuple(LINES[line] for line in (lane.line_types or (1, 1))),
    }
    if type(lane) is upstream.StraightLane:
        return geometry.straight(tuple(lane.start), tuple(lane.end), **options)
    if type(lane) is upstream.SineLane:
        swing = (lane.amplitude, lane.pulsation, lane.phase)
        return geometry.sine(tuple(lane.start), tuple(lane.end), *swing, **options)
    if type(lane) is upstream.CircularLane:
        phases = (lane.start_phase, lane.end_phase)
        return geometry.circular(tuple(lane.center), lane.radius, *phases, lane.clockwise, **options)
    if type(lane) in (upstream.PolyLane, upstream.PolyLaneFixedWidth):
        poses = lane.curve.poses
        widths = [lane.width_at(s) for s in range(len(poses))]
        samples = [(*pose.position, *pose.normal, width) for pose, width in zip(poses, widths, strict=True)]
        return Lane(geometry.POLYLINE, (), float(lane.length), samples=np.array(samples, dtype=float), **options)
    raise UserError(f"a lane of class {type(lane).__name__} cannot be imported")


def network_of(upstream) -> RoadNetwork:
    """Our network of highway-env's, lane by lane."""
    network = RoadNetwork()
    for start, roads in upstream.graph.items():
        for end, lanes in roads.items():
            for lane in lanes:
                network.add_lane(start, end, lane_of(lane))
    return network


# --- scenarios --------------------------------------------------------------------------------------------------------


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


# --- observations -----------------------------------------------------------------------------------------------------


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

# --- state ------------------------------------------------------------------------------------------------------------


def slots_of(env) -> list:
    """What stands in which slot: the controlled vehicles, the others and the objects, in highway-env's orders."""
    road = env.unwrapped.road
    egos = env.unwrapped.controlled_vehicles
    return [*egos, *(vehicle for vehicle in road.vehicles if vehicle not in egos), *road.objects]


def import_state(simulation: Simulation, world: int, env: gymnasium.Env) -> None:
    """Copy a live highway-env environment's vehicles and objects into one world.

    Raises:
        UserError: there are more of them than slots.
    """
    env = env.unwrapped
    state, things = simulation.state, slots_of(env)
    if len(things) > state.slots:
        raise UserError(f"{len(things)} vehicles and objects do not fit into {state.slots} slots: make more slots")
    network = simulation.maps[0] if simulation.maps else None
    number = network.number if network else (lambda index: index[2])
    roads = {pair: k for k, pair in enumerate(network.roads)} if network else {}
    listed = {id(vehicle): k for k, vehicle in enumerate([*env.road.vehicles, *env.road.objects])}
    rows = [_row(thing, listed[id(thing)], number) for thing in things]
    rows += [_ABSENT | {"sequence": len(things) + k} for k in range(state.slots - len(things))]
    for name in rows[0]:
        column = torch.tensor(np.array([row[name] for row in rows], dtype=np.float64))
        state.tensors[name][world].copy_(column)
    for slot, thing in enumerate(things):
        route = getattr(thing, "route", None) or ()
        steps = [PLACES * roads[(a, b)] + (0 if place is None else int(place) + 1) for a, b, place in route]
        if len(steps) > state.route_steps:
            raise UserError(f"a route of {len(steps)} roads does not fit into {state.route_steps} steps")
        state.route[world, slot, : len(steps)] = torch.tensor(steps, dtype=torch.int32)
        state.route_end[world, slot] = len(steps)
    order = torch.argsort(state.x[world], stable=True).to(torch.int32)
    state.order[world].copy_(order)
    state.rank[world, order.long()] = torch.arange(state.slots, dtype=torch.int32, device=state.device)
    state.time[world] = env.time
    state.frame[world] = getattr(env.road, "steps", 0)
    state.arrivals[world] = len(listed)
    state.used[world] = len(things)
    if hasattr(env, "lpv"):
        keep = next(index for index, lane in env.road.network.lanes_dict().items() if lane is env.lane)
        state.reference_lane[world] = number(keep)


_ABSENT = {
    "look": 0.0,
    "x": 0.0,
    "y": 0.0,
    "heading": 0.0,
    "cos_heading": 1.0,
    "sin_heading": 0.0,
    "speed": 0.0,
    "sin_slip": 0.0,
    "acceleration": 0.0,
    "target_speed": 0.0,
    "exponent": 4.0,
    "timer": 0.0,
    "impact_x": 0.0,
    "impact_y": 0.0,
    "length": CAR_SIZE[0],
    "width": CAR_SIZE[1],
    "height": CAR_SIZE[2],
    "reach": math.hypot(*CAR_SIZE[:2]) / 2,
    "lane_s": 0.0,
    "lane_r": 0.0,
    "steering": 0.0,
    "lateral_speed": 0.0,
    "yaw_rate": 0.0,
    "lane": 0,
    "target_lane": 0,
    "proposed_lane": 0,
    "speed_index": 0,
    "kind": 0,
    "form": 0,
    "crashed": 0,
    "has_impact": 0,
    "checks_collisions": 1,
    "changes_lanes": 1,
    "yields": 0,
    "sequence": 0,
    "route_at": 0,
    "route_end": 0,
    "finished": 0,
    "goal_x": 0.0,
    "goal_y": 0.0,
    "patience": 0.0,
    "reward_share": 0.0,
}


def _row(thing, sequence: int, number: Callable) -> dict[str, float]:
    """The values of one slot."""
    kind = kind_of(thing)
    lane = number(thing.lane_index)
    target = number(getattr(thing, "target_lane_index", thing.lane_index))
    s, r = thing.lane.local_coordinates(thing.position)
    action = getattr(thing, "action", None) or {"steering": 0.0, "acceleration": 0.0}
    impact = thing.impact if kind < OBSTACLE and thing.impact is not None else None
    return _ABSENT | {
        "x": thing.position[0],
        "y": thing.position[1],
        "heading": thing.heading,
        "cos_heading": np.cos(thing.heading),
        "sin_heading": np.sin(thing.heading),
        "speed": thing.speed,
        "sin_slip": np.sin(np.arctan(np.tan(action["steering"]) / 2)),
        "acceleration": action["acceleration"],
        "target_speed": getattr(thing, "target_speed", 0.0),
        "exponent": getattr(thing, "DELTA", 4.0),
        "timer": getattr(thing, "timer", 0.0),
        "impact_x": impact[0] if impact is not None else 0.0,
        "impact_y": impact[1] if impact is not None else 0.0,
        "length": thing.LENGTH,
        "width": thing.WIDTH,
        "reach": math.hypot(thing.LENGTH, thing.WIDTH) / 2,
        "height": OBSTACLE_HEIGHT if kind >= OBSTACLE else CAR_SIZE[2],
        "lane_s": s,
        "lane_r": r,
        "steering": action["steering"],
        "lateral_speed": getattr(thing, "lateral_speed", 0.0),
        "yaw_rate": getattr(thing, "yaw_rate", 0.0),
        "lane": lane,
        "target_lane": target,
        "proposed_lane": target,
        "speed_index": getattr(thing, "speed_index", 0),
        "kind": kind,
        "form": (0, WALL, BARRIER)[(kind == OBSTACLE) * (1 if thing.LENGTH > 10 else 2)],
        "crashed": int(thing.hit if kind == LANDMARK else thing.crashed),
        "has_impact": int(impact is not None),
        "checks_collisions": int(thing.check_collisions),
        "changes_lanes": int(getattr(thing, "enable_lane_change", True)),
        "yields": int(getattr(thing, "is_yielding", False)),
        "sequence": sequence,
    }
