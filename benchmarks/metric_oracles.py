"""Our safety measures beside those of others: `python -m benchmarks.metric_oracles --packages DIR`.

Compares the safe distances of RSS with Intel's ad-rss-lib, and measures of car following with commonroad-crime, which
is to be trusted where the road runs along +x and the other car does not accelerate. Neither is needed to use or to test
this project, so they live elsewhere: `python -m venv DIR`, `DIR/bin/pip install ad-rss==5.0.0 commonroad-crime==0.4.5`.
"""

import contextlib
import importlib
import io
import logging
import os
import random
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from envs.errors import UserError, exit_on_user_error
from evaluation.metrics import rss, surrogates
from evaluation.metrics.time_headway import time_headway
from evaluation.metrics.time_to_collision import time_to_collision
from evaluation.trajectory import Trajectory

DT = 0.1
LENGTH, WIDTH = 5.0, 2.0
FRAMES = 60
SLOPE = 1e-4  # of the road: commonroad-crime takes a lane direction of exactly 0 for none at all


@dataclass(frozen=True)
class Args:
    """Compare our measures with ad-rss-lib and commonroad-crime."""

    packages: Path
    """A virtual environment of the same Python that has them."""
    draws: int = 2000
    """Random pairs of vehicles for ad-rss-lib."""
    scenes: int = 20
    """Random scenes of car following for commonroad-crime, which is slow."""
    seed: int = 0
    """Of the draws."""


@dataclass(frozen=True)
class Row:
    """One measure, compared. `rounded`: the digits that the other one keeps."""

    name: str
    other: str
    count: int
    difference: float
    rounded: str


def main() -> None:
    args = tyro.cli(Args)
    places = sorted(args.packages.glob("lib/python3*/site-packages"))
    if not places:
        raise UserError(f"{args.packages} is no virtual environment: it has no lib/python3*/site-packages")
    sys.path += [str(place) for place in places]  # behind ours: torch and numpy stay our own
    os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"  # commonroad's are of an older protobuf than ours
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    rows = [*_rss(random.Random(args.seed), args.draws), *_following(random.Random(args.seed), args.scenes)]
    table = Table(title="Greatest difference from another implementation", title_justify="left")
    for column in ("measure", "compared with", "values", "difference", "which keeps"):
        table.add_column(column, justify="left" if column in ("measure", "compared with") else "right")
    for row in rows:
        table.add_row(row.name, row.other, str(row.count), f"{row.difference:.1e}", row.rounded)
    Console().print(table)


def _load(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"no '{name}' in --packages: {error}") from error


# --- ad-rss-lib -------------------------------------------------------------------------------------------------------


