"""The ego runs up to a car in its lane: one that stands, drives slowly, brakes or stops.

All of it happens on the middle lane of a straight road of three. Euro NCAP's tests of emergency braking begin 4 s
before the contact that would come about without braking. An offset is that of the other car's middle line to the right
of the ego's, in % of its width: Euro NCAP's overlaps of -50, -75, 100, 75 and 50 % are offsets of -50 to 50 %.
"""

from envs.scenarios.stage import Case, Segment, Trigger
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
)

START, LANE = 200.0, 3.5  # m, x of the ego, and y of the lane
FIRST = 4.0  # s, time to collision at the start of Euro NCAP's tests
CRUISE = 1.0  # s, until the one in front brakes
STOP = 6.0  # m/s2, with which it stops where the source names one value

_OFFSET = Range(-50.0, 50.0, "% of the width", step=25.0)


def _behind(id: str, parameters: Parameters, speed: float, gap: float, lead, duration: float) -> Case:
    """The ego `gap` m behind a car, bumper to bumper, that `lead(x, y)` makes."""
    y = LANE + parameters.get("offset", 0.0) / 100.0 * WIDTH
    actors = [lead(START + LENGTH + gap, y)]
    return scene(id, parameters, "road", (START, LANE, 0.0), speed, actors, duration=duration)


def _stationary(id: str, parameters: Parameters) -> Case:
    speed = metres_per_second(parameters["speed"])
    return _behind(id, parameters, speed, FIRST * speed, standing, 10.0)


def _moving(id: str, parameters: Parameters) -> Case:
    speed, target = metres_per_second(parameters["speed"]), metres_per_second(parameters["target_speed"])
    return _behind(id, parameters, speed, FIRST * (speed - target), lambda x, y: robot(x, y, target), 12.0)


def _braking(id: str, parameters: Parameters) -> Case:
    speed = metres_per_second(parameters["speed"])
    return _behind(id, parameters, speed, parameters["gap"], _brakes(speed, parameters["deceleration"]), 15.0)


def _lead_stop(id: str, parameters: Parameters) -> Case:
    speed = metres_per_second(parameters["speed"])
    return _behind(id, parameters, speed, parameters["headway"] * speed, _brakes(speed, STOP), 12.0)


def _brakes(speed: float, deceleration: float):
    """Maker of a car that brakes to a stop."""
    script = (Segment(1.0, acceleration=-deceleration),)
    return lambda x, y: robot(x, y, speed, script=script, trigger=Trigger(time=CRUISE))


FAMILIES = (
    Family(
        "ccr-stationary",
        "A car stands in the lane (CCRs)",
        "Euro NCAP AEB Car-to-Car: CCRs, 10-50 km/h, overlaps of 50, 75 and 100 %",
        {"speed": Range(10.0, 50.0, "km/h"), "offset": _OFFSET},
        _stationary,
    ),
    Family(
        "ccr-moving",
        "A car drives slowly in the lane (CCRm)",
        "Euro NCAP AEB Car-to-Car: CCRm, 30-80 km/h behind a car at 20 km/h, overlaps as CCRs",
        {"speed": Range(30.0, 80.0, "km/h"), "target_speed": Range(20.0, 20.0, "km/h"), "offset": _OFFSET},
        _moving,
    ),
    Family(
        "ccr-braking",
        "The car in front brakes to a stop (CCRb)",
        "Euro NCAP AEB Car-to-Car: CCRb, 50 km/h, gaps of 12 and 40 m, 2 and 6 m/s2",
        {
            "speed": Range(50.0, 50.0, "km/h"),
            "gap": Range(12.0, 40.0, "m", step=28.0),
            "deceleration": Range(2.0, 6.0, "m/s2", step=4.0),
            "offset": _OFFSET,
        },
        _braking,
    ),
    Family(
        "lead-stop",
        "The car in front brakes to a stop with 6 m/s2",
        "ASAM OpenSCENARIO ALKS 4.3_2 (UN R157 annex 5, 4.3): 7.2-60 km/h, 6 m/s2, headways of 1.0-1.6 s, "
        "which grow with the speed there; here all go with all speeds, own choice",
        {"speed": Range(7.2, 60.0, "km/h"), "headway": Range(1.0, 1.6, "s")},
        _lead_stop,
    ),
)
