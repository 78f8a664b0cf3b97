"""Worlds around worlds."""

from typing import Any


class Wrapped:
    """Has every attribute of the worlds inside it that it does not have itself.

    Args:
        worlds: `envs.api.VecWorlds`, or a wrapper of it.
    """

    def __init__(self, worlds):
        self.worlds = worlds

    def __getattr__(self, name: str) -> Any:
        if name == "worlds":  # not set yet: a copy or an unpickled object
            raise AttributeError(name)
        return getattr(self.worlds, name)
