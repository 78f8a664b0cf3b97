"""Cars that change lanes around the ego, stand half in its lane or swerve, and a change of its own into dense traffic.

All of it happens on a straight road with three lanes of 3.5 m. A lane change is 3.5 m at constant lateral speed; `side`
is -1 for the left and 1 for the right.
"""

import math

from envs.physics.idm import DriverModel
from envs.scenarios.stage import Actor, Case, Segment, Trigger
from evaluation.suites.base import (
    LENGTH,
    WIDTH,
    Family,
    Parameters,
    Range,
    metres_per_second,
    robot,
    scene,
    standing,
    stream,
)

START, LANE, STEP = 200.0, 3.5, 3.5  # m: x of the ego, y of the middle lane, from a lane to the next
ROAD = (0.0, 1500.0)  # m, x where it begins and ends
BEFORE = 0.5  # s, until somebody begins to change lanes
AFTER = 6.0  # s, of a case after a change of lanes
CLEAR = 0.3  # m, between a car that cuts out and what it passes
PARTIAL_FIRST = 6.0  # s, time to collision at the start of a partial blocker
QUEUE, QUEUE_START = 8, 500.0  # cars in the lane of a dense lane change, and x of the ego then [m]
EAGER = 1.3  # target speed of drivers in dense traffic, as a share of their speed

_SIDE = Range(-1.0, 1.0, "-1 left, 1 right", step=2.0)


# --- cut-in -----------------------------------------------------------------------------------------------------------


def _cut_in(id: str, parameters: Parameters) -> Case:
    speed, other = metres_per_second(parameters["speed"]), metres_per_second(parameters["other_speed"])
    side, sideways = parameters["side"], parameters["lateral_speed"]
    change = STEP / sideways
    gap = parameters["gap"] + BEFORE * (speed - other)
    script = (Segment(change, lateral_speed=-side * sideways), Segment(1.0))
    actor = robot(
        START + LENGTH + gap, LANE + side * STEP, other, script=script, trigger=Trigger(time=BEFORE)
    )  # fmt: skip
    duration = BEFORE + change + AFTER
    return scene(id, parameters, "road", (START, LANE, 0.0), speed, [actor], duration=duration)


def _stays_ahead(parameters: Parameters) -> bool:
    """Whether the other is no faster, and still ahead when it gets into the ego's way: else it would ram its side."""
    approach = metres_per_second(parameters["speed"] - parameters["other_speed"])
    return 0.0 <= approach * (STEP - WIDTH) / parameters["lateral_speed"] < parameters["gap"]


# --- cut-out, things in the lane --------------------------------------------------------------------------------------


def _cut_out(id: str, parameters: Parameters) -> Case:
    speed, sideways = metres_per_second(parameters["speed"]), parameters["lateral_speed"]
    script = (Segment(STEP / sideways, lateral_speed=parameters["side"] * sideways), Segment(1.0))
    x = START + LENGTH + parameters["headway"] * speed
    lead = robot(x, LANE, speed, script=script, trigger=Trigger(time=BEFORE))
    blocker = standing(x + BEFORE * speed + LENGTH + parameters["distance"], LANE)
    reached = (blocker.x - LENGTH - START) / speed
    return scene(id, parameters, "road", (START, LANE, 0.0), speed, [lead, blocker], duration=reached + AFTER)


def _passes_the_blocker(parameters: Parameters) -> bool:
    """Whether the car in front gets out of the way in time; its box turns into the direction that it moves in."""
    speed, sideways = metres_per_second(parameters["speed"]), parameters["lateral_speed"]
    turned = math.atan2(sideways, speed)
    reach = (WIDTH + WIDTH * math.cos(turned) + LENGTH * math.sin(turned)) / 2
    moved = min(STEP, sideways * parameters["distance"] / speed)
    return sideways < speed and moved >= reach + CLEAR


def _partial_blocker(id: str, parameters: Parameters) -> Case:
    speed = metres_per_second(parameters["speed"])
    blocker = standing(START + LENGTH + PARTIAL_FIRST * speed, LANE + parameters["offset"])
    return scene(
        id, parameters, "road", (START, LANE, 0.0), speed, [blocker], duration=PARTIAL_FIRST + AFTER
    )  # fmt: skip


def _swerving_lead(id: str, parameters: Parameters) -> Case:
    speed, sideways = metres_per_second(parameters["speed"]), parameters["lateral_speed"]
    swing = parameters["amplitude"] / sideways
    # Out to the left, through the lane's middle to the right, and back.
    out, across = Segment(swing, lateral_speed=-sideways), Segment(2 * swing, lateral_speed=sideways)
    lead = robot(
        START + LENGTH + parameters["headway"] * speed,
        LANE,
        speed,
        script=(out, across, out, Segment(1.0)),
        trigger=Trigger(time=BEFORE),
    )
    duration = BEFORE + 4 * swing + 2.0
    return scene(id, parameters, "road", (START, LANE, 0.0), speed, [lead], duration=duration)


# --- dense lane change ------------------------------------------------------------------------------------------------


