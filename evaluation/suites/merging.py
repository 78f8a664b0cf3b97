"""Onto a motorway from its ramp, through slow traffic, and off it at an exit.

The traffic of a merge drives in the motorway's right lane, one gap of time after the other. Those ahead of the gap that
the ego meets hold their speed. Behind it fast traffic does so too, as who comes from the ramp gives way, and lifts off
when the ego is there: it loses a quarter of its speed with 1 m/s2, as most would for a car that merges in front of
them. The built-in drivers could not follow that closely; in slow traffic they do, and brake for who has merged.
"""

from collections.abc import Callable

from envs.roads.maps import merge
from envs.roads.maps.carriageway import LANE_WIDTH
from envs.scenarios.stage import Actor, Case, Segment, Trigger
from evaluation.suites.base import LENGTH, Family, Parameters, Range, Way, metres_per_second, robot, scene, stream

RAMP_START, MERGE = 150.0, 250.0  # m, x of the ego, and where it meets the gap: 20 m after the lanes join
RIGHT_LANE, RAMP_LANE = 4.0, 8.0  # m, y of the motorway's right lane and of the one that ends
MERGED, MERGED_X = (390.0, 2.0, 70.0), 320.0  # m, behind the end of the ramp's lane, reached from both others
SLACK = 12.0  # s, to find a gap
AHEAD, BEHIND = 4, 4  # cars before and behind the gap
LIFT, SLOWER = 1.0, 0.25  # m/s2, and share of the speed lost
ROOM = 10.0  # m, bumper to bumper, for a car to be able to merge
ROAD, EXIT_ROAD = (0.0, 460.0), (0.0, 1000.0)  # m, x where the motorways begin and end
EXIT_START, EXIT_LANES = 150.0, 6  # m, x of the ego, and lanes of the motorway
PLATOON = 4  # cars in each lane to cross before an exit
EAGER = 1.2  # target speed of drivers who follow others, as a share of their speed
TURNED, TURNED_RADIUS = 90.0, 25.0  # m along the exit, which is beside the motorway there
TURNOFF = Way("exit", ("2", "exit", 0))


# --- merges -----------------------------------------------------------------------------------------------------------


def _meeting(parameters: Parameters) -> tuple[float, float, float, float]:
    """Speeds of the ego and of the traffic [m/s], spacing of the traffic, and where the front of it starts [m]."""
    speed, traffic = metres_per_second(parameters["speed"]), metres_per_second(parameters["traffic_speed"])
    spacing = parameters["gap"] * traffic + LENGTH
    # Half a gap ahead of the ego where both would be at MERGE, and a share of half a gap farther.
    leader = MERGE + (1.0 + parameters["phase"]) * spacing / 2 - traffic * (MERGE - RAMP_START) / speed
    return speed, traffic, spacing, leader


def _merge(id: str, parameters: Parameters, behind: Callable[[float, float], Actor]) -> Case:
    """A merge; `behind(x, speed)` makes the vehicles behind the gap."""
    speed, traffic, spacing, leader = _meeting(parameters)
    actors = [robot(x, RIGHT_LANE, traffic) for x in stream(AHEAD, -spacing, leader, ROAD)]
    actors += [behind(x, traffic) for x in stream(BEHIND, spacing, leader - spacing, ROAD)]
    x, y, heading, length, width = merge.obstacles()[0]
    wall = Actor("still", x, y, heading, form="barrier", size=(length, width, 1.0))
    start = (RAMP_START, Way("merge", ("j", "k", 0)).at(RAMP_START)[1], 0.0)
    duration = (MERGE - RAMP_START) / speed + (MERGED_X - MERGE) / ((1.0 - SLOWER) * traffic) + SLACK
    return scene(id, parameters, "merge", start, speed, [wall, *actors], goal=MERGED, duration=duration)


