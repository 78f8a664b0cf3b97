"""Train a driver with PPO.

    python -m train.ppo --env highway                         from camera images, through the shipped frozen encoder
    python -m train.ppo --env highway --encoder none          from camera images, an encoder learning with the policy
    python -m train.ppo --env highway-fast --observation state
    python -m train.ppo --resume runs/highway-camera-0        go on with a run that was stopped or killed

A run directory holds config.json, policy.safetensors (all that is needed to drive), checkpoint.safetensors (all that is
needed to go on exactly), metrics.jsonl and TensorBoard's event files.
"""

import contextlib
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stable_baselines3
import torch
import tyro
from stable_baselines3.common.logger import Logger
from torch import nn

import envs
from agents import checkpoint, policies
from agents.checkpoint import Checkpoints, Interrupted
from agents.features import FeatureWorlds
from agents.networks import ActorCritic, policy_kwargs
from agents.ppo import PPO, Diverged
from agents.shaping import CrashPenalty
from envs import files
from envs.errors import UserError, exit_on_user_error, unknown
from envs.sb3 import SB3VecEnv
from envs.sensors.rig import SURROUND
from perception import encoders
from train.progress import MetricsFile, Progress, TensorBoard

CONFIG = "config.json"
LEARNED_ENCODER = "small"  # the architecture of `--encoder none`
FRAMES = 2  # camera frames that it sees


@dataclass
class Args:
    """Train a driver with PPO."""

    env: str = "highway"
    """scenario"""
    observation: str = "camera"
    """what the driver sees: "camera" (images and its own speed) or "state" (what the scenario measures)"""
    encoder: str = "zoo/highway-small"
    """folder of a frozen encoder, or "none": one learns with the policy, from pixels; unused without a camera"""
    total_steps: int = 1_400_000
    """policy steps, over all worlds"""
    num_worlds: int = 256
    """worlds at once"""
    seed: int = 0
    """of the worlds, the weights and the exploration"""
    out: Path | None = None
    """run directory, new; runs/ENV-OBSERVATION-SEED by default"""
    resume: Path | None = None
    """run directory to go on with, with its own settings"""
    device: str = "auto"
    """"auto", "cpu" or "cuda" """
    rollout_steps: int = 32
    """steps of each world between two updates"""
    minibatches: int = 8
    """equal parts of a rollout, each an optimiser step"""
    epochs: int = 4
    """passes over a rollout"""
    learning_rate: float = 2e-3
    """at the start; it falls linearly to 0"""
    gamma: float = 0.97
    """discount of one policy step"""
    gae_lambda: float = 0.95
    """lambda of the advantages"""
    clip_range: float = 0.2
    """how far the probability ratio may move"""
    entropy: float = 0.005
    """weight of the entropy bonus"""
    value: float = 0.002
    """weight of the value loss; small, as the penalty makes values large and the trunk is shared"""
    target_kl: float = 0.03
    """an update ends early beyond 1.5 times this KL divergence"""
    crash_penalty: float = 60.0
    """taken off the reward of a step in which the ego crashes, while it learns; reported returns are the scenario's"""
    hidden: tuple[int, ...] = (256, 256)
    """units of the hidden layers, which actor and critic share"""
    checkpoint_every: int = 20
    """rollouts between two checkpoints"""


