"""A street with roadworks and parked cars: one lane each way, and a strip to park on.

Two lanes lead from a to b along +x, of which the left one is that of the traffic from c to d, in which to pass what
stands on the right one. That traffic has a road of its own on the same ground, as in highway-env's `two-way-v0`, which
leads nowhere: nobody turns round at its end.
"""

from envs.errors import UserError
from envs.roads.lanes import straight
from envs.roads.maps.carriageway import LANE_WIDTH, add_road, markings, require_positive, straights
from envs.roads.network import RoadNetwork

BEFORE, BEYOND = 60.0, 320.0  # m of street before x = 0 and past its end, from where traffic comes
STRIP = 2.4  # m, width of the strip for parking
PARKED = 1.5 * LANE_WIDTH + STRIP / 2  # m, y of its middle


def network(length: float = 400.0) -> RoadNetwork:
    """The street. Its oncoming lane has its middle at y = 0, the lane on the right at y = 4 m.

    Args:
        length: from x = 0 to where the drive ends [m].

    Raises:
        UserError: a length that is not positive.
    """
    require_positive(length=length)
    result = RoadNetwork()
    start, end = -BEFORE, length + BEYOND
    add_road(result, "a", "b", straights((start, 0.0), (end, 0.0), markings(2, dividers="right")))
    add_road(result, "c", "d", straights((end, 0.0), (start, 0.0), [("none", "none")]))
    strip = straight((start, PARKED), (end, PARKED), width=STRIP, lines=("none", "solid"), forbidden=True)
    result.add_lane("e", "f", strip)
    return result


def taper_length(offset: float, speed: float) -> float:
    """Length over which cones lead traffic out of a lane [m].

    The Manual on Uniform Traffic Control Devices, table 6C-4, in metres and km/h: W S^2 / 155 at 60 km/h and less,
    W S / 1.6 above.

    Args:
        offset: W, by how much they close the road [m].
        speed: S, at which traffic approaches [km/h].

    Raises:
        UserError: an offset or a speed that is not positive.
    """
    if not (offset > 0 and speed > 0):
        raise UserError(f"a taper needs a positive offset and speed, not {offset:g} m and {speed:g} km/h")
    return offset * speed**2 / 155.0 if speed <= 60.0 else offset * speed / 1.6