def _ramp_merge(id: str, parameters: Parameters) -> Case:
    there = Trigger(point=(MERGE, RAMP_LANE), arrival=0.5)

    def lifts(x: float, speed: float) -> Actor:
        script = (Segment(SLOWER * speed / LIFT, acceleration=-LIFT), Segment(1.0))
        return robot(x, RIGHT_LANE, speed, script=script, trigger=there)

    return _merge(id, parameters, lifts)


def _slow_merge(id: str, parameters: Parameters) -> Case:
    def drives(x: float, speed: float) -> Actor:
        return Actor("driver", x, RIGHT_LANE, speed=speed, target_speed=EAGER * speed)

    return _merge(id, parameters, drives)


def _has_follower(parameters: Parameters) -> bool:
    """Whether the gap has room for a car, and somebody ahead of it and behind it starts on the road."""
    _, traffic, spacing, leader = _meeting(parameters)
    there = stream(2, spacing, leader, ROAD)
    return len(there) == 2 and parameters["gap"] * traffic >= ROOM


# --- exit -------------------------------------------------------------------------------------------------------------


def _exit(id: str, parameters: Parameters) -> Case:
    speed, traffic = metres_per_second(parameters["speed"]), metres_per_second(parameters["traffic_speed"])
    spacing = parameters["gap"] * traffic + LENGTH
    lane = EXIT_LANES - 1 - int(parameters["lanes"])
    drivers = []
    for place in range(lane + 1, EXIT_LANES):
        # Lanes are out of step with each other by the golden ratio, so that gaps do not line up.
        shift = (parameters["phase"] + 0.618 * place) % 1.0
        front = EXIT_START + (shift + PLATOON // 2 - 1) * spacing
        for k, x in enumerate(stream(PLATOON, spacing, front, EXIT_ROAD)):
            target = EAGER * traffic if k else traffic
            drivers.append(
                Actor("driver", x, place * LANE_WIDTH, speed=traffic, target_speed=target, destination="3")
            )  # fmt: skip
    x, y, _ = TURNOFF.at(TURNED)
    start = (EXIT_START, lane * LANE_WIDTH, 0.0)
    return scene(
        id, parameters, "exit", start, speed, drivers, destination="exit", goal=(x, y, TURNED_RADIUS), duration=28.0
    )  # fmt: skip


_PHASE = Range(-1.0, 1.0, "half gaps by which the gap is ahead of the ego")
FAMILIES = (
    Family(
        "ramp-merge",
        "From the ramp into a gap of the motorway's traffic",
        "CARLA: EnterActorFlow; gaps of 1-4 s and the speeds: own choice",
        {
            "speed": Range(60.0, 90.0, "km/h"),
            "traffic_speed": Range(60.0, 100.0, "km/h"),
            "gap": Range(1.0, 4.0, "s, bumper to bumper"),
            "phase": _PHASE,
        },
        _ramp_merge,
        _has_follower,
    ),
    Family(
        "slow-merge",
        "From the ramp into slow traffic",
        "CARLA: MergerIntoSlowTraffic; the numbers: own choice",
        {
            "speed": Range(50.0, 80.0, "km/h"),
            "traffic_speed": Range(15.0, 35.0, "km/h"),
            "gap": Range(2.0, 4.0, "s, bumper to bumper at the start"),
            "phase": _PHASE,
        },
        _slow_merge,
        _has_follower,
    ),
    Family(
        "highway-exit",
        "To an exit across lanes with traffic",
        "CARLA: HighwayExit; the numbers: own choice",
        {
            "speed": Range(72.0, 100.0, "km/h"),
            "traffic_speed": Range(65.0, 90.0, "km/h"),
            "lanes": Range(1.0, 3.0, "lanes of traffic to cross", step=1.0),
            "gap": Range(2.0, 5.0, "s, bumper to bumper at the start"),
            "phase": Range(0.0, 1.0, "spacings by which the traffic is ahead"),
        },
        _exit,
    ),
)
