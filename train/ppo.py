"""Train a driver with PPO.

    python -m train.ppo --env highway                         from camera images, through the shipped frozen encoder
    python -m train.ppo --env highway --encoder none          from camera images, an encoder learning with the policy
    python -m train.ppo --env highway-fast --observation state
    python -m train.ppo --env intersection --observation state --policy entities      a transformer over the vehicles
    python -m train.ppo --env highway --policy lstm           with a memory of the episode
    python -m train.ppo --init runs/student --out runs/tuned  start from a policy that `train.distill` or this has made
    python -m train.ppo --resume runs/highway-camera-0        go on with a run that was stopped or killed
    torchrun --nproc-per-node 4 -m train.ppo --env highway --num-worlds 4096        on four GPUs

See `train.common` for what a run directory holds.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents import policies
from agents.networks import ActorCritic, load_weights, policy_kwargs, weights
from agents.ppo import PPO
from agents.recurrent import RecurrentActorCritic, RecurrentPPO
from agents.shaping import NormalisedReward
from envs.errors import UserError, exit_on_user_error
from envs.sb3 import SB3VecEnv
from train import common, settings


@dataclass
class Args(common.RunArgs):
    """Train a driver with PPO."""

    rollout_steps: int = 32
    """steps of each world between two updates"""
    minibatches: int = 8
    """equal parts of a rollout, each an optimiser step"""
    epochs: int = 4
    """passes over a rollout"""
    learning_rate: float = 2e-3
    """at the start; it falls linearly to 0"""
    gae_lambda: float = 0.95
    """lambda of the advantages"""
    clip_range: float = 0.2
    """how far the probability ratio may move"""
    entropy: float = 0.005
    """weight of the entropy bonus"""
    value: float = 0.002
    """weight of the value loss; small, as the penalty makes values large and the trunk is shared"""
    normalise_reward: bool = False
    """learn from rewards in units of the standard deviation of the discounted return so far; "value" then wants to be
    larger"""
    target_kl: float = 0.03
    """an update ends early beyond 1.5 times this KL divergence"""
    init: str | None = None
    """run directory or zoo/NAME of a policy to start from; observation, encoder, kind of policy and hidden layers come
    with it"""


def check(args: Args) -> None:
    """Raise UserError for the first impossible setting."""
    common.check_common(args, ("auto", "entities", "lstm"))
    common.check_counts(args, ("rollout_steps", "minibatches", "epochs"))
    common.check_positive(args, ("learning_rate", "clip_range", "target_kl"))
    common.check_shares(args, ("gae_lambda",))
    common.check_minibatches(args)
    if args.policy == "lstm" and args.num_worlds % args.minibatches:
        raise UserError(
            f"--policy lstm learns from whole worlds: --num-worlds {args.num_worlds} cannot be cut into "
            f"{args.minibatches} equal --minibatches"
        )
    if args.policy == "lstm" and not args.hidden:
        raise UserError("--policy lstm needs --hidden: the first number is how many units the memory has")


def build(args: Args, known: dict[str, Any] | None = None) -> tuple[PPO, dict[str, Any]]:
    """The model over its worlds, and the header of its policy file. Arguments as for `common.make_worlds`."""
    worlds, header = common.make_worlds(args, known)
    if args.normalise_reward:
        worlds = SB3VecEnv(NormalisedReward(worlds.worlds, args.gamma))
    recurrent = args.policy == "lstm"
    model = (RecurrentPPO if recurrent else PPO)(
        RecurrentActorCritic if recurrent else ActorCritic,
        worlds,
        learning_rate=lambda remaining: args.learning_rate * max(remaining, 0.0),
        n_steps=args.rollout_steps,
        batch_size=args.num_worlds * args.rollout_steps // args.minibatches,
        n_epochs=args.epochs,
        gamma=args.gamma,
        gae_lambda=args.gae_lambda,
        clip_range=args.clip_range,
        ent_coef=args.entropy,
        vf_coef=args.value,
        target_kl=args.target_kl,
        stats_window_size=1000,
        policy_kwargs=policy_kwargs(list(args.hidden), header["learned_encoder"], header["architecture"]),
        seed=args.seed,
        device=worlds.worlds.device,
    )
    return model, {"algorithm": "PPO", **header}


def first_policy(args: Args) -> policies.TrainedPolicy:
    """The policy that a run starts from.

    Raises:
        UserError: there is none of that name, for that scenario, or it is not of an actor and a critic.
    """
    policy = policies.load(args.init, args.env)
    if not isinstance(getattr(policy, "network", None), ActorCritic):
        raise UserError(f"PPO starts from a policy with a critic, and '{args.init}' is none: train.ppo makes such")
    return policy


def with_init(args: Args) -> Args:
    """The settings, with those that come with the policy that the run starts from.

    Raises:
        UserError: they were given too, and are others.
    """
    header = first_policy(args).header
    encoder = "none" if header["learned_encoder"] else args.encoder if header["encoder"] is None else args.init
    come = {"observation": header["env_options"]["observation"], "encoder": encoder, "hidden": tuple(header["hidden"])}
    come |= {"policy": header.get("architecture", "auto")}
    if header["learned_encoder"]:
        come |= {"rig": header["env_options"].get("rig", common.USUAL_RIG)}
    unsaid = [Args(), settings.suited(Args, "PPO", args.env)]
    for name, value in come.items():
        if getattr(args, name) not in (value, *(getattr(usual, name) for usual in unsaid)):
            raise UserError(f"{common.option(name)} comes with the policy in {args.init}: leave it out")
    return dataclasses.replace(args, **come)


def start(model: PPO, args: Args) -> None:
    """Give a new run the weights of the policy that it starts from, if any."""
    if args.init is None:
        return
    try:
        load_weights(model.policy, weights(first_policy(args).network))
    except ValueError as error:
        raise UserError(f"the policy in {args.init} does not fit '{args.env}' ({error})") from None


def get_state(model: PPO) -> dict[str, Any]:
    """What `agents.checkpoint.save` does not know of a model."""
    return model.get_state() if isinstance(model, RecurrentPPO) else {}


def set_state(model: PPO, state: dict[str, Any]) -> None:
    """Undo `get_state`."""
    if isinstance(model, RecurrentPPO):
        model.set_state(state)


COMMAND = common.Command(
    "PPO",
    Args,
    check,
    build,
    network=lambda model: model.policy,
    start=start,
    get_state=get_state,
    set_state=set_state,
    parallel=True,
)


def train(args: Args) -> Path:
    """Train, and return the run directory. See `common.train`."""
    if args.init is not None and args.resume is None:
        args = with_init(args)
    return common.train(COMMAND, args)


if __name__ == "__main__":
    exit_on_user_error(lambda: common.run(COMMAND, train))
