"""What the commands that train drivers share: settings, worlds, the run directory, resuming and stopping.

A run directory holds config.json, policy.safetensors (all that is needed to drive), checkpoint.safetensors (all that is
needed to go on exactly), metrics.jsonl and TensorBoard's event files.
"""

import contextlib
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stable_baselines3
import torch
import tyro
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import nn

import envs
from agents import checkpoint, policies, ranks
from agents.checkpoint import Checkpoints, Interrupted
from agents.divergence import Diverged, check_weights
from agents.drivers import action_space
from agents.entities import require_vehicles
from agents.features import FeatureWorlds
from agents.shaping import CrashPenalty, RedLightPenalty
from envs import files
from envs.errors import UserError, unknown
from envs.sb3 import SB3VecEnv
from envs.sensors import rig
from perception import encoders
from train import settings, watching
from train.progress import MetricsFile, Progress, TensorBoard

CONFIG = "config.json"
LEARNED_ENCODER = "small"  # the architecture of `--encoder none`
FRAMES = 2  # camera frames that it sees
USUAL_RIG = "surround"


@dataclass
class RunArgs:
    """Settings that every command has; a command may have other defaults."""

    env: str = "highway"
    """scenario"""
    observation: str = "camera"
    """what the driver sees: "camera" (images and its own speed), "state" (what the scenario measures) or, privileged,
    "bev" (everything from above, and its own speed)"""
    encoder: str = "zoo/highway-small"
    """folder of a frozen encoder or of a policy that has one, or "none": one learns with the policy, from pixels, as it
    always does with "bev"; unused without a camera"""
    rig: str = "surround"
    """cameras of an encoder that learns: "surround", "junction" or "front"; a frozen one brings its own"""
    policy: str = "auto"
    """"auto" (what suits the observation: an encoder for pictures, hidden layers for vectors), "entities" (a
    transformer over the vehicles that "state" lists) or, with PPO, "lstm" (a memory of the episode; the first of the
    hidden layers are its units)"""
    total_steps: int = 1_400_000
    """policy steps, over all worlds"""
    num_worlds: int = 256
    """worlds at once"""
    seed: int = 0
    """of the worlds, the weights and the exploration"""
    out: Path | None = None
    """run directory, new; by default in runs/, named after the settings"""
    resume: Path | None = None
    """run directory to go on with, with its own settings"""
    device: str = "auto"
    """"auto", "cpu" or "cuda" """
    gamma: float = 0.97
    """discount of one policy step"""
    crash_penalty: float = 60.0
    """taken off the reward of a step in which the ego crashes, while it learns; reported returns are the scenario's"""
    red_light_penalty: float = 0.0
    """the same for a step in which the ego runs a red light, beside what the scenario takes off for it"""
    hidden: tuple[int, ...] = (256, 256)
    """units of the hidden layers"""
    checkpoint_every: int = 20
    """rollouts between two checkpoints"""
    log_every: int = 1
    """rollouts between two rows of the log"""
    wandb: bool = False
    """log to Weights & Biases too"""
    video_every: int = 0
    """rollouts between two films of a held-out episode, in videos/; 0 makes none"""


@dataclass(frozen=True)
class Command:
    """One training command.

    Attributes:
        algorithm: its name in file headers, in capitals; the command is train.NAME in small letters.
        args: the class of its settings, a subclass of `RunArgs`.
        check: raises UserError for the first impossible setting.
        build: settings and the header of a run to go on with (see `make_worlds`) -> the model over its worlds and the
            header of its policy file.
        start: brings the untrained model of a new run to where it begins, if that is not at random weights.
        network: the part of a model's policy that drives.
        get_state, set_state: what `agents.checkpoint.save` does not know of a model.
        parallel: whether it learns in several processes, see `agents.ranks`.
    """

    algorithm: str
    args: type[RunArgs]
    check: Callable[[Any], None]
    build: Callable[[Any, dict[str, Any] | None], tuple[BaseAlgorithm, dict[str, Any]]]
    network: Callable[[Any], nn.Module]
    start: Callable[[Any, Any], None] = lambda model, args: None
    get_state: Callable[[Any], dict[str, Any]] = lambda model: {}
    set_state: Callable[[Any, dict[str, Any]], None] = lambda model, state: None
    parallel: bool = False

    @property
    def module(self) -> str:
        """What comes after `python -m`."""
        return f"train.{self.algorithm.lower()}"


