"""Train a driver with PQN: Q-learning from many worlds, without a replay and a target network.

    python -m train.pqn --env highway                         from camera images, through the shipped frozen encoder
    python -m train.pqn --env intersection --observation state
    python -m train.pqn --resume runs/highway-camera-pqn-0    go on with a run that was stopped or killed

Scenarios with meta-actions only. See `train.common` for what a run directory holds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.networks import QPolicy, policy_kwargs
from agents.pqn import PQN
from envs.errors import exit_on_user_error
from train import common


@dataclass
class Args(common.RunArgs):
    """Train a driver with PQN."""

    rollout_steps: int = 32
    """steps of each world between two updates"""
    minibatches: int = 16
    """equal parts of a rollout, each an optimiser step"""
    epochs: int = 2
    """passes over a rollout"""
    learning_rate: float = 5e-4
    """at the start; it falls linearly to 0"""
    q_lambda: float = 0.65
    """lambda of the returns: 0 looks a value up after one step, 1 at the end of the rollout"""
    exploration_fraction: float = 0.2
    """of the training, over which epsilon falls from 1"""
    final_epsilon: float = 0.02
    """share of random actions after that"""


def check(args: Args) -> None:
    """Raise UserError for the first impossible setting."""
    common.check_common(args)
    common.check_meta_actions(args, "PQN")
    common.check_counts(args, ("rollout_steps", "minibatches", "epochs"))
    common.check_positive(args, ("learning_rate", "exploration_fraction"))
    common.check_shares(args, ("q_lambda", "exploration_fraction", "final_epsilon"))
    common.check_minibatches(args)


def build(args: Args, known: dict[str, Any] | None = None) -> tuple[PQN, dict[str, Any]]:
    """The model over its worlds, and the header of its policy file. Arguments as for `common.make_worlds`."""
    worlds, header = common.make_worlds(args, known)
    kwargs = policy_kwargs(list(args.hidden), header["learned_encoder"], header["architecture"])
    kwargs |= {"optimizer_class": torch.optim.RAdam, "optimizer_kwargs": {}}
    model = PQN(
        QPolicy,
        worlds,
        learning_rate=lambda remaining: args.learning_rate * max(remaining, 0.0),
        n_steps=args.rollout_steps,
        batch_size=args.num_worlds * args.rollout_steps // args.minibatches,
        n_epochs=args.epochs,
        gamma=args.gamma,
        q_lambda=args.q_lambda,
        exploration_fraction=args.exploration_fraction,
        exploration_final_eps=args.final_epsilon,
        stats_window_size=1000,
        policy_kwargs=kwargs,
        seed=args.seed,
        device=worlds.worlds.device,
    )
    return model, {"algorithm": "PQN", "action_values": model.policy.options, **header}


COMMAND = common.Command("PQN", Args, check, build, network=lambda model: model.q_net)


def train(args: Args) -> Path:
    """Train, and return the run directory. See `common.train`."""
    return common.train(COMMAND, args)


if __name__ == "__main__":
    exit_on_user_error(lambda: common.run(COMMAND, train))