def check(args: Args) -> None:
    """Raise UserError for the first impossible setting."""
    scenario = envs.scenarios.get(args.env)
    if scenario.agents > 1:
        raise UserError(
            f"'{scenario.name}' has {scenario.agents} agents a world, and only scenarios with one can be learnt"
        )
    if args.observation not in ("camera", "state"):
        raise unknown("observation", args.observation, ("camera", "state"))
    for name in ("total_steps", "num_worlds", "rollout_steps", "minibatches", "epochs", "checkpoint_every"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    for name in ("learning_rate", "clip_range", "target_kl"):
        if not getattr(args, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} must be positive, not {getattr(args, name)}")
    if args.crash_penalty < 0:
        raise UserError(f"--crash-penalty must not be negative, and is {args.crash_penalty}")
    for name in ("gamma", "gae_lambda"):
        if not 0 <= getattr(args, name) <= 1:
            raise UserError(f"--{name.replace('_', '-')} must lie between 0 and 1, not {getattr(args, name)}")
    steps = args.num_worlds * args.rollout_steps
    if steps % args.minibatches or steps < 2 * args.minibatches:
        raise UserError(f"a rollout of {steps} steps cannot be cut into {args.minibatches} equal --minibatches")


def begin(args: Args) -> tuple[Args, Path, dict[str, Any]]:
    """The settings and the directory of a new run or of the one to go on with, and the latter's configuration.

    Raises:
        UserError: an impossible setting; a directory that exists and is not to be resumed, or the reverse.
    """
    if args.resume is None:
        check(args)
        out = args.out or Path("runs") / f"{args.env}-{args.observation}-{args.seed}"
        if out.exists():
            raise UserError(f"{out} exists: choose another --out, or go on with it by --resume {out}")
        return args, out, {}
    try:
        config = json.loads((args.resume / CONFIG).read_text())
        saved = Args(**config["args"])
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no run to resume in {args.resume}: {CONFIG} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{args.resume / CONFIG} is not the configuration of a run ({error})") from None
    saved.hidden = tuple(saved.hidden)
    for name in {field.name for field in dataclasses.fields(Args)} - {"resume", "device"}:
        if getattr(args, name) not in (getattr(Args(), name), getattr(saved, name)):
            raise UserError(f"--{name.replace('_', '-')} cannot change when a run is resumed; leave it out")
    saved.device = saved.device if args.device == "auto" else args.device
    return saved, args.resume, config


def frozen_encoder(args: Args, card: dict[str, Any] | None) -> tuple[nn.Module, dict[str, Any]]:
    """The frozen encoder and what `policies.save` records of it. See `build`; "zoo/NAME" is found from anywhere."""
    if card is not None:
        encoder = encoders.build(card["encoder"], card["in_channels"], card["height"], card["width"])
        return encoder.eval().requires_grad_(False), card
    folder = Path(args.encoder)
    if args.encoder.startswith("zoo/") and not folder.exists():
        folder = policies.ZOO / args.encoder.removeprefix("zoo/")
    card = encoders.read_card(folder)
    kept = {key: card[key] for key in ("encoder", "in_channels", "height", "width")}
    return encoders.load(folder, rig=SURROUND), kept


def build(args: Args, card: dict[str, Any] | None = None) -> tuple[PPO, dict[str, Any]]:
    """The model over its worlds, and the header of its policy file.

    Args:
        args: the settings.
        card: of the frozen encoder of a run to go on with, whose checkpoint holds the weights; None to load both.
    """
    learned_encoder = LEARNED_ENCODER if args.observation == "camera" and args.encoder == "none" else None
    env_options: dict[str, Any] = {"observation": args.observation}
    encoder = None
    if args.observation == "camera":
        env_options["frames"] = FRAMES
        if learned_encoder is None:
            encoder, card = frozen_encoder(args, card)
            env_options["frames"] = encoder.in_channels // 3
    worlds = envs.make_vec(args.env, num_worlds=args.num_worlds, device=args.device, seed=args.seed, **env_options)
    shapes = {name: list(space.shape) for name, space in worlds.single_observation_space.items()}
    if encoder is not None:
        if shapes["camera"] != [encoder.in_channels, encoder.height, encoder.width]:
            size = shapes["camera"]
            raise UserError(f"the encoder in {args.encoder} is for images of another size than {size}, this camera's")
        worlds = FeatureWorlds(worlds, encoder.to(worlds.device))
    if args.crash_penalty:
        worlds = CrashPenalty(worlds, args.crash_penalty)
    header = {
        "algorithm": "PPO",
        "scenario": args.env,
        "family": worlds.scenario.family,
        "env_options": env_options,
        "actions": policies.describe_actions(worlds.single_action_space),
        "observation": shapes,
        "hidden": list(args.hidden),
        "learned_encoder": learned_encoder,
        "encoder": None if encoder is None else card,
    }
    model = PPO(
        ActorCritic,
        SB3VecEnv(worlds),
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
        policy_kwargs=policy_kwargs(list(args.hidden), learned_encoder),
        seed=args.seed,
        device=worlds.device,
    )
    return model, header


def versions() -> dict[str, str]:
    """What a run was made with, for readers of its config.json."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stable-baselines3": stable_baselines3.__version__,
    }


@contextlib.contextmanager
def stopping(checkpoints: Checkpoints) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask for a checkpoint and an end; a second one acts at once."""

    def stop(number: int, frame: object) -> None:
        checkpoints.stop_requested = True
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(args: Args) -> Path:
    """Train, and return the run directory.

    Raises:
        UserError: bad settings, a directory in the way, nothing to resume, or the training diverged.
        Interrupted: SIGTERM or Ctrl-C came; the run has been saved, and the message says how to go on.
    """
    resuming = args.resume is not None
    args, out, config = begin(args)
    saved = out / checkpoint.NAME
    if resuming and saved.exists():
        model, header = build(args, config["policy"]["encoder"])
        checkpoint.restore(saved, model)
    else:  # a run that was killed before its first checkpoint begins again
        model, header = build(args)
    done = model.num_timesteps
    if done >= args.total_steps:
        print(f"{out} is finished: {done:,} steps")
        return out
    if not resuming:
        out.mkdir(parents=True)
        settings = {key: value for key, value in dataclasses.asdict(args).items() if key not in ("out", "resume")}
        config = {"args": settings, "policy": header, "versions": versions()}
        files.write(out / CONFIG, json.dumps(config, indent=2) + "\n")

    def save() -> None:
        checkpoint.save(saved, model)
        encoder = getattr(model.env.worlds, "encoder", None)
        policies.save(out / policies.NAME, model.policy, encoder, header | {"steps": model.num_timesteps})

    checkpoints = Checkpoints(save, args.checkpoint_every)
    resumed_at = done if resuming else None
    with Progress(args.total_steps, done) as progress, stopping(checkpoints):
        outputs = [MetricsFile(out, resumed_at), TensorBoard(out, resumed_at), progress]
        model.set_logger(Logger(None, outputs))
        try:
            model.learn(args.total_steps - done, checkpoints, reset_num_timesteps=done == 0)
        except Diverged as error:
            raise UserError(f"{error}; the last good checkpoint is {saved}") from None
        except Interrupted:
            command = f"python -m train.ppo --resume {out}"
            raise Interrupted(f"stopped and saved at {model.num_timesteps:,} steps; go on with: {command}") from None
        finally:
            model.logger.close()
            model.env.close()
    return out


def main() -> None:
    args = tyro.cli(Args)
    try:
        out = train(args)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from None
    scenario = json.loads((out / CONFIG).read_text())["args"]["env"]
    print(f"policy       {out / policies.NAME}")
    print(f"watch it     python -m viewer --env {scenario} --policy {out}")
    print(f"evaluate it  python -m evaluation --env {scenario} --policy {out} --out {out / 'evaluation'}")


if __name__ == "__main__":
    exit_on_user_error(main)
