"""Train a driver with DQN: Q-learning from a replay of all that was seen.

    python -m train.dqn --env intersection                    from camera images, through the shipped frozen encoder
    python -m train.dqn --env intersection --encoder none     from camera images, an encoder learning with the values
    python -m train.dqn --env highway-fast --observation state --quantiles 32 --prioritised
    python -m train.dqn --resume runs/intersection-camera-dqn-0       go on with a run that was stopped or killed

Scenarios with meta-actions only. See `train.common` for what a run directory holds; the checkpoint holds the replay.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.dqn import DQN
from agents.networks import QPolicy, policy_kwargs
from agents.replay import bytes_needed
from envs.errors import UserError, exit_on_user_error
from train import common
from train.memory import check_memory


@dataclass
class Args(common.RunArgs):
    """Train a driver with DQN."""

    total_steps: int = 400_000
    """policy steps, over all worlds"""
    num_worlds: int = 64
    """worlds at once"""
    checkpoint_every: int = 500
    """rollouts between two checkpoints, which hold the replay"""
    log_every: int = 32
    """rollouts between two rows of the log"""
    rollout_steps: int = 4
    """steps of each world between two updates"""
    gradient_steps: int = 8
    """optimiser steps of an update"""
    batch_size: int = 256
    """steps drawn from the replay for each"""
    buffer_size: int = 200_000
    """steps that the replay holds"""
    learning_starts: int = 5_000
    """steps before the first update, with random actions"""
    learning_rate: float = 5e-4
    """at the start; it falls linearly to 0"""
    target_every: int = 2_000
    """steps between two copies to the target network"""
    exploration_fraction: float = 0.2
    """of the training, over which epsilon falls from 1"""
    final_epsilon: float = 0.02
    """share of random actions after that"""
    n_steps: int = 3
    """rewards summed before a value is looked up"""
    double: bool = True
    """the online network chooses the action whose target value counts"""
    duelling: bool = True
    """a state's value and the actions' advantages are learnt apart"""
    quantiles: int = 1
    """of the return, learnt by quantile regression; 1 learns the mean"""
    prioritised: bool = False
    """draw by the error last made, not uniformly"""


def check(args: Args) -> None:
    """Raise UserError for the first impossible setting."""
    common.check_common(args)
    common.check_meta_actions(args, "DQN")
    counts = ("rollout_steps", "gradient_steps", "batch_size", "target_every", "n_steps", "quantiles")
    common.check_counts(args, counts)
    common.check_positive(args, ("learning_rate", "exploration_fraction"))
    common.check_shares(args, ("exploration_fraction", "final_epsilon"))
    if args.learning_starts < 0:
        raise UserError(f"--learning-starts must not be negative, and is {args.learning_starts}")
    least = args.num_worlds * (max(args.n_steps, args.rollout_steps) + 1)
    if args.buffer_size < least:
        raise UserError(f"--buffer-size must be at least {least:,} with these settings, not {args.buffer_size:,}")


def build(args: Args, known: dict[str, Any] | None = None) -> tuple[DQN, dict[str, Any]]:
    """The model over its worlds, and the header of its policy file. Arguments as for `common.make_worlds`."""
    worlds, header = common.make_worlds(args, known)
    needed = bytes_needed(args.buffer_size, worlds.observation_space)
    check_memory(needed, f"a replay of {args.buffer_size:,} steps", "--buffer-size", worlds.worlds.device)
    model = DQN(
        QPolicy,
        worlds,
        learning_rate=lambda remaining: args.learning_rate * max(remaining, 0.0),
        buffer_size=args.buffer_size,
        learning_starts=args.learning_starts,
        batch_size=args.batch_size,
        gamma=args.gamma,
        train_freq=args.rollout_steps,
        gradient_steps=args.gradient_steps,
        target_update_interval=max(args.target_every, args.num_worlds),
        exploration_fraction=args.exploration_fraction,
        exploration_final_eps=args.final_epsilon,
        n_steps=args.n_steps,
        double=args.double,
        duelling=args.duelling,
        quantiles=args.quantiles,
        prioritised=args.prioritised,
        stats_window_size=1000,
        policy_kwargs=policy_kwargs(list(args.hidden), header["learned_encoder"], header["architecture"]),
        seed=args.seed,
        device=worlds.worlds.device,
    )
    return model, {"algorithm": "DQN", "action_values": model.policy.options, **header}


COMMAND = common.Command(
    "DQN", Args, check, build, lambda model: model.q_net, get_state=DQN.get_state, set_state=DQN.set_state
)


def train(args: Args) -> Path:
    """Train, and return the run directory. See `common.train`."""
    return common.train(COMMAND, args)


if __name__ == "__main__":
    exit_on_user_error(lambda: common.run(COMMAND, train))
