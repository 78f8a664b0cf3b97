"""An evaluation in shards: independent pieces of work, each with a file of its own. `evaluation.workers` does them.

A shard is one policy and a block of episodes. What comes of it depends on nothing else: not on who works it out, when,
or what was done before. Its file is named by a hash of all that it depends on (the policy's weights, the scenario or
the cases, the seed, which episodes, the code), so that a shard is done when its file is there, a worker that is killed
loses no more than the shard that it was at, and an evaluation that was interrupted goes on.
"""

import functools
import hashlib
import importlib.metadata
import itertools
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents import checkpoint
from envs.scenarios.stage import Case
from evaluation import backends, parts, recorder
from evaluation.parts import Part
from evaluation.regressions import load_regressions
from evaluation.results import Setting
from evaluation.suites import parse, suite

ROOT = Path(__file__).parent.parent
# Called with the number of policy steps that were taken.
OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Task:
    """What one policy is to do, in words that another process understands.

    Attributes:
        policy: its specification; or a policy, which only this process can drive with.
        setting: of the evaluation.
        count: cases of each family, where a suite is driven.
        shield: see `evaluation.backends.driver`.
        corruption: see `evaluation.backends.driver`.
        like: see `evaluation.backends.driver`.
        trust: see `evaluation.backends.driver`.
        device: where it is simulated.
        keep: failures to be kept as replays.
    """

    policy: Any
    setting: Setting
    count: int = 0
    shield: str | None = None
    corruption: str | None = None
    like: str | None = None
    trust: bool = False
    device: str = "cpu"
    keep: int = 0

    @property
    def cases(self) -> tuple[Case, ...] | None:
        """What is driven, one case an episode; None where it is a scenario."""
        return None if self.setting.suite is None else drawn(self.setting.suite, self.count, self.setting.seed)


@functools.lru_cache(maxsize=8)
def drawn(name: str, count: int, seed: int) -> tuple[Case, ...]:
    """The cases of a suite, see `evaluation.suites.suite`, or of a file of regressions (*.json)."""
    return tuple(load_regressions(name) if name.endswith(".json") else suite(name, count, seed))


@dataclass(frozen=True)
class Shard:
    """A piece of work: `count` episodes from number `first` on. `name` is that of its file."""

    task: Task
    first: int
    count: int
    name: str


def split(task: Task) -> list[Shard]:
    """The shards of a task. Cases of two families are never in one: they drive on other maps."""
    cases = task.cases
    names = [""] * task.setting.episodes if cases is None else [case.family for case in cases]
    starts = [k for k in range(len(names)) if k == 0 or names[k] != names[k - 1]]
    blocks = [
        (first, min(recorder.BLOCK, end - first))
        for start, end in itertools.pairwise([*starts, len(names)])
        for first in range(start, end, recorder.BLOCK)
    ]
    return [Shard(task, first, count, _name(task, first, count)) for first, count in blocks]


def _name(task: Task, first: int, count: int) -> str:
    """The name of a shard's file: the same if and only if the same comes of it."""
    setting, cases = task.setting, task.cases
    depends = {
        "code": code(),
        # Nobody can tell what an object does: its parts are its own.
        "policy": task.policy if isinstance(task.policy, str) else uuid.uuid4().hex,
        "weights": backends.digest(task.policy) if isinstance(task.policy, str) else "",
        "scenario": [setting.scenario, setting.backend, setting.suite, setting.seed],
        "cases": None if cases is None else [repr(case) for case in cases[first : first + count]],
        "episodes": [first, count],
        "how": [task.shield, task.corruption, task.like, torch.device(task.device).type, task.keep],
    }
    return f"part-{hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:32]}.safetensors"


@functools.cache
def code() -> str:
    """SHA-256 of what computes: our own source, and the versions of what it builds on."""
    digest = hashlib.sha256()
    for package in ("envs", "perception", "agents", "evaluation"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    for name in ("torch", "warp-lang", "numpy", "highway-env"):
        digest.update(importlib.metadata.version(name).encode())
    return digest.hexdigest()


def compute(shard: Shard, on_step: OnStep = lambda worlds: None) -> Part:
    """Work a shard out.

    Raises:
        UserError: the policy cannot be loaded, or cannot drive there.
    """
    task, setting, cases = shard.task, shard.task.setting, shard.task.cases
    block: str | list[Case] = setting.scenario
    world = shard.first
    if cases is not None:
        # A case has the random numbers of its own number, whatever suite it is in.
        mine = cases[shard.first : shard.first + shard.count]
        block, world = in_place(mine), parse(mine[0].id)[2]
    with _alike(shard.first):
        policy, scenario = backends.driver(
            task.policy,
            block,
            task.device,
            shield=task.shield,
            corruption=task.corruption,
            like=task.like,
            trust=task.trust,
        )
        if hasattr(policy, "generator"):  # random drivers do not drive every block alike
            policy.generator.manual_seed(shard.first)

        def make_worlds(count: int):
            wanted = setting.scenario if cases is None else scenario
            return backends.make_worlds(setting.backend, wanted, count, task.device, policy.env_options)

        return parts.measured(
            make_worlds,
            policy,
            setting.backend,
            setting.seed,
            shard.first,
            shard.count,
            task.keep,
            on_step,
            cases,
            world,
        )


def in_place(cases: Sequence[Case]) -> list[Case]:
    """Consecutive cases of a family in such an order that the world whose identity is a case's number lives that case:
    world k lives number k modulo how many there are."""
    first = parse(cases[0].id)[2]
    return [cases[(k - first) % len(cases)] for k in range(len(cases))]


class _alike:
    """What is computed within depends neither on the number of cores nor on random numbers that were drawn before; both
    are put back after. Sums of floats depend on how many threads share them."""

    def __init__(self, seed: int):
        self._seed = seed

    def __enter__(self) -> None:
        self._threads, self._random = torch.get_num_threads(), checkpoint.random_states()
        torch.set_num_threads(1)
        torch.manual_seed(self._seed)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._threads)
        checkpoint.set_random_states(self._random)
