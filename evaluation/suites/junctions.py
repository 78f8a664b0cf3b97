"""Roundabouts and crossings, with and without signals.

Where two cars are to collide, they meet if both hold their speed: the others follow a script, whatever the ego does.
Where the ego has to find a gap, the others are drivers who have right of way and see the ego once it is in their lane.
`side` is -1 for the left and 1 for the right.
"""

import itertools
import math

from envs.roads.crossings import CROSSING_REACH
from envs.roads.maps import intersection, signalised
from envs.scenarios.stage import Actor, Case
from evaluation.suites.base import LENGTH, WIDTH, Family, Parameters, Range, Way, metres_per_second, robot, scene

SOUTH = -math.pi / 2  # rad, heading of the ego, which comes from the south
MIDDLE = 2.0  # m, of every lane of the crossings from the middle of its road
MEETING = 5.0  # s, until the ego meets another car if it holds its speed
TURN_MEETING = 6.0  # s, the same where it turns or enters a ring
TRAFFIC = 8.0  # m/s, of the drivers of whose gaps one is to be found, at a crossing limited to 10 m/s
RING_TRAFFIC, RING_TARGET = 6.5, 8.0  # m/s, on the ring, and what they would like
CARS = 3  # in each stream
ARRIVED, GOAL = 40.0, 25.0  # m, on the way out: where the goal is, and its radius
AMBER_AFTER = 1.5  # s, until a light turns amber
FOLLOWER = 2.0  # s, headway of the car behind the ego at an amber light
GREEN_FOR = 3.0  # s, that a light has been green at the start

RING = Way("roundabout", *((*road, 1) for road in itertools.pairwise("ee nx ne wx we sx se".split())))
RING_ENTRY = Way("roundabout", ("ser", "ses", 0), ("ses", "se", 0))
RING_EXIT = Way("roundabout", ("nx", "nxs", 0), ("nxs", "nxr", 0))
LEFT_TURN = Way("crossing", ("i0", "ir0", 0), ("ir0", "il1", 0), ("il1", "o1", 0))
RIGHT_TURN = Way("crossing", ("i0", "ir0", 0), ("ir0", "il3", 0), ("il3", "o3", 0))
FROM_WEST = Way("crossing", ("i1", "ir1", 0), ("ir1", "il3", 0))
FROM_EAST = Way("crossing", ("i3", "ir3", 0), ("ir3", "il1", 0))

_SIDE = Range(-1.0, 1.0, "-1 from the left, 1 from the right", step=2.0)
_PHASE = Range(-1.0, 1.0, "half gaps by which the gap is ahead of the ego")


def passing_times(at: float, gap: float, speed: float, phase: float) -> list[float]:
    """When the cars of a stream pass a place [s].

    Args:
        at: when the ego would be there [s].
        gap: from a rear bumper to the next front bumper [s].
        speed: of the stream [m/s].
        phase: by how many half gaps the middle of the first gap is there before the ego.
    """
    period = gap + LENGTH / speed
    return [at + (k - 0.5 - phase / 2) * period for k in range(CARS)]


def _stream(
    way: Way, end: float, place: float, times: list[float], speed: float, target: float, destination: str
) -> list[Actor]:
    """Drivers that would pass `place` on a way at these times, without those who would not start before its `end`."""
    result = []
    for k, time in enumerate(times):
        s = place - speed * time
        if LENGTH < s < end - LENGTH:
            x, y, heading = way.at(s)
            wanted = target if k else speed
            result.append(
                Actor("driver", x, y, heading, speed, target_speed=wanted, destination=destination)
            )  # fmt: skip
    return result


# --- gaps to find -----------------------------------------------------------------------------------------------------


def _roundabout(id: str, parameters: Parameters) -> Case:
    speed = metres_per_second(parameters["speed"])
    times = passing_times(TURN_MEETING, parameters["gap"], RING_TRAFFIC, parameters["phase"])
    # The ring's cars have come in at the eastern arm or later, and leave there, past the ego's entry.
    ring = _stream(RING, RING.length, RING.length, times, RING_TRAFFIC, RING_TARGET, "exr")
    start = RING_ENTRY.at(RING_ENTRY.length - speed * TURN_MEETING)
    x, y, _ = RING_EXIT.at(RING_EXIT.starts[1] + ARRIVED)
    return scene(
        id, parameters, "roundabout", start, speed, ring, destination="nxr", goal=(x, y, GOAL), duration=32.0
    )  # fmt: skip


def _turn(id: str, parameters: Parameters) -> Case:
    speed, right = metres_per_second(parameters["speed"]), parameters["turn"] > 0
    way = RIGHT_TURN if right else LEFT_TURN
    start = way.at(way.starts[1] - speed * TURN_MEETING)
    times = passing_times(TURN_MEETING, parameters["gap"], TRAFFIC, parameters["phase"])
    # Both streams are in the middle of the crossing at these times; only a left turn crosses that from the left.
    mouth = FROM_WEST.starts[1]
    middle = (mouth + FROM_WEST.length) / 2
    drivers = _stream(FROM_WEST, mouth, middle, times, TRAFFIC, 10.0, "o3")
    if not right:
        later = [time + 0.5 * (times[1] - times[0]) for time in times]
        drivers += _stream(FROM_EAST, mouth, middle, later, TRAFFIC, 10.0, "o1")
    x, y, _ = way.at(way.starts[2] + ARRIVED)
    destination = "o3" if right else "o1"
    return scene(
        id, parameters, "crossing", start, speed, drivers, destination=destination, goal=(x, y, GOAL), duration=32.0
    )  # fmt: skip