def _rss(rng: random.Random, draws: int) -> list[Row]:
    ad_rss = _load("ad_rss")
    physics, core, structured = ad_rss.physics, ad_rss.rss.core, ad_rss.rss.structured

    def vehicle(along: float, across: float, params: rss.RSSParameters, ego: bool):
        state = core.RelativeObjectState()
        state.object_type = ad_rss.rss.world.ObjectType.EgoVehicle if ego else ad_rss.rss.world.ObjectType.OtherVehicle
        speeds = state.structured_object_state.velocity
        speeds.speed_lon_min = speeds.speed_lon_max = physics.Speed(along)
        speeds.speed_lat_min = speeds.speed_lat_max = physics.Speed(across)
        place = state.structured_object_state
        place.has_priority, place.is_in_correct_lane = False, True
        place.distance_to_enter_intersection = place.distance_to_leave_intersection = physics.Distance(1000.0)
        dynamics = state.dynamics
        dynamics.alpha_lon.accel_max = physics.Acceleration(params.acceleration)
        dynamics.alpha_lon.brake_max = physics.Acceleration(-params.brake_max)
        dynamics.alpha_lon.brake_min = physics.Acceleration(-params.brake_min)
        dynamics.alpha_lon.brake_min_correct = physics.Acceleration(-params.brake_min_correct)
        sideways = params.lateral_acceleration if ego else params.lateral_acceleration_other
        dynamics.alpha_lat.accel_max = physics.Acceleration(sideways)
        dynamics.alpha_lat.brake_min = physics.Acceleration(-params.lateral_brake_min)
        dynamics.lateral_fluctuation_margin = physics.Distance(params.lateral_margin)
        dynamics.response_time = physics.Duration(params.response_time if ego else params.response_time_other)
        _fill(ad_rss, state)
        return state

    def theirs(function, one, other) -> float:
        found = physics.Distance()
        if not function(one, other, found):
            raise RuntimeError("ad-rss-lib refuses an input that is within its bounds")
        return found.mDistance

    rows = []
    for params in (rss.AD_RSS, rss.R157):
        worst = {"longitudinal": 0.0, "opposite": 0.0, "lateral": 0.0}
        for _ in range(draws):
            v, u = rng.uniform(0, 60), rng.uniform(0, 60)
            left, right = rng.uniform(-3, 3), rng.uniform(-3, 3)
            ego, other = vehicle(v, left, params, True), vehicle(u, right, params, False)
            exact = [torch.tensor(value, dtype=torch.float64) for value in (v, u, left, right)]
            pairs = {
                "longitudinal": (
                    rss.longitudinal(exact[0], exact[1], params),
                    theirs(structured.calculateSafeLongitudinalDistanceSameDirection, other, ego),
                ),
                "opposite": (
                    rss.opposite(exact[0], exact[1], params),
                    theirs(structured.calculateSafeLongitudinalDistanceOppositeDirection, ego, other),
                ),
                "lateral": (
                    rss.lateral(exact[2], -exact[3], params),
                    theirs(structured.calculateSafeLateralDistance, ego, other),
                ),
            }
            for name, (mine, found) in pairs.items():
                worst[name] = max(worst[name], abs(float(mine) - found))
        rows += [Row(f"RSS {name}, {params.name}", "ad-rss-lib", draws, w, "") for name, w in worst.items()]
    return rows


def _fill(ad_rss, state) -> None:
    """Valid numbers for what takes no part on a structured road: ad-rss-lib checks them all the same."""
    physics, settings = ad_rss.physics, state.dynamics.unstructured_settings
    for name in ("pedestrian_turning_radius", "vehicle_min_radius"):
        setattr(settings, name, physics.Distance(3.0))
    settings.drive_away_max_angle = physics.Angle(2.4)
    settings.vehicle_yaw_rate_change = physics.AngularAcceleration(0.3)
    settings.vehicle_trajectory_calculation_step = physics.Duration(0.2)
    free = state.unstructured_object_state
    free.yaw, free.steering_angle, free.yaw_rate = physics.Angle(0), physics.Angle(0), physics.AngularVelocity(0)
    free.dimension.length, free.dimension.width = physics.Distance(LENGTH), physics.Distance(WIDTH)
    free.center_point.x = free.center_point.y = physics.Distance(0)
    free.speed_range.minimum = free.speed_range.maximum = physics.Speed(0)


# --- commonroad-crime -------------------------------------------------------------------------------------------------


def _following(rng: random.Random, scenes: int) -> list[Row]:
    _load("commonroad_crime")
    worst: dict[str, list[float]] = {}
    for _ in range(scenes):
        # The gap is driven within the time that is looked at, which commonroad-crime's THW needs, and never closes.
        speed = rng.uniform(10, 30)
        gap = rng.uniform(20, min(60, 0.9 * FRAMES * DT * speed))
        other = speed - rng.uniform(0.5, 0.9) * gap / (FRAMES * DT)
        mine = _ours(gap, speed, other)
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = _crime(gap, speed, other)
        for name, value in theirs.items():
            worst.setdefault(name, []).append(abs(mine[name] - value))
    # Its THW is the first frame in which the ego's front is past where the leader's tail was.
    kept = {"TTC": "0.01 s", "THW": "one frame, 0.1 s", "DRAC": "0.01 m/s2", "BTN": "0.01 m/s2 / 11.5 m/s2"}
    return [
        Row(name, "commonroad-crime", len(found), max(found), kept.get(name, "TTC to 0.01 s"))
        for name, found in worst.items()
    ]


