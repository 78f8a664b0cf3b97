"""What simulates the worlds that a policy is evaluated in and watched in: ours, or highway-env itself."""

from dataclasses import replace
from typing import Any

import torch

import envs
from envs import scenarios
from envs.errors import UserError


def check(backend: str, scenario: str) -> None:
    """Raise UserError where highway-env does not have a scenario, or is driven there by other means than ours."""
    ours = scenarios.get(scenario)
    if backend == "lanewise":
        return
    if not ours.upstream_id:
        raise UserError(f"highway-env has no '{scenario}'; use --backend lanewise")
    if not ours.actions.names or ours.agents > 1:
        raise UserError(f"--backend highway-env drives one agent with meta-actions, and '{scenario}' has others")


def make_worlds(backend: str, scenario: str, num_worlds: int, device: torch.device | str, options: dict[str, Any]):
    """Worlds as a policy wants to see them.

    Args:
        backend: "lanewise", or "highway-env", filmed by our camera and always on the CPU.
        scenario: its name.
        num_worlds: how many.
        device: of ours.
        options: the policy's, for `envs.make_vec`.

    Raises:
        UserError: see `check`.
    """
    check(backend, scenario)
    if backend == "lanewise":
        return envs.make_vec(scenario, num_worlds=num_worlds, device=device, **options)
    worlds = envs.reference.HighwayEnvWorlds(scenario, num_worlds=num_worlds, **options)
    # Some of its environments have no time limit of their own.
    worlds.scenario = replace(worlds.scenario, duration=min(worlds.scenario.duration, scenarios.get(scenario).duration))
    return worlds