def settled_spacing(speed: float, target: float) -> float:
    """Distance between drivers' centres at which they keep their speed [m].

    The d of 0 = 1 - (v / v0)^4 - ((d0 + T v) / d)^2, the law of `envs.physics.idm` at equal speeds.

    Args:
        speed, target: v < v0 [m/s].
    """
    driver = DriverModel()
    return (driver.jam_distance + driver.headway * speed) / math.sqrt(1.0 - (speed / target) ** 4)


def _dense(id: str, parameters: Parameters) -> Case:
    speed, side = metres_per_second(parameters["speed"]), parameters["side"]
    target = EAGER * speed
    # The middle lane is full; the ego comes along the lane beside it, so that there is no other way round.
    own = LANE - side * STEP
    spacing = settled_spacing(speed, target) * (4.0 - parameters["density"])
    places = stream(QUEUE, spacing, QUEUE_START + (QUEUE // 2 + parameters["phase"]) * spacing, ROAD)
    # The first has a free road: its target is its speed.
    drivers = [Actor("driver", x, LANE, speed=speed, target_speed=target if k else speed) for k, x in enumerate(places)]
    blocker = standing(QUEUE_START + LENGTH + parameters["time"] * speed, own)
    # No way leads there but along the middle lane, as nobody can pass what blocks the ego's on that.
    goal = (blocker.x + 70.0, LANE, 50.0)
    return scene(
        id, parameters, "road", (QUEUE_START, own, 0.0), speed, [blocker, *drivers], goal=goal, duration=30.0
    )  # fmt: skip


FAMILIES = (
    Family(
        "cut-in",
        "A car from the next lane cuts in",
        "UN R157 and JRC's grid: ego 20-60 km/h, other from 10 km/h to the ego's speed, gap 1-59 m, lateral speed up "
        "to 1.7 m/s (from 0.3, own choice: slower is no cut-in)",
        {
            "speed": Range(20.0, 60.0, "km/h"),
            "other_speed": Range(10.0, 60.0, "km/h"),
            "gap": Range(1.0, 59.0, "m"),
            "lateral_speed": Range(0.3, 1.7, "m/s"),
            "side": _SIDE,
        },
        _cut_in,
        _stays_ahead,
    ),
    Family(
        "cut-in-fast",
        "A car from the next lane cuts in at motorway speed",
        "UN R157 and JRC's grid: ego 70-130 km/h, gap 1-119 m; the rest as cut-in",
        {
            "speed": Range(70.0, 130.0, "km/h"),
            "other_speed": Range(10.0, 130.0, "km/h"),
            "gap": Range(1.0, 119.0, "m"),
            "lateral_speed": Range(0.3, 1.7, "m/s"),
            "side": _SIDE,
        },
        _cut_in,
        _stays_ahead,
    ),
    Family(
        "cut-out",
        "The car in front changes lanes before a car that stands in the lane",
        "ASAM OpenSCENARIO ALKS 4.5_1: 5-60 km/h (from 20, own choice), 10-100 m; JRC's grid: lateral speed up to "
        "2.9 m/s (from 0.5); headway of 4.3_2",
        {
            "speed": Range(20.0, 60.0, "km/h"),
            "headway": Range(1.0, 1.6, "s"),
            "distance": Range(10.0, 100.0, "m"),
            "lateral_speed": Range(0.5, 2.9, "m/s"),
            "side": _SIDE,
        },
        _cut_out,
        _passes_the_blocker,
    ),
    Family(
        "partial-blocker",
        "A car stands partly in the lane",
        "ASAM OpenSCENARIO ALKS 4.2_2: 5-60 km/h (from 10, own choice), -2 to 2 m; begins 6 s before it, own choice",
        {"speed": Range(10.0, 60.0, "km/h"), "offset": Range(-2.0, 2.0, "m to the right")},
        _partial_blocker,
    ),
    Family(
        "swerving-lead",
        "The car in front swerves",
        "ASAM OpenSCENARIO ALKS 4.1_2: 5-60 km/h (from 10, own choice), 1.5 m; smaller ones and lateral speeds: own "
        "choice; headway of 4.3_2",
        {
            "speed": Range(10.0, 60.0, "km/h"),
            "headway": Range(1.0, 1.6, "s"),
            "amplitude": Range(0.5, 1.5, "m"),
            "lateral_speed": Range(0.3, 1.0, "m/s"),
        },
        _swerving_lead,
    ),
    Family(
        "dense-lane-change",
        "The lane is blocked; the way on is a change into the dense traffic of the next one",
        "interPlan: lane changes in three densities of traffic; the numbers: own choice",
        {
            "speed": Range(20.0, 50.0, "km/h"),
            "density": Range(1.0, 3.0, "3 as dense as drivers follow, 2 and 1 a half and a third of that", step=1.0),
            "time": Range(6.0, 12.0, "s to what blocks the lane"),
            "phase": Range(0.0, 1.0, "spacings by which the traffic is ahead"),
            "side": _SIDE,
        },
        _dense,
    ),
)
