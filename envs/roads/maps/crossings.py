"""A street on which people cross: one lane each way, zebra crossings, and room to park beside the lanes.

The right lane leads from a to b along +x, the other from c to d against it. Their nodes differ, since drivers see what
is on lanes that follow theirs, and nobody turns round at the end. y = 0 is the middle of the street.
"""

from collections.abc import Sequence

from envs.errors import UserError
from envs.roads.ground import SHOULDER
from envs.roads.lanes import straight
from envs.roads.maps.carriageway import require_positive
from envs.roads.network import Crossing, RoadNetwork

WIDTH = 3.5  # m, of a lane
KERB = WIDTH + SHOULDER  # m from the street's middle
SPEED_LIMIT = 13.9  # m/s, 50 km/h
ROOM = 20.0  # m, between a zebra and the street's ends


def network(length: float = 250.0, zebras: Sequence[float] = (125.0,)) -> RoadNetwork:
    """The street.

    Args:
        length: [m].
        zebras: where along it the crossings are [m].

    Raises:
        UserError: a length that is not positive, or a zebra closer than 20 m to an end.
    """
    require_positive(length=length)
    result = RoadNetwork()
    right, left = WIDTH / 2, -WIDTH / 2
    options = {"width": WIDTH, "speed_limit": SPEED_LIMIT}
    result.add_lane("a", "b", straight((0.0, right), (length, right), lines=("dashed", "solid"), **options))
    result.add_lane("c", "d", straight((length, left), (0.0, left), lines=("none", "solid"), **options))
    for x in zebras:
        if not ROOM <= x <= length - ROOM:
            raise UserError(
                f"a zebra must be at least {ROOM:g} m from the ends of the {length:g} m long street, not at {x:g} m"
            )
        result.crossings.append(Crossing((x, KERB), (x, -KERB)))
    return result
