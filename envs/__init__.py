"""lanewise's worlds: batched driving simulation and its sensors, on a CPU or a GPU by the same code."""

from envs import compilation as _compilation  # noqa: F401  sets Warp up before any kernel is defined
from envs import reference
from envs.api import VecWorlds, make_vec
from envs.gymnasium import register as _register
from envs.scenarios import SCENARIOS

__all__ = ["VecWorlds", "list_scenarios", "make_vec", "reference"]


_register()


def list_scenarios() -> list[str]:
    """Names of the scenarios that `make_vec` knows."""
    return sorted(SCENARIOS)
