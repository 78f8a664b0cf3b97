"""Replay: one recorded episode in a file, to be watched again without simulating it.

A replay is a safetensors file. Its arrays are those of `Replay`; its header holds one entry, `replay`, a JSON object
with the rest: scenario, title, dt, frames_per_step, action names, the road's lanes, and `about`, the writer's notes.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save as to_safetensors

from envs.errors import UserError
from envs.files import write
from envs.roads.network import Crossing
from envs.scene import Bar, Lane, Scene, of_road
from evaluation.trajectory import Trajectory

FORMAT = 2
MOVING = ("x", "y", "heading", "speed", "acceleration", "lane", "target_lane", "crashed", "present")
SIZES = ("length", "width", "height")
STEPS = ("actions", "rewards")


@dataclass(frozen=True)
class Replay:
    """One episode. T: frames, V: vehicle slots (slot 0 is the ego), S: policy steps; T = 1 + S * frames_per_step.

    Attributes:
        x, y: centres of the boxes [m]; y grows to the right of +x. Shape: (T, V), float32.
        heading: [rad]. Shape: (T, V), float32.
        speed: [m/s]. Shape: (T, V), float32.
        acceleration: [m/s2]. Shape: (T, V), float32.
        lane, target_lane: indices into `lanes`. Shape: (T, V), int32.
        crashed: True from a vehicle's first collision on. Shape: (T, V), bool.
        present: False for a slot without a vehicle. Shape: (T, V), bool.
        length, width, height: of the boxes [m]. Shape: (V,), float32.
        actions: taken at frames 0, frames_per_step, ... Shape: (S,), int64.
        rewards: Shape: (S,), float32.
        camera: the picture that the policy acted upon, uint8, or None. Shape: (S, H, W, 3).
        scenario: name of the scenario.
        title: what is shown, for a person.
        dt: time between two frames [s].
        frames_per_step: simulation frames in a policy step.
        action_names: by action.
        lanes, roads, crossings, stop_lines: the road, as in `envs.scene.Scene`.
        about: anything JSON holds: policy, episode, seed, metrics.
    """

    x: np.ndarray
    y: np.ndarray
    heading: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    lane: np.ndarray
    target_lane: np.ndarray
    crashed: np.ndarray
    present: np.ndarray
    length: np.ndarray
    width: np.ndarray
    height: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    scenario: str
    title: str
    dt: float
    frames_per_step: int
    action_names: tuple[str, ...]
    lanes: tuple[Lane, ...]
    roads: tuple[tuple[int, int], ...] = ()
    crossings: tuple[Crossing, ...] = ()
    stop_lines: tuple[Bar, ...] = ()
    camera: np.ndarray | None = None
    about: dict = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.x)

    def step(self, frame: int) -> int:
        """The policy step that frame belongs to: the one whose action is being carried out there."""
        return min(frame // self.frames_per_step, len(self.actions) - 1)

    def scene(self, frame: int) -> Scene:
        """One frame, 0 ... len(self) - 1, ready to be drawn."""
        return Scene(
            **{name: getattr(self, name)[frame] for name in MOVING},
            length=self.length,
            width=self.width,
            lanes=self.lanes,
            roads=self.roads,
            crossings=self.crossings,
            stop_lines=self.stop_lines,
            time=frame * self.dt,
            camera=None if self.camera is None else self.camera[self.step(frame)],
            caption=self.title,
        )


def of(trajectory: Trajectory, world: int, worlds, title: str, about: dict) -> Replay:
    """One world of a trajectory as a replay.

    Args:
        trajectory: of N worlds.
        world: which of them.
        worlds: what it was recorded from: gives the scenario, the road and the names of the actions.
        title: what the episode is, for a person.
        about: goes into the file.
    """
    frames, steps = int(trajectory.frames[world]), int(trajectory.steps[world])

    def row(name: str, dtype: str, end: int) -> np.ndarray:
        return getattr(trajectory, name)[:end, world].cpu().numpy().astype(dtype)

    camera = None if trajectory.camera is None else trajectory.camera[:steps, world].permute(0, 2, 3, 1).cpu().numpy()
    dtypes = {"lane": "int32", "target_lane": "int32", "crashed": "bool", "present": "bool"}
    return Replay(
        **{name: row(name, dtypes.get(name, "float32"), frames) for name in MOVING},
        **{name: getattr(trajectory, name)[world].cpu().numpy().astype("float32") for name in SIZES},
        actions=row("actions", "int64", steps),
        rewards=row("rewards", "float32", steps),
        scenario=worlds.scenario.name,
        title=title,
        dt=trajectory.dt,
        frames_per_step=trajectory.frames_per_step,
        action_names=tuple(worlds.action_names),
        **of_road(worlds.road_of(world) if hasattr(worlds, "road_of") else worlds.road),
        camera=camera,
        about=about,
    )


def save(replay: Replay, path: str | os.PathLike) -> None:
    """Write a replay, atomically.

    Raises:
        OSError: it could not be written; a file that was there is as it was.
    """
    names = MOVING + SIZES + STEPS + (() if replay.camera is None else ("camera",))
    arrays = {name: np.ascontiguousarray(getattr(replay, name)) for name in names}
    header = {
        "format": FORMAT,
        "scenario": replay.scenario,
        "title": replay.title,
        "dt": replay.dt,
        "frames_per_step": replay.frames_per_step,
        "action_names": replay.action_names,
        "lanes": [[np.asarray(points).tolist(), *rest] for points, *rest in replay.lanes],
        "roads": replay.roads,
        "crossings": [asdict(crossing) for crossing in replay.crossings],
        "stop_lines": replay.stop_lines,
        "about": replay.about,
    }
    write(path, to_safetensors(arrays, metadata={"replay": json.dumps(header)}))


def load(path: str | os.PathLike) -> Replay:
    """Read a replay.

    Raises:
        UserError: there is no such file, it is damaged, or it is something else.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["replay"])
            names = MOVING + SIZES + STEPS + (("camera",) if "camera" in file.keys() else ())
            arrays = {name: file.get_tensor(name) for name in names}
        if header.pop("format") != FORMAT:
            raise UserError(f"{path} is a replay of another version of lanewise; record the episode again")
        header["action_names"] = tuple(header["action_names"])
        header["lanes"] = tuple((np.array(points, dtype=float), *rest) for points, *rest in header["lanes"])
        header["crossings"] = tuple(_crossing(**values) for values in header["crossings"])
        for name in ("roads", "stop_lines"):
            header[name] = tuple(tuple(values) for values in header[name])
        replay = Replay(**arrays, **header)
        if {len(getattr(replay, name)) for name in MOVING} != {1 + len(replay.actions) * replay.frames_per_step}:
            raise ValueError("arrays of different lengths")
    except FileNotFoundError:
        raise UserError(f"there is no replay {path}") from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a replay, or damaged ({type(error).__name__}: {error})".replace("\n", " ")
        ) from None
    return replay


def _crossing(start: list[float], end: list[float], width: float, zebra: bool) -> Crossing:
    return Crossing(tuple(start), tuple(end), width, zebra)