def option(name: str) -> str:
    """A setting as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def check_common(args: RunArgs, kinds: Sequence[str] = ("auto", "entities")) -> None:
    """Raise UserError for the first impossible setting that every command has; `kinds` are its kinds of policy."""
    scenario = envs.scenarios.get(args.env)
    if scenario.agents > 1:
        raise UserError(
            f"'{scenario.name}' has {scenario.agents} agents a world, and only scenarios with one can be learnt"
        )
    if args.observation not in ("camera", "bev", "state"):
        raise unknown("observation", args.observation, ("camera", "bev", "state"))
    if args.policy not in kinds:
        raise unknown("kind of policy", args.policy, kinds)
    if args.policy == "entities" and args.observation != "state":
        raise UserError(
            f"--policy entities reads lists of vehicles: it needs --observation state, not {args.observation}"
        )
    rig.get(args.rig)
    check_counts(args, ("total_steps", "num_worlds", "checkpoint_every", "log_every"))
    check_shares(args, ("gamma",))
    if args.video_every < 0:
        raise UserError(f"--video-every must not be negative, and is {args.video_every}")
    if args.wandb:
        watching.load_wandb()
    for name in ("crash_penalty", "red_light_penalty"):
        if getattr(args, name) < 0:
            raise UserError(f"{option(name)} must not be negative, and is {getattr(args, name)}")


def check_counts(args: RunArgs, names: Iterable[str]) -> None:
    """Raise UserError for the first setting that is not at least 1."""
    for name in names:
        if getattr(args, name) < 1:
            raise UserError(f"{option(name)} must be at least 1, not {getattr(args, name)}")


def check_positive(args: RunArgs, names: Iterable[str]) -> None:
    """Raise UserError for the first setting that is not above 0."""
    for name in names:
        if not getattr(args, name) > 0:
            raise UserError(f"{option(name)} must be positive, not {getattr(args, name)}")


def check_shares(args: RunArgs, names: Iterable[str]) -> None:
    """Raise UserError for the first setting outside 0..1."""
    for name in names:
        if not 0 <= getattr(args, name) <= 1:
            raise UserError(f"{option(name)} must lie between 0 and 1, not {getattr(args, name)}")


def check_minibatches(args: Any) -> None:
    """Raise UserError if a rollout cannot be cut into equal minibatches of several steps."""
    steps = args.num_worlds * args.rollout_steps
    if steps % args.minibatches or steps < 2 * args.minibatches:
        raise UserError(f"a rollout of {steps} steps cannot be cut into {args.minibatches} equal --minibatches")


def check_meta_actions(args: RunArgs, algorithm: str) -> None:
    """Raise UserError for a scenario whose actions cannot be listed."""
    scenario = envs.scenarios.get(args.env)
    if not isinstance(action_space(scenario), spaces.Discrete):
        raise UserError(
            f"'{scenario.name}' is driven by continuous actions, and {algorithm} chooses among meta-actions; "
            f"train.ppo learns it"
        )


def begin(command: Command, args: RunArgs) -> tuple[Any, Path, dict[str, Any]]:
    """The settings and the directory of a new run or of the one to go on with, and the latter's configuration.

    Raises:
        UserError: an impossible setting; a directory that exists and is not to be resumed, or the reverse.
    """
    if args.resume is None:
        command.check(args)
        # Runs of PPO, which was there first, are named without it.
        parts = [args.env, args.observation, *([] if args.policy == "auto" else [args.policy])]
        parts += [] if command.algorithm == "PPO" else [command.algorithm.lower()]
        out = args.out or Path("runs") / "-".join([*parts, str(args.seed)])
        # An empty directory may be a run that was killed as it began.
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise UserError(f"{out} exists: choose another --out, or go on with it by --resume {out}")
        return args, out, {}
    try:
        config = json.loads((args.resume / CONFIG).read_text())
        trained_by = config["policy"]["algorithm"]
        saved = command.args(**config["args"]) if trained_by == command.algorithm else None
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no run to resume in {args.resume}: {CONFIG} is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{args.resume / CONFIG} is not the configuration of a run ({error})") from None
    if saved is None:
        raise UserError(f"{args.resume} is a run of {trained_by}: go on with it by train.{trained_by.lower()}")
    saved.hidden = tuple(saved.hidden)
    default = command.args()
    for name in {field.name for field in dataclasses.fields(command.args)} - {"resume", "device"}:
        if getattr(args, name) not in (getattr(default, name), getattr(saved, name)):
            raise UserError(f"{option(name)} cannot change when a run is resumed; leave it out")
    saved.device = saved.device if args.device == "auto" else args.device
    return saved, args.resume, config


def share(command: Command, args: RunArgs) -> Any:
    """The settings of this rank, which has its part of the worlds and a GPU of its own.

    Raises:
        UserError: there are no equal parts, or too few GPUs.
    """
    if ranks.count() == 1:
        return args
    if args.num_worlds % ranks.count():
        raise UserError(f"--num-worlds {args.num_worlds} cannot be shared equally by {ranks.count()} processes")
    own = {"num_worlds": args.num_worlds // ranks.count(), "device": ranks.device(args.device)}
    args = dataclasses.replace(args, **own)
    try:
        command.check(args)
    except UserError as error:
        raise UserError(f"{error}, in each of {ranks.count()} processes") from None
    return args


def found(folder: str) -> Path:
    """A folder by its path; "zoo/NAME" is found from anywhere."""
    path = Path(folder)
    return policies.ZOO / folder.removeprefix("zoo/") if folder.startswith("zoo/") and not path.exists() else path


@dataclass(frozen=True)
class Frozen:
    """A frozen encoder.

    Attributes:
        encoder: with its weights, or without those of a run to go on with, whose checkpoint holds them.
        card: what `policies.save` records of it.
        rig: name of the cameras that it looks through.
    """

    encoder: nn.Module
    card: dict[str, Any]
    rig: str


def frozen_encoder(args: RunArgs, known: dict[str, Any] | None) -> Frozen:
    """The frozen encoder of the settings. See `make_worlds`."""
    if known is not None:
        encoder = encoders.rebuild(known["encoder"]).eval().requires_grad_(False)
        return Frozen(encoder, known["encoder"], known["env_options"].get("rig", USUAL_RIG))
    folder = found(args.encoder)
    if (folder / policies.NAME).exists():
        policy = policies.read(folder / policies.NAME, args.encoder)
        encoder, card = policy.camera_encoder()
        return Frozen(encoder, card, policy.env_options.get("rig", USUAL_RIG))
    card = encoders.read_card(folder)
    name = (card.get("rig") or {}).get("name", USUAL_RIG)
    return Frozen(encoders.load(folder, rig=rig.get(name)), encoders.architecture(card), name)


def make_worlds(
    args: RunArgs, known: dict[str, Any] | None, make: Callable[..., Any] = envs.make_vec
) -> tuple[SB3VecEnv, dict[str, Any]]:
    """The worlds to learn in, and the header of the policy file but for what the algorithm adds.

    Args:
        args: the settings, see `share`.
        known: header of the policy of a run to go on with, whose checkpoint holds the weights of its frozen encoder, if
            any; None to load them.
        make: what makes them, with the arguments of `envs.make_vec`.
    """
    learns = args.observation == "bev" or (args.observation == "camera" and args.encoder == "none")
    learned_encoder = LEARNED_ENCODER if learns else None
    env_options: dict[str, Any] = {"observation": args.observation}
    encoder = card = None
    if args.observation == "camera":
        env_options["frames"], mounted = FRAMES, args.rig
        if learned_encoder is None:
            frozen = frozen_encoder(args, known)
            encoder, card, mounted = frozen.encoder, frozen.card, frozen.rig
            env_options["frames"] = encoder.in_channels // 3
        if mounted != USUAL_RIG:
            env_options["rig"] = mounted
    worlds = make(args.env, num_worlds=args.num_worlds, device=args.device, seed=args.seed, **env_options)
    if ranks.count() > 1:
        worlds.reset(args.seed, first_world=ranks.rank() * args.num_worlds)
    shapes = {name: list(space.shape) for name, space in worlds.single_observation_space.items()}
    if args.policy == "entities":
        require_vehicles(worlds.sim.sensors, args.env)
    if encoder is not None:
        if shapes["camera"] != [encoder.in_channels, encoder.height, encoder.width]:
            size = shapes["camera"]
            raise UserError(f"the encoder in {args.encoder} is for images of another size than {size}, this camera's")
        worlds = FeatureWorlds(worlds, encoder.to(worlds.device))
    if args.crash_penalty:
        worlds = CrashPenalty(worlds, args.crash_penalty)
    if args.red_light_penalty:
        worlds = RedLightPenalty(worlds, args.red_light_penalty)
    header = {
        "scenario": args.env,
        "family": worlds.scenario.family,
        "env_options": env_options,
        "actions": policies.describe_actions(worlds.single_action_space),
        "observation": shapes,
        "hidden": list(args.hidden),
        "learned_encoder": learned_encoder,
        "architecture": args.policy,
        "encoder": None if encoder is None else card,
    }
    return SB3VecEnv(worlds), header


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


def train(command: Command, args: RunArgs) -> Path:
    """Train, and return the run directory.

    Args:
        command: which.
        args: its settings.

    Raises:
        UserError: bad settings, a directory in the way, nothing to resume, or the training diverged.
        Interrupted: SIGTERM or Ctrl-C came; the run has been saved, and the message says how to go on.
        Lost: another rank has died; the message says how to go on.
    """
    resuming = args.resume is not None
    args, out, config = begin(command, args)
    saved, again = out / checkpoint.NAME, f"go on with: {ranks.command(command.module)} --resume {out}"
    mine = share(command, args)
    if resuming and saved.exists():
        model, header = command.build(mine, config["policy"])
        command.set_state(model, checkpoint.restore(saved, model))
    else:  # a run that was killed before its first checkpoint begins again
        model, header = command.build(mine, None)
        command.start(model, mine)
    done = model.num_timesteps
    if done >= args.total_steps:
        print(f"{out} is finished: {done:,} steps")
        return out
    ranks.barrier()  # by now all have seen that the directory is new
    if not resuming and ranks.first():
        out.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in dataclasses.asdict(args).items() if key not in ("out", "resume")}
        config = {"args": kept, "policy": header, "versions": versions()}
        files.write(out / CONFIG, json.dumps(config, indent=2) + "\n")

    good = done  # steps of the last checkpoint

    def policy() -> tuple[nn.Module, nn.Module | None, dict[str, Any]]:
        encoder = getattr(model.env.worlds, "encoder", None)
        return command.network(model), encoder, header | {"steps": model.num_timesteps}

    def save() -> None:
        nonlocal good
        state = command.get_state(model)
        check_weights(command.network(model), model.num_timesteps)
        if ranks.first():
            policies.save(out / policies.NAME, *policy())
        checkpoint.save(saved, model, state)
        good = model.num_timesteps

    checkpoints = Checkpoints(save, args.checkpoint_every)
    callbacks: list[BaseCallback] = [checkpoints]
    if args.video_every and ranks.first():
        rollout = args.num_worlds * args.rollout_steps
        films = watching.Films(
            out, args.video_every, rollout, lambda path: watching.film(path, *policy(), model.device)
        )
        callbacks.append(films)
    resumed_at = done if resuming else None
    with Progress(args.total_steps, done) as bar, stopping(checkpoints):
        outputs = [MetricsFile(out, resumed_at), TensorBoard(out, resumed_at), bar] if ranks.first() else []
        if args.wandb and ranks.first():
            outputs.append(watching.WeightsAndBiases(out, config))
        model.set_logger(Logger(None, outputs))
        try:
            model.learn(args.total_steps - done, callbacks, args.log_every, reset_num_timesteps=done == 0)
        except Diverged as error:
            raise UserError(f"{error}; the last good checkpoint is {saved}, of {good:,} steps") from None
        except Interrupted:
            raise Interrupted(f"stopped and saved at {model.num_timesteps:,} steps; {again}") from None
        except ranks.Lost as lost:
            raise ranks.Lost(f"{lost}; {again}") from None
        finally:
            model.logger.close()
            model.env.close()
    return out


def parse(command: Command, line: Sequence[str] | None = None) -> Any:
    """Settings from a command line, sys.argv by default: what is not written there is what suits the scenario (see
    `train.settings`) or else the command's default."""
    args = tyro.cli(command.args, args=line)
    if args.resume is not None:  # with the settings that it was begun with
        return args
    return tyro.cli(command.args, args=line, default=settings.suited(command.args, command.algorithm, args.env))


def run(command: Command, trained: Callable[[Any], Path]) -> None:
    """A command's main function: read the settings, train, and say what to do with the result."""
    with ranks.together():
        if ranks.count() > 1 and not command.parallel:
            raise UserError(f"{command.module} trains in one process: start it without torchrun, or train.ppo with it")
        with ranks.heard_once():
            args = parse(command)
        try:
            out = trained(args)
        except Interrupted as stopped:
            with ranks.heard_once():
                print(stopped, file=sys.stderr)
            raise SystemExit(128 + signal.SIGTERM) from None
        scenario = json.loads((out / CONFIG).read_text())["args"]["env"]
        print(f"policy       {out / policies.NAME}")
        print(f"watch it     python -m viewer --env {scenario} --policy {out}")
        print(f"evaluate it  python -m evaluation --env {scenario} --policy {out} --out {out / 'evaluation'}")
