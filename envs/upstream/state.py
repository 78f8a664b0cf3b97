"""The exact state of a live highway-env environment, into our worlds."""

import math
from collections.abc import Callable

import gymnasium
import numpy as np
import torch

from envs.errors import UserError
from envs.roads.general import PLACES
from envs.scenarios.placing import CAR_SIZE
from envs.simulation import Simulation
from envs.state import FORMS, LANDMARK, OBSTACLE
from envs.upstream.scenarios import kind_of

OBSTACLE_HEIGHT = 1.0  # m
WALL, BARRIER = FORMS.index("wall"), FORMS.index("barrier")


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
