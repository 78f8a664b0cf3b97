"""Who drives in what: policies by their specification, and the worlds that they are evaluated in and watched in."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import envs
from agents import checkpoint, foreign, policies
from agents.policies import Policy
from agents.shield import Shield
from envs import scenarios
from envs.errors import UserError, unknown
from envs.scenarios import Scenario, stage
from envs.scenarios.stage import Case
from evaluation.corruptions import Corrupted

SHIELDS = ("rss",)


def check(backend: str, scenario: str | Scenario) -> None:
    """Raise UserError where highway-env does not have a scenario, or is driven there by other means than ours."""
    ours = scenarios.get(scenario)
    if backend == "lanewise":
        return
    if not ours.upstream_id:
        raise UserError(f"highway-env has no '{ours.name}'; use --backend lanewise")
    if not ours.actions.names or ours.agents > 1:
        raise UserError(f"--backend highway-env drives one agent with meta-actions, and '{ours.name}' has others")


def make_worlds(
    backend: str, scenario: str | Scenario, num_worlds: int, device: torch.device | str, options: dict[str, Any]
):
    """Worlds as a policy wants to see them.

    Args:
        backend: "lanewise", or "highway-env", filmed by our camera and always on the CPU.
        scenario: its name, or the scenario.
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


def file_of(spec: str) -> Path | None:
    """The file of a policy that is specified by a run directory or as zoo/NAME; None for those without."""
    folder = policies.ZOO / spec.removeprefix("zoo/") if spec.startswith("zoo/") else Path(spec)
    path = folder / policies.NAME
    return path if path.is_file() else None


def digest(spec: str) -> str:
    """SHA-256 of the file that a policy is in, "" where there is none."""
    if foreign.is_foreign(spec):
        return foreign.digest(spec)
    path = file_of(spec)
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def trained_on(spec: str) -> str | None:
    """The scenario that a policy was trained on, by the header of its file; None for policies without a file."""
    path = file_of(spec)
    return None if path is None else checkpoint.read(path)[1].get("scenario")


def driver(
    policy: str | Policy,
    scenario: str | Sequence[Case],
    device: torch.device | str,
    *,
    shield: str | None = None,
    corruption: str | None = None,
    like: str | None = None,
    trust: bool = False,
) -> tuple[Policy, Scenario]:
    """A policy, and the scenario that it is to drive.

    Args:
        policy: what `agents.policies.load` or `agents.foreign.load` takes, or a policy.
        scenario: name of a scenario, or cases to be staged.
        device: where observations will be.
        shield: "rss" to put it around the policy.
        corruption: what spoils its camera and how much, 1 to 5, as "fog:3"; see `evaluation.corruptions`.
        like: scenario whose actions and observations the stage has, for a policy that does not say it itself.
        trust: whether files and modules may run code of their own.

    Raises:
        UserError: no such policy, or none that can drive there.
    """
    if shield not in (None, *SHIELDS):
        raise unknown("shield", shield, SHIELDS)
    ours = isinstance(policy, str) and not foreign.is_foreign(policy)
    driving = None if ours else foreign.load(policy, device, trust)
    home: str | None = None
    if isinstance(scenario, str):
        wanted = scenarios.get(scenario)
    else:
        home = trained_on(policy) if ours else driving.scenario or like
        wanted = stage.of(tuple(scenario), None if home is None else scenarios.get(home))
    if ours:
        # What was trained is asked whether it drives the scenario that the stage is like.
        driving = policies.load(policy, scenario=home or wanted, device=device)
    else:
        _prepared(driving, wanted, staged=not isinstance(scenario, str))
    if corruption is not None:
        kind, _, strength = corruption.partition(":")
        if not strength.isdigit():
            raise UserError(f"a corruption is a kind and a strength from 1 to 5, as fog:3, not '{corruption}'")
        driving = Corrupted(driving, kind, int(strength))
    return Shield(driving) if shield else driving, wanted


def _prepared(driving: foreign.Called | foreign.SB3Policy, wanted: Scenario, staged: bool) -> None:
    """Get a policy that is not ours ready for a scenario."""
    try:
        driving.prepare(wanted)
    except UserError as error:
        if not staged:
            raise
        raise UserError(f"{error}; name the scenario that it was made for with --like") from None