def _ours(gap: float, speed: float, other: float) -> dict[str, float]:
    """Our measures of one car behind another: of the first frame, and over all of them."""
    time = DT * torch.arange(FRAMES, dtype=torch.float64)
    x = torch.stack([speed * time, gap + LENGTH + other * time], 1)[:, None]
    one = torch.ones_like(x)
    trajectory = Trajectory(
        x=x,
        y=0 * one,
        heading=0 * one,
        speed=torch.tensor([speed, other], dtype=torch.float64).expand_as(x),
        acceleration=0 * one,
        lane=torch.zeros_like(x, dtype=torch.int32),
        target_lane=torch.zeros_like(x, dtype=torch.int32),
        crashed=torch.zeros_like(x, dtype=torch.bool),
        kind=torch.ones_like(x, dtype=torch.int32),
        length=LENGTH * one,
        width=WIDTH * one,
        height=one,
        form=torch.zeros_like(x, dtype=torch.int8),
        frames=torch.tensor([FRAMES]),
        actions=torch.zeros(1, 1, dtype=torch.int64),
        rewards=torch.zeros(1, 1),
        steps=torch.tensor([1]),
        dt=DT,
        frames_per_step=FRAMES,
    )
    drac = float(surrogates.required_deceleration(trajectory)[0])
    return {
        "TTC": float(time_to_collision(trajectory)[0]),
        "THW": float(time_headway(trajectory)[0]),
        "DRAC": drac,
        "BTN": drac / 11.5,  # commonroad-crime's hardest braking
        "TET": float(surrogates.time_exposed(trajectory).value),
        "TIT": float(surrogates.time_integrated(trajectory).value),
    }


def _crime(gap: float, speed: float, other: float) -> dict[str, float]:
    """The same by commonroad-crime."""
    import numpy as np
    from commonroad.geometry.shape import Rectangle
    from commonroad.prediction.prediction import TrajectoryPrediction
    from commonroad.scenario.lanelet import Lanelet
    from commonroad.scenario.obstacle import DynamicObstacle, ObstacleType
    from commonroad.scenario.scenario import Scenario
    from commonroad.scenario.state import CustomState, InitialState
    from commonroad.scenario.trajectory import Trajectory as Track
    from commonroad_crime.data_structure.configuration import CriMeConfiguration
    from commonroad_crime.measure import BTN, TET, THW, TIT, TTC, ALongReq

    scenario = Scenario(DT)
    along = np.arange(-100.0, 501.0, 5.0)
    lines = [np.column_stack([along, side + SLOPE * along]) for side in (2.0, 0.0, -2.0)]
    scenario.add_objects(Lanelet(lines[0], lines[1], lines[2], 1000))

    def car(number: int, x: float, v: float) -> DynamicObstacle:
        def state(kind, step: int):
            return kind(
                time_step=step,
                position=np.array([x + v * step * DT, 0.0]),
                orientation=0.0,
                velocity=v,
                velocity_y=0.0,
                acceleration=0.0,
                acceleration_y=0.0,
            )

        first = InitialState(time_step=0, position=np.array([x, 0.0]), orientation=0.0, velocity=v, acceleration=0.0)
        for name in ("yaw_rate", "slip_angle"):
            setattr(first, name, 0.0)
        shape = Rectangle(LENGTH, WIDTH)
        states = [state(CustomState, step) for step in range(1, FRAMES + 1)]
        return DynamicObstacle(number, ObstacleType.CAR, shape, first, TrajectoryPrediction(Track(1, states), shape))

    scenario.add_objects([car(1, 0.0, speed), car(2, gap + LENGTH, other)])
    scenario.assign_obstacles_to_lanelets()
    config = CriMeConfiguration()
    config.vehicle.ego_id = 1
    config.update(sce=scenario)
    config.acceleration.acceleration_mode = 1
    config.time.tau = surrogates.TAU
    return {
        "TTC": TTC(config).compute(2, 0, verbose=False),
        "THW": THW(config).compute(2, 0, verbose=False),
        "DRAC": -ALongReq(config).compute(2, 0, verbose=False),
        "BTN": BTN(config).compute(2, 0, verbose=False),
        "TET": TET(config).compute(2, 0, verbose=False),
        "TIT": TIT(config).compute(2, 0, verbose=False),
    }


if __name__ == "__main__":
    exit_on_user_error(main)