# --- cars to collide with ---------------------------------------------------------------------------------------------


def _turn_across(id: str, parameters: Parameters) -> Case:
    speed, other = metres_per_second(parameters["speed"]), metres_per_second(parameters["other_speed"])
    radius = intersection.LEFT_RADIUS
    # The arc begins MIDDLE to the right of the road's middle, and meets the oncoming lane as far to the left of it.
    s = LEFT_TURN.starts[1] + radius * math.acos(1.0 - 2.0 * MIDDLE / radius)
    _, y, _ = LEFT_TURN.at(s)
    oncoming = robot(-MIDDLE, y - TURN_MEETING * other, other, heading=-SOUTH)
    start = LEFT_TURN.at(s - TURN_MEETING * speed)
    return scene(
        id, parameters, "crossing", start, speed, [oncoming], destination="o1", duration=TURN_MEETING + 6.0
    )  # fmt: skip


def _across(id: str, parameters: Parameters, map: str, **more) -> Case:
    """Straight on, such that the ego's front reaches the middle of the side of a car that crosses."""
    speed, other, side = (
        metres_per_second(parameters["speed"]),
        metres_per_second(parameters["other_speed"]),
        parameters["side"],
    )
    touching = -side * MIDDLE + (LENGTH + WIDTH) / 2
    crossing = robot(
        MIDDLE + side * other * MEETING, -side * MIDDLE, other, heading=0.0 if side < 0 else math.pi
    )  # fmt: skip
    start = (MIDDLE, touching + speed * MEETING, SOUTH)
    return scene(id, parameters, map, start, speed, [crossing], duration=MEETING + 6.0, **more)


def _straight_crossing(id: str, parameters: Parameters) -> Case:
    return _across(id, parameters, "crossing", destination="o2")


def _red_light_runner(id: str, parameters: Parameters) -> Case:
    return _across(id, parameters, "signals", destination="x.n.to", phase=0, phase_time=GREEN_FOR)


def _amber(id: str, parameters: Parameters) -> Case:
    speed = metres_per_second(parameters["speed"])
    y = CROSSING_REACH + LENGTH / 2 + speed * (AMBER_AFTER + parameters["time_to_line"])
    follower = Actor(
        "driver", MIDDLE, y + LENGTH + FOLLOWER * speed, SOUTH, speed, target_speed=speed, destination="x.n.to"
    )  # fmt: skip
    # Two who wait at the red light and get green next.
    waits = CROSSING_REACH + LENGTH / 2 + 1.0
    crossing = [
        Actor("driver", -waits, MIDDLE, 0.0, target_speed=10.0, destination="x.e.to"),
        Actor("driver", waits, -MIDDLE, math.pi, target_speed=10.0, destination="x.w.to"),
    ]
    return scene(
        id, parameters, "signals", (MIDDLE, y, SOUTH), speed, [follower, *crossing], destination="x.n.to",
        duration=AMBER_AFTER + 12.0, phase=0, phase_time=signalised.GREEN - AMBER_AFTER,
    )  # fmt: skip


FAMILIES = (
    Family(
        "roundabout-entry",
        "Into a gap of a roundabout's traffic",
        "Own choice: gaps of 2-6 s, drivers at 23 km/h on the ring",
        {
            "speed": Range(20.0, 36.0, "km/h"),
            "gap": Range(2.0, 6.0, "s, bumper to bumper at the start"),
            "phase": _PHASE,
        },
        _roundabout,
    ),
    Family(
        "ccf-turn-across-path",
        "A left turn across the path of an oncoming car (CCFtap)",
        "Euro NCAP AEB Car-to-Car: CCFtap, 10, 15, 20 km/h and 30, 45, 60 km/h",
        {"speed": Range(10.0, 20.0, "km/h", step=5.0), "other_speed": Range(30.0, 60.0, "km/h", step=15.0)},
        _turn_across,
    ),
    Family(
        "ccc-straight-crossing-path",
        "A car crosses from the side and does not give way (CCCscp)",
        "Euro NCAP AEB Car-to-Car: CCCscp, 20-60 km/h each",
        {"speed": Range(20.0, 60.0, "km/h"), "other_speed": Range(20.0, 60.0, "km/h"), "side": _SIDE},
        _straight_crossing,
    ),
    Family(
        "unsignalised-turn",
        "A turn into a road with traffic that has right of way",
        "CARLA: NonSignalizedJunctionLeftTurn and RightTurn; the numbers: own choice",
        {
            "speed": Range(20.0, 36.0, "km/h"),
            "gap": Range(3.0, 6.0, "s, bumper to bumper at the start"),
            "phase": _PHASE,
            "turn": Range(-1.0, 1.0, "-1 left, 1 right", step=2.0),
        },
        _turn,
    ),
    Family(
        "red-light-runner",
        "At a green light another car runs its red one",
        "CARLA: OppositeVehicleRunningRedLight; the speeds: own choice",
        {"speed": Range(30.0, 50.0, "km/h"), "other_speed": Range(30.0, 60.0, "km/h"), "side": _SIDE},
        _red_light_runner,
    ),
    Family(
        "amber-dilemma",
        "The light turns amber before the ego, with a car behind it",
        "Own choice: 1-5 s before the line",
        {"speed": Range(30.0, 50.0, "km/h"), "time_to_line": Range(1.0, 5.0, "s")},
        _amber,
    ),
)
