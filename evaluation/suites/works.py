"""Something blocks the ego's lane of a road with one lane each way, and traffic comes in the other.

Two cars come towards the ego, a gap of time apart, and hold their speed; after them the road is free. What blocks the
lane (`kind`): 0 a parked car that stands with its right wheels on the edge, 1 two cars after an accident, 2 road works
behind a taper of cones with a barrier and a truck.
"""

import math

from envs.scenarios.stage import LANE, Actor, Case
from evaluation.suites.base import LENGTH, WIDTH, Family, Parameters, Range, metres_per_second, robot, scene, standing

BLOCK = 300.0  # m, x where the blocked stretch begins
REACHED = 6.0  # s, until the ego's front is there if it holds its speed
# m, from the end of the stretch to the goal: a wide circle beside the road, which reaches over the ego's lane only.
BEYOND, GOAL_Y, GOAL = 30.0, 30.0, 31.5
ONCOMING = 2
CONE, BARRIER, TRUCK = (0.4, 0.4, 0.75), (0.5, 2.4, 1.0), (8.0, 2.4, 3.0)  # m
CONES, CONE_SPACING = 5, 6.0  # of the taper; the spacing in m is that of the scenario `roadworks`
EDGE = LANE / 2  # m, y of the lane's right edge; its middle is at 0


def _parked_car() -> tuple[list[Actor], float]:
    """What blocks the lane, and the length of the stretch [m]."""
    return [standing(BLOCK + LENGTH / 2, EDGE - WIDTH / 2)], LENGTH


def _accident() -> tuple[list[Actor], float]:
    first = standing(BLOCK + 3.0, 0.3, heading=0.4)
    second = standing(BLOCK + 10.0, 0.6, heading=-2.2)
    cone = Actor("still", BLOCK, 0.2, form="cone", size=CONE)
    return [cone, first, second], 14.0


def _road_works() -> tuple[list[Actor], float]:
    last = CONES - 1
    cones = [
        Actor("still", BLOCK + k * CONE_SPACING, EDGE - 0.3 - k / last * (LANE - 0.6), form="cone", size=CONE)
        for k in range(CONES)
    ]
    end = BLOCK + CONES * CONE_SPACING
    barrier = Actor("still", end, 0.2, form="barrier", size=BARRIER)
    truck = Actor("still", end + 8.0, 0.3, form="truck", size=TRUCK)
    return [*cones, barrier, truck], CONES * CONE_SPACING + 12.0


KINDS = (_parked_car, _accident, _road_works)


def _blocked_lane(id: str, parameters: Parameters) -> Case:
    speed, other = metres_per_second(parameters["speed"]), metres_per_second(parameters["other_speed"])
    blockers, length = KINDS[int(parameters["kind"])]()
    meetings = [REACHED + parameters["lead"] + k * (parameters["gap"] + LENGTH / other) for k in range(ONCOMING)]
    oncoming = [robot(BLOCK + other * time, -LANE, other, heading=math.pi) for time in meetings]
    start = (BLOCK - LENGTH / 2 - REACHED * speed, 0.0, 0.0)
    goal = (BLOCK + length + BEYOND, GOAL_Y, GOAL)
    return scene(
        id, parameters, "two-way", start, speed, [*blockers, *oncoming], goal=goal, duration=34.0
    )  # fmt: skip


FAMILIES = (
    Family(
        "blocked-lane",
        "A parked car, an accident or road works to pass in the oncoming lane",
        "CARLA: ParkedObstacleTwoWays, AccidentTwoWays, ConstructionObstacleTwoWays; interPlan; numbers: own choice",
        {
            "kind": Range(0.0, 2.0, "0 parked car, 1 accident, 2 road works", step=1.0),
            "speed": Range(30.0, 60.0, "km/h"),
            "other_speed": Range(30.0, 60.0, "km/h"),
            "gap": Range(4.0, 10.0, "s between the oncoming cars"),
            "lead": Range(-2.0, 2.0, "s from the ego to the first of them at the block"),
        },
        _blocked_lane,
    ),
)
