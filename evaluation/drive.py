"""Driving cases for a score each, which says how near the policy came to a failure; and where searches put results.

A failure is a collision of the ego, whoever was at fault. The score of an episode is the least distance between the
ego's box and another [m]; in a collision it is minus the speed of the impact [m/s].
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.policies import Policy
from envs.errors import UserError
from envs.interruption import interruptible
from envs.scenarios.stage import Case
from envs.state import LANDMARK
from evaluation import backends
from evaluation.blame import Blame
from evaluation.geometry import Boxes, distance

BATCH = 256  # worlds that are simulated at once
FAR = 1000.0  # m, score of episodes without anybody else
SPARED = 5.0  # m, score of collisions that are not laid to the ego where only those are meant
TOUCH = 0.001  # a collision scores at most minus this [m/s], and everything else at least this [m]

Load = Callable[[list[Case]], tuple[Policy, Any]]


def scores_of(
    cases: list[Case], load: Load, device: str, seed: int, first: int = 0, at_fault: bool = False
) -> np.ndarray:
    """Drive cases and score them, see the module. Shape: (len(cases),).

    Args:
        cases: of one family.
        load: cases -> a policy and the scenario of these cases, as `evaluation.backends.driver` gives them.
        device: where it is simulated.
        seed: of the worlds.
        first: identity of the first world in the random streams.
        at_fault: only collisions laid to the ego are failures, see `evaluation.metrics.collision`; the others score
            `SPARED`.
    """
    # World k lives case number (its identity) % len(cases).
    placed = [cases[(k - first) % len(cases)] for k in range(len(cases))]
    policy, scenario = load(placed)
    worlds = backends.make_worlds("lanewise", scenario, len(cases), device, policy.env_options)
    try:
        return _rolled(worlds, policy, seed, first, at_fault).cpu().double().numpy()
    finally:
        worlds.close()


class Loader:
    """Loads the policy of a search for its cases: a `Load`.

    Args:
        spec, device, shield, trust: see `evaluation.backends.driver`.

    Attributes:
        name: of the policy, once it has been loaded.
    """

    def __init__(self, spec: str, device: str, shield: str | None, trust: bool):
        self._spec, self._device, self._options = spec, device, {"shield": shield, "trust": trust}
        self.name = ""

    def __call__(self, cases: list[Case]) -> tuple[Policy, Any]:
        policy, scenario = backends.driver(self._spec, cases, self._device, **self._options)
        self.name = policy.name
        return policy, scenario


class Drive:
    """Drives cases of a family and scores them, each in a world of its own.

    Args:
        load, device, seed, at_fault: see `scores_of`.
        on_driven: called with the number of cases that were driven.
        block: worlds that are simulated at once.

    Attributes:
        episodes: how many have been driven; the identity of the next world in the random streams.
    """

    def __init__(
        self,
        load: Load,
        device: str,
        seed: int,
        on_driven: Callable[[int], None] = lambda cases: None,
        block: int = BATCH,
        at_fault: bool = False,
    ):
        self._load, self._device, self._seed, self._at_fault = load, device, seed, at_fault
        self._on_driven, self._block = on_driven, block
        self.episodes = 0

    def __call__(self, cases: list[Case]) -> np.ndarray:
        """Scores. Shape: (len(cases),)."""
        scores = np.empty(len(cases))
        for begin in range(0, len(cases), self._block):
            block = cases[begin : begin + self._block]
            found = scores_of(block, self._load, self._device, self._seed, self.episodes, self._at_fault)
            scores[begin : begin + self._block] = found
            self.episodes += len(block)
            self._on_driven(len(block))
        return scores


def _rolled(worlds, policy: Policy, seed: int, first: int, at_fault: bool) -> torch.Tensor:
    """The scores of the first episode of every world. Shape: (N,)."""
    state, scenario = worlds.state, worlds.scenario
    obs, _ = worlds.reset(seed=seed, first_world=first)
    policy.reset(None)
    nearest = torch.full((worlds.num_worlds,), FAR, device=worlds.device)
    impact = torch.zeros_like(nearest)
    running = torch.ones_like(nearest, dtype=torch.bool)
    before = _velocities(state)
    blame = Blame(worlds) if at_fault else None

    def on_frame() -> None:
        nonlocal before
        apart = _distances(state)
        gap, other = apart.min(1)
        hit = (state.crashed[:, 0] != 0) & running & (impact == 0)
        closing = (before[:, :1] - before).norm(dim=-1).gather(1, other[:, None])[:, 0]
        impact.copy_(torch.where(hit, closing.clamp(min=TOUCH), impact))
        nearest.copy_(torch.where(running, torch.minimum(nearest, gap), nearest))
        before = _velocities(state)
        if blame is not None:
            blame.on_frame(running)
        if hasattr(policy, "on_frame"):  # shields act between decisions
            policy.on_frame(worlds)

    # A step is a whole number of frames, and rounding may end an episode a step after its time.
    for _ in range(math.ceil(scenario.duration * scenario.simulation_frequency / scenario.frames_per_step) + 1):
        obs, _, terminated, truncated, _ = worlds.step(policy.act(obs), on_frame=on_frame)
        done = terminated | truncated
        running &= ~done
        policy.reset(done)
        if not running.any():
            break
    failures = -impact if blame is None else torch.where(blame.at_fault(), -impact, SPARED)
    return torch.where(impact > 0, failures, nearest.clamp(min=TOUCH))


def _velocities(state) -> torch.Tensor:
    """Of all slots [m/s]. Shape: (N, V, 2)."""
    return torch.stack([state.speed * state.heading.cos(), state.speed * state.heading.sin()], -1)


def _distances(state) -> torch.Tensor:
    """From the ego's box to what is solid in every slot, `FAR` where nothing is [m]. Shape: (N, V)."""
    boxes = Boxes(state.x, state.y, state.heading, state.length, state.width)
    apart = distance(Boxes(*(field[:, :1] for field in boxes)), boxes)
    solid = (state.kind != 0) & (state.kind != LANDMARK)
    solid[:, 0] = False
    return torch.where(solid, apart, FAR)


@contextlib.contextmanager
def place(out: Path | None, kind: str, family: str, policy: str) -> Iterator[Path]:
    """Where results go. SIGTERM and Ctrl-C end the command within it.

    Args:
        out: what the user wants; None for runs/KIND/FAMILY-POLICY.
        kind, family, policy: of the search.

    Raises:
        UserError: it is a file.
        SystemExit: the command was interrupted.
    """
    out = out or Path("runs") / kind / f"{family}-{policy.strip('/').replace('/', '-')}"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a directory, and {out} is a file")
    with interruptible() as interruption:
        try:
            yield out
        except KeyboardInterrupt:
            print("interrupted; nothing was replaced", file=sys.stderr)
            raise SystemExit(interruption.exit_code) from None
