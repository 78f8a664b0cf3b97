"""The registry of scenarios: one line each."""

from envs.errors import unknown
from envs.scenarios import highway
from envs.scenarios.base import Scenario

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (highway.HIGHWAY, highway.HIGHWAY_FAST)}


def get(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UserError: there is none; the message names the nearest and all of them.
    """
    if name not in SCENARIOS:
        raise unknown("scenario", name, SCENARIOS)
    return SCENARIOS[name]
