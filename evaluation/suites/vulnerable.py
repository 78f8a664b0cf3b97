"""People who cross in front of the ego, in a street and behind a turn.

A person stands still until the ego is as far away, in time, as they need to the place where it would hit them, then
walks at once at full speed. The share is how far across the ego's front they would be hit, in % of its width from the
side that they come from. They start 0.75 m behind the kerb (own choice).
"""

import math

from envs.physics import walkers
from envs.roads.maps import crossings
from envs.scenarios.stage import Actor, Case, Trigger
from evaluation.suites.base import LENGTH, WIDTH, Family, Parameters, Range, metres_per_second, robot, scene
from evaluation.suites.junctions import LEFT_TURN, MIDDLE, RIGHT_TURN

STREET, LANE = 100.0, crossings.WIDTH / 2  # m, x where people cross the street, and y of the ego's lane
BEHIND_KERB = 0.75  # m
STANDS = 1.5  # s, from the start until somebody begins to walk
AFTER = 5.0  # s, of a case after the contact
PARKED = (4.5, 1.8, 1.8)  # m, length, width and height of parked cars
PARKED_GAP, PARKED_SPACE = 1.0, 1.0  # m, from the ego's side to theirs, and between each other or before a child
ARM_KERB = 4.0 + 1.5  # m, from the middle of a crossing's arm
WALK = 6.0  # m, from where a turn ends to where people cross the road behind it
APPROACH = 10.0  # m, at least, of the way before a turn
NOTICE = 1.0  # s, of the way to the contact over which the ego's straight distance serves as its way


def person(figure: int, x: float, y: float, heading: float, speed: float, trigger: Trigger) -> Actor:
    """Somebody on foot, one of `walkers.FIGURES`, who waits for the trigger and walks that way [m, rad, m/s]."""
    return Actor(
        "scripted", x, y, heading, speed, form="person", size=walkers.BOXES[figure], trigger=trigger, waits=True
    )  # fmt: skip


def contact_centre(figure: int) -> float:
    """From the ego's centre to the middle of somebody who crosses, when its front touches their side [m]."""
    return (LENGTH + walkers.BOXES[figure][1]) / 2


def _walk(share: float, distance: float, pace: float) -> float:
    """Time from the start to the place of contact [s]; `distance` is from the start to the ego's middle line [m]."""
    return (distance + (share / 100.0 - 0.5) * WIDTH) / pace


def _street(id: str, parameters: Parameters, figure: int, pace: float, near: bool, hidden=False) -> Case:
    """Somebody crosses the street from the ego's side or from the far one, perhaps from behind parked cars."""
    speed, side = metres_per_second(parameters["speed"]), 1.0 if near else -1.0
    y = side * (crossings.KERB + BEHIND_KERB)
    time = _walk(parameters["share"], abs(y - LANE), pace)
    at = STREET - contact_centre(figure)
    actors = [person(figure, STREET, y, -side * math.pi / 2, pace, Trigger(point=(at, LANE), arrival=time))]
    if hidden:
        actors += _parked(STREET - walkers.BOXES[figure][1] / 2)
    start = (at - speed * (time + STANDS), LANE, 0.0)
    return scene(id, parameters, "street", start, speed, actors, duration=STANDS + time + AFTER)


def _parked(x: float) -> list[Actor]:
    """Two cars parked at the kerb before x, the nearer one a van."""
    y = LANE + WIDTH / 2 + PARKED_GAP + PARKED[1] / 2
    first = x - PARKED_SPACE - PARKED[0] / 2
    second = first - PARKED_SPACE - PARKED[0]
    return [robot(first, y, 0.0, form="van", size=(*PARKED[:2], 2.2)), robot(second, y, 0.0, size=PARKED)]


def _near_side(id: str, parameters: Parameters) -> Case:
    return _street(id, parameters, walkers.ADULT, walkers.CHILD_SPEED, near=True)


def _far_side(id: str, parameters: Parameters) -> Case:
    return _street(id, parameters, walkers.ADULT, walkers.RUNNING_SPEED, near=False)


def _hidden_child(id: str, parameters: Parameters) -> Case:
    return _street(id, parameters, walkers.CHILD, walkers.CHILD_SPEED, near=True, hidden=True)


def _turning(id: str, parameters: Parameters) -> Case:
    speed, side, right = metres_per_second(parameters["speed"]), parameters["side"], parameters["turn"] > 0
    way, figure, pace = RIGHT_TURN if right else LEFT_TURN, walkers.ADULT, walkers.CHILD_SPEED
    # The ego leaves the turn on a lane whose middle is to the right of the road's.
    distance = ARM_KERB - side * MIDDLE + BEHIND_KERB
    time = _walk(parameters["share"], distance, pace)
    x, y, heading = way.at(way.starts[2] + WALK, side * distance)
    contact = way.starts[2] + WALK - contact_centre(figure)
    trigger = Trigger(point=way.at(contact - speed * (time - NOTICE))[:2], arrival=NOTICE)
    walker = person(figure, x, y, heading - side * math.pi / 2, pace, trigger)
    begin = min(contact - speed * (time + STANDS), way.starts[1] - APPROACH)
    return scene(
        id,
        parameters,
        "crossing",
        way.at(begin),
        speed,
        [walker],
        destination="o3" if right else "o1",
        duration=(contact - begin) / speed + AFTER,
    )


_SHARE = Range(25.0, 75.0, "% of the ego's width", step=25.0)
FAMILIES = (
    Family(
        "cp-near-side",
        "An adult walks from the near side (CPNA)",
        "Euro NCAP AEB/LSS VRU: CPNA-25 and -75, 10-60 km/h, 5 km/h; 50 % from UN R152",
        {"speed": Range(10.0, 60.0, "km/h"), "share": _SHARE},
        _near_side,
    ),
    Family(
        "cp-far-side",
        "An adult runs from the far side (CPFA)",
        "Euro NCAP AEB/LSS VRU: CPFA-50, 10-60 km/h, 8 km/h; 25 and 75 %: own choice",
        {"speed": Range(10.0, 60.0, "km/h"), "share": _SHARE},
        _far_side,
    ),
    Family(
        "cp-hidden-child",
        "A child walks from behind parked cars (CPNCO)",
        "Euro NCAP AEB/LSS VRU: CPNCO-50, 10-60 km/h, 5 km/h; where the cars are parked: own choice",
        {"speed": Range(10.0, 60.0, "km/h"), "share": Range(50.0, 50.0, "% of the ego's width")},
        _hidden_child,
    ),
    Family(
        "turning-pedestrian",
        "An adult crosses the road that the ego turns into",
        "CARLA: VehicleTurningRoutePedestrian; 10-20 km/h, 5 km/h: Euro NCAP's CPTA; from which side: own choice",
        {
            "speed": Range(10.0, 20.0, "km/h"),
            "share": _SHARE,
            "turn": Range(-1.0, 1.0, "-1 left, 1 right", step=2.0),
            "side": Range(-1.0, 1.0, "-1 from the ego's left, 1 from its right", step=2.0),
        },
        _turning,
    ),
)
