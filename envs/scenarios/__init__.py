"""The registry of scenarios: one line each."""

from envs.errors import unknown
from envs.scenarios import (
    crossing,
    exit,
    highway,
    intersection,
    intersection_signals,
    lane_keeping,
    merge,
    parking,
    racetrack,
    ring,
    roadworks,
    roundabout,
    town,
    two_way,
    u_turn,
)
from envs.scenarios.base import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        highway.HIGHWAY,
        highway.HIGHWAY_FAST,
        merge.MERGE,
        merge.MERGE_GENERIC,
        roundabout.ROUNDABOUT,
        roundabout.ROUNDABOUT_GENERIC,
        intersection.INTERSECTION,
        intersection.INTERSECTION_CONTINUOUS,
        intersection.INTERSECTION_MULTI,
        intersection_signals.INTERSECTION_SIGNALS,
        exit.EXIT,
        racetrack.RACETRACK,
        racetrack.RACETRACK_LARGE,
        racetrack.RACETRACK_OVAL,
        two_way.TWO_WAY,
        u_turn.U_TURN,
        parking.PARKING,
        parking.PARKING_REPEAT,
        parking.PARKING_PARKED,
        lane_keeping.LANE_KEEPING,
        ring.RING,
        roadworks.ROADWORKS,
        crossing.CROSSING,
        town.TOWN,
        town.TOWN_HELD_OUT,
    )
}


def get(name: str | Scenario) -> Scenario:
    """The scenario of that name, or the scenario itself.

    Raises:
        UserError: there is none; the message names the nearest and all of them.
    """
    if isinstance(name, Scenario):
        return name
    if name not in SCENARIOS:
        raise unknown("scenario", name, SCENARIOS)
    return SCENARIOS[name]
