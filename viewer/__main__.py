"""Watch a policy drive, drive yourself, or see a recorded episode: `python -m viewer --env highway --policy idm`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pygame
import tyro
from rich.progress import track

from agents import policies
from agents.drivers import drives_itself
from envs import scenarios
from envs.errors import UserError, exit_on_user_error
from envs.scenarios import stage
from evaluation import replay, suites
from evaluation.backends import driver, make_worlds
from evaluation.recorder import HELD_OUT_SEED
from viewer import familiarity, recording
from viewer.session import HOLD, Live, Recording, Session
from viewer.stage import SIZE, Stage
from viewer.window import Window


@dataclass(frozen=True)
class Args:
    """Watch a policy drive, drive yourself, or see a recorded episode again. H in the window shows the keys."""

    env: str = "highway"
    """Scenario."""
    case: str | None = None
    """A case to be driven instead, as cut-in/1000000-0042; see docs/evaluation.md."""
    policy: str | None = None
    """Who drives: a run directory, zoo/NAME, idm, random or human; by default idm, or human where idm cannot."""
    seed: int = HELD_OUT_SEED
    """Seed of the worlds. Training uses none from 1,000,000 on."""
    backend: Literal["lanewise", "highway-env"] = "lanewise"
    """What simulates the world: ours, or highway-env itself, filmed by our camera."""
    replay: Path | None = None
    """A recorded episode to be shown instead, as evaluation keeps them in replays/."""
    saliency: Literal["perturbation", "integrated-gradients", "hirescam", "gradcam"] | None = None
    """What in the picture speaks for and against the policy's decisions, laid on it; see docs/interpretability.md."""
    familiarity: Path | None = None
    """A file of python -m train.familiarity: show how unfamiliar what the policy sees is; see docs/ood.md. Key U does
    so by the file in the policy's folder."""
    record: Path | None = None
    """An mp4 file to be written instead of opening a window."""
    seconds: float = 20.0
    """Length of what --record writes; a recorded episode ends earlier if it is shorter."""


def main() -> None:
    args = tyro.cli(Args)
    if args.seed < 0:
        raise UserError(f"--seed cannot be negative, and {args.seed} is")
    if args.record is not None:
        if args.record.suffix != ".mp4" or not args.record.parent.is_dir():
            raise UserError(f"--record must be an mp4 file in a directory that exists, not {args.record}")
        if not args.seconds > 0:
            raise UserError(f"--seconds must be more than 0, not {args.seconds:g}")
    session = open_session(args)
    try:
        familiarity.watch(session, args.policy, args.familiarity)
    except UserError as error:
        session.unwatched = str(error)
    stage = Stage(session)
    stage.show_saliency(args.saliency)
    stage.show_familiarity(args.familiarity is not None)
    if args.record is None:
        Window(stage).run()
        return
    try:
        recording.film(pictures(stage, args.seconds), args.record)
    finally:
        stage.close()
    print(args.record)


def open_session(args: Args) -> Session:
    """What the arguments ask for.

    Raises:
        UserError: an unknown name, a negative number, or a file that is damaged or not there.
    """
    if args.replay is not None:
        return Recording(replay.load(args.replay))
    if args.case is not None:
        return open_case(args.case, args.policy or "idm", args.record is not None)
    scenario = scenarios.get(args.env)  # an unknown name ends it here
    who = args.policy or ("idm" if drives_itself(scenario) else "human")
    if who == "human":
        policy, options = None, {"observation": "state"}
    else:
        policy = policies.load(who, scenario=args.env, device="cpu")
        options = policy.env_options
    worlds = make_worlds(args.backend, args.env, 1, "cpu", options)
    return Live(worlds, policy, args.seed, patient=args.record is not None)


def open_case(name: str, who: str, patient: bool = False) -> Session:
    """A case with a policy or a person at the wheel, as an evaluation drives it.

    Raises:
        UserError: an unknown name.
    """
    scene = suites.case(name)
    _, seed, number = suites.parse(name)
    if who == "human":
        policy, scenario, options = None, stage.of([scene]), {"observation": "state"}
    else:
        policy, scenario = driver(who, [scene], "cpu")
        options = policy.env_options
    titled = replace(scenario, name=name.replace("/", "-"))
    return Live(make_worlds("lanewise", titled, 1, "cpu", options), policy, seed, number, patient)


def pictures(stage: Stage, seconds: float) -> Iterator[pygame.Surface]:
    """The session from its start, as a film."""
    session = stage.session
    if session.recorded:
        seconds = min(seconds, session.last * session.dt + HOLD)
    for _ in track(range(max(1, round(seconds * recording.FPS))), description="recording"):
        yield stage.draw(SIZE)
        session.advance(1 / recording.FPS)


if __name__ == "__main__":
    exit_on_user_error(main)
