"""More to see of a run: Weights & Biases, and films of how its policy drives by now.

Neither disturbs what is learnt: a run that is watched ends in the same bits as one that is not.
"""

import contextlib
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from torch import nn

from agents import checkpoint, policies
from envs import files
from envs.errors import UserError
from evaluation import backends, recorder, replay
from evaluation.recorder import HELD_OUT_SEED
from evaluation.video import write_video
from train.progress import renamed

PROJECT = "lanewise"  # where runs stand in Weights & Biases
VIDEOS = "videos"  # folder in a run directory


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever is drawn within it, the random generators go on as if it had not been."""
    states = checkpoint.random_states()
    try:
        yield
    finally:
        checkpoint.set_random_states(states)


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def load_wandb() -> Any:
    """The module, which is an extra.

    Raises:
        UserError: it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise UserError("--wandb needs Weights & Biases: pip install 'lanewise[wandb]'") from None
    return wandb


class WeightsAndBiases(KVWriter):
    """A run in Weights & Biases, under CleanRL's names. WANDB_MODE=offline keeps it in the run directory, without a
    network, until `wandb sync`; its other variables hold too.

    A run that goes on is the same run there. Rows that were logged after its checkpoint come again; Weights & Biases
    takes no step twice, and they are equal.

    Args:
        folder: the run directory.
        config: what is shown as its settings.

    Raises:
        UserError: it is not installed, or does not let us in.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        wandb = load_wandb()
        note = folder / "wandb.json"
        if not note.exists():
            files.write(note, json.dumps({"id": uuid.uuid4().hex}) + "\n")
        about = {"project": os.environ.get("WANDB_PROJECT", PROJECT), "name": folder.name, "config": config}
        try:
            with undisturbed():
                number = json.loads(note.read_text())["id"]
                self.run = wandb.init(id=number, resume="allow", dir=str(folder), **about)
        except wandb.Error as error:
            raise UserError(f"Weights & Biases: {error}".splitlines()[0]) from None

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.run.log(renamed(key_values), step=step)

    def close(self) -> None:
        self.run.finish()


# --- films ------------------------------------------------------------------------------------------------------------


def film(
    path: Path, network: nn.Module, encoder: nn.Module | None, header: dict[str, Any], device: torch.device | str
) -> None:
    """Drive one held-out episode, always the same, and write its end as mp4.

    Args:
        path: of the file.
        network, encoder, header: of the policy, as `agents.policies.save` takes them.
        device: of worlds and policy.

    Raises:
        UserError, OSError: the file could not be written.
    """
    with undisturbed():
        # A copy of its own, as it would be read anywhere else.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / policies.NAME
            policies.save(file, network, encoder, header)
            policy = policies.read(file, f"{header['algorithm']}, {header['steps']:,} steps", device)
        worlds = backends.make_worlds("lanewise", header["scenario"], 1, device, policy.env_options)
        try:
            trajectory = recorder.record(worlds, policy, HELD_OUT_SEED)
            recording = replay.of(trajectory, 0, worlds, policy.name, {"policy": policy.name, "seed": HELD_OUT_SEED})
        finally:
            worlds.close()
        path.parent.mkdir(exist_ok=True)
        write_video(recording, path)


class Films(BaseCallback):
    """Films the policy between two rollouts, every so many, and at the end. What cannot be filmed is said, and the
    training goes on.

    Args:
        folder: the run directory; films are videos/STEPS.mp4 in it.
        every: rollouts between two films.
        rollout: steps of a rollout, over all worlds.
        film: (where to) -> None; see `film`.
    """

    def __init__(self, folder: Path, every: int, rollout: int, film: Callable[[Path], None]):
        super().__init__()
        self.folder, self.every, self.rollout, self.film = folder / VIDEOS, every, rollout, film

    def _on_rollout_start(self) -> None:
        # Counted by steps: a run that goes on films where it would have filmed.
        rollouts = self.model.num_timesteps // self.rollout
        if rollouts and rollouts % self.every == 0:
            self._film()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._film()

    def _film(self) -> None:
        path = self.folder / f"{self.model.num_timesteps:09}.mp4"
        try:
            self.film(path)
        except (UserError, OSError) as error:
            print(f"no film at {self.model.num_timesteps:,} steps: {error}", file=sys.stderr)
