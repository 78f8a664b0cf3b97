"""Teach a driver that sees little what another one knows: DAgger, from a privileged teacher to a student.

    python -m train.ppo --env highway --observation state --out runs/teacher
    python -m train.distill --env highway --teacher runs/teacher --out runs/student    a student of camera images
    python -m train.ppo --env highway --init runs/student --out runs/tuned             PPO goes on from the student
    python -m train.distill --env intersection-signals --teacher idm                   taught by the law of drivers
    python -m train.distill --env highway --teacher rules:driver --trust               taught by rules in rules.py
    python -m train.distill --resume runs/student          go on with a run that was stopped or killed

Teacher and student see the same states of the same worlds. A run directory holds what `train.common` says; its policy
is an actor and a critic like PPO's.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.buffers import bytes_of
from agents.dagger import DAgger
from agents.networks import ActorCritic, policy_kwargs
from agents.teacher import make_taught
from envs.errors import UserError, exit_on_user_error
from envs.simulation import resolve_device
from evaluation import backends
from train import common
from train.memory import check_memory


@dataclass
class Args(common.RunArgs):
    """Teach a driver what another one knows."""

    teacher: str = ""
    """run directory or zoo/NAME of a policy, "idm" (the law of drivers, which is told everything), or MODULE:NAME or
    FILE.zip of a driver that is not ours (see --trust)"""
    trust: bool = False
    """the teacher may be a file or a module that runs code of its own"""
    total_steps: int = 400_000
    """policy steps, over all worlds"""
    rollout_steps: int = 32
    """steps of each world between two updates"""
    minibatches: int = 8
    """optimiser steps of a pass over a rollout"""
    epochs: int = 4
    """passes over a rollout"""
    learning_rate: float = 2e-3
    """at the start; it falls linearly to 0"""
    teacher_fraction: float = 0.3
    """of the training, over which the share of steps that the teacher drives falls from 1 to 0"""
    dataset_size: int = 400_000
    """steps that the student learns from, the newest; a step takes 0.5 kB with a frozen encoder"""
    value: float = 0.002
    """weight of the value loss; small, as the penalty makes values large and the trunk is shared"""
    gae_lambda: float = 0.95
    """lambda of the returns that the critic learns"""


def check(args: Args) -> None:
    """Raise UserError for the first impossible setting."""
    common.check_common(args)
    if not args.teacher:
        raise UserError("who teaches? name a run directory, zoo/NAME or MODULE:NAME with --teacher")
    common.check_counts(args, ("rollout_steps", "minibatches", "epochs"))
    common.check_positive(args, ("learning_rate",))
    common.check_shares(args, ("gae_lambda", "teacher_fraction"))
    common.check_minibatches(args)
    if args.dataset_size < args.num_worlds:
        raise UserError(f"--dataset-size must be at least --num-worlds, {args.num_worlds}, not {args.dataset_size}")


def build(args: Args, known: dict[str, Any] | None = None) -> tuple[DAgger, dict[str, Any]]:
    """The model over its worlds, and the header of its policy file. Arguments as for `common.make_worlds`."""
    teacher, _ = backends.driver(args.teacher, args.env, resolve_device(args.device), trust=args.trust)
    worlds, header = common.make_worlds(args, known, functools.partial(make_taught, teacher))
    needed = args.dataset_size * bytes_of(worlds.observation_space)
    check_memory(needed, f"a dataset of {args.dataset_size:,} steps", "--dataset-size", worlds.worlds.device)
    model = DAgger(
        ActorCritic,
        worlds,
        dataset_size=args.dataset_size,
        teacher_fraction=args.teacher_fraction,
        learning_rate=lambda remaining: args.learning_rate * max(remaining, 0.0),
        n_steps=args.rollout_steps,
        batch_size=args.num_worlds * args.rollout_steps // args.minibatches,
        n_epochs=args.epochs,
        gamma=args.gamma,
        gae_lambda=args.gae_lambda,
        vf_coef=args.value,
        stats_window_size=1000,
        policy_kwargs=policy_kwargs(list(args.hidden), header["learned_encoder"], header["architecture"]),
        seed=args.seed,
        device=worlds.worlds.device,
    )
    model.taught_by = backends.digest(args.teacher)
    return model, {"algorithm": "DISTILL", **header, "teacher": args.teacher, "teacher_sha256": model.taught_by}


def get_state(model: DAgger) -> dict[str, Any]:
    """What `agents.checkpoint.save` does not know of a model."""
    return {"dataset": model.dataset.get_state(), "taught_by": model.taught_by}


def set_state(model: DAgger, state: dict[str, Any]) -> None:
    """Undo `get_state`.

    Raises:
        UserError: the teacher is no longer what it was.
    """
    if state["taught_by"] != model.taught_by:
        name = model.env.worlds.teacher.name
        raise UserError(f"the teacher {name} has changed since this run began: put the old one back to go on")
    model.dataset.set_state(state["dataset"])


COMMAND = common.Command(
    "DISTILL",
    Args,
    check,
    build,
    network=lambda model: model.policy,
    get_state=get_state,
    set_state=set_state,
)


def train(args: Args) -> Path:
    """Train, and return the run directory. See `common.train`."""
    return common.train(COMMAND, args)


if __name__ == "__main__":
    exit_on_user_error(lambda: common.run(COMMAND, train))
