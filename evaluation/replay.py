"""Replay: one recorded episode in a file, to be watched again without simulating it.

A replay is a safetensors file. Its arrays are those of `Replay`; its header holds one entry, `replay`, a JSON object
with the rest: scenario, title, dt, frames_per_step, action names, the road, and `about`, the writer's notes.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.numpy import save as to_safetensors
from torch import Tensor

from envs.errors import UserError
from envs.files import write
from envs.physics.bicycle import MAX_SPEED
from envs.roads.network import Crossing
from envs.scene import Bar, Lane, Scene, of_road
from envs.state import FORMS, LANDMARK
from evaluation.metrics.time_headway import time_headway
from evaluation.metrics.time_to_collision import time_to_collision
from evaluation.recorder import maps_of
from evaluation.trajectory import BODIES, MOVING, Trajectory

FORMAT = 3
FRAMES = (*MOVING, *BODIES, "signal", "ttc", "headway")
STEPS = ("actions", "rewards")
OPTIONAL = ("camera", "route", "shares")
FULL = 127  # a share of 1
DTYPES = {
    "lane": "int32",
    "target_lane": "int32",
    "crashed": "bool",
    "kind": "int8",
    "form": "int8",
    "signal": "int8",
}


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
        kind: what is in a slot, see `envs.state.KINDS`; 0 where nothing is. Shape: (T, V), int8.
        length, width, height: of the boxes [m]. Shape: (T, V), float32.
        form: what it looks like, an index into `envs.state.FORMS`. Shape: (T, V), int8.
        signal: what each signal head shows. Shape: (T, H), int8.
        ttc, headway: time to collision with the ego's leader and time headway [s]. Shape: (T,), float32.
        actions: taken at frames 0, frames_per_step, ...; int64 meta-actions, or float32 throttle and steering.
            Shape: (S,), of several agents (S, A), of continuous actions with K more at the end.
        rewards: Shape: (S,), float32.
        camera: the picture that the policy acted upon, uint8, or None. Shape: (S, H, W, 3).
        route: what the policy was told of its route, float32, or None; see `envs.sensors.route`. Shape: (S, 7).
        shares: what in the pictures of the last K steps spoke for the policy's decisions, 127, and against them, -127,
            int8, or None; see `evaluation.salient`. Shape: (K, H, W).
        scenario: name of the scenario.
        title: what is shown, for a person.
        dt: time between two frames [s].
        frames_per_step: simulation frames in a policy step.
        action_names: by action; empty where they are continuous.
        lanes, roads, crossings, stop_lines, paved: the road, as in `envs.scene.Scene`.
        heads: x, y [m], heading [rad] of each signal head, and 1 where it shows an arrow.
        map: number of the scenario's map that is driven on.
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
    kind: np.ndarray
    length: np.ndarray
    width: np.ndarray
    height: np.ndarray
    form: np.ndarray
    signal: np.ndarray
    ttc: np.ndarray
    headway: np.ndarray
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
    paved: tuple[np.ndarray, ...] = ()
    heads: tuple[tuple[float, ...], ...] = ()
    map: int = 0
    camera: np.ndarray | None = None
    route: np.ndarray | None = None
    shares: np.ndarray | None = None
    about: dict = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.x)

    def step(self, frame: int) -> int:
        """The policy step that frame belongs to: the one whose action is being carried out there."""
        return min(frame // self.frames_per_step, len(self.actions) - 1)

    def shares_at(self, step: int) -> np.ndarray | None:
        """What in the picture of a step spoke for and against its decision, -1 to 1; None where that is not recorded.
        Shape: (H, W), float32."""
        if self.shares is None or step < len(self.actions) - len(self.shares):
            return None
        return self.shares[step - len(self.actions)].astype(np.float32) / FULL

    def observed(self, frames: int) -> dict[str, Tensor]:
        """What a policy with a camera was shown at every step, from the recorded pictures.

        Args:
            frames: that are stacked; before an episode's start they are its first.

        Returns:
            "camera" uint8 (S, frames * 3, H, W), oldest frame first, "speed" float32 (S, 1) and, where it is told
            one, "route"; see `envs.api`.
        """
        steps = np.arange(len(self.actions))
        pictures = self.camera.transpose(0, 3, 1, 2)
        stacked = [pictures[np.maximum(steps - ago, 0)] for ago in reversed(range(frames))]
        speed = self.speed[steps * self.frames_per_step, :1] / np.float32(MAX_SPEED)
        seen = {"camera": torch.from_numpy(np.concatenate(stacked, axis=1)), "speed": torch.from_numpy(speed)}
        return seen if self.route is None else seen | {"route": torch.from_numpy(self.route)}

    def scene(self, frame: int) -> Scene:
        """One frame, 0 ... len(self) - 1, ready to be drawn."""
        names = ("x", "y", "heading", "speed", "acceleration", "lane", "target_lane", "crashed", *BODIES)
        shown = {name: getattr(self, name)[frame] for name in names}
        shown["form"] = np.where(self.kind[frame] == LANDMARK, FORMS.index("ground marking"), shown["form"])
        heads = [(*head[:3], state, head[3]) for head, state in zip(self.heads, self.signal[frame], strict=False)]
        return Scene(
            **shown,
            present=self.kind[frame] != 0,
            lanes=self.lanes,
            roads=self.roads,
            crossings=self.crossings,
            stop_lines=self.stop_lines,
            paved=self.paved,
            signals=np.array(heads, dtype=float).reshape(-1, 5),
            map=self.map,
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
    number = 0 if trajectory.map is None else int(trajectory.map[world])
    maps = maps_of(worlds)
    road = maps[number] if maps else worlds.road
    first_lane = sum(len(network.lanes) for network in maps[:number]) if maps else 0
    heads = tuple((*head.place, head.heading, float(head.arrow)) for head in getattr(road, "signals", ()))

    def row(values: Tensor | None, name: str, end: int) -> np.ndarray:
        if values is None:
            return np.zeros((end, 0), "int8")
        return values[:end, world].cpu().numpy().astype(DTYPES.get(name, "float32"))

    arrays = {name: row(getattr(trajectory, name), name, frames) for name in (*MOVING, *BODIES, "signal")}
    for name in ("lane", "target_lane"):
        arrays[name] -= first_lane
    actions = trajectory.actions[:steps, world].cpu().numpy()
    camera = None if trajectory.camera is None else trajectory.camera[:steps, world].permute(0, 2, 3, 1).cpu().numpy()
    return Replay(
        **arrays,
        ttc=row(time_to_collision(trajectory), "ttc", frames),
        headway=row(time_headway(trajectory), "headway", frames),
        actions=actions.astype("float32" if actions.dtype.kind == "f" else "int64"),
        rewards=row(trajectory.rewards, "rewards", steps),
        scenario=worlds.scenario.name,
        title=title,
        dt=trajectory.dt,
        frames_per_step=trajectory.frames_per_step,
        action_names=tuple(worlds.action_names),
        **of_road(road),
        heads=heads,
        map=number,
        camera=camera,
        route=None if trajectory.route is None else row(trajectory.route, "route", steps),
        about=about,
    )


def save(replay: Replay, path: str | os.PathLike) -> None:
    """Write a replay, atomically.

    Raises:
        OSError: it could not be written; a file that was there is as it was.
    """
    names = (*FRAMES, *STEPS, *(name for name in OPTIONAL if getattr(replay, name) is not None))
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
        "paved": [np.asarray(polygon).tolist() for polygon in replay.paved],
        "heads": replay.heads,
        "map": replay.map,
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
            names = (*FRAMES, *STEPS, *(name for name in OPTIONAL if name in file.keys()))
            arrays = {name: file.get_tensor(name) for name in names}
        if header.pop("format") != FORMAT:
            raise UserError(f"{path} is a replay of another version of lanewise; record the episode again")
        header["action_names"] = tuple(header["action_names"])
        header["lanes"] = tuple((np.array(points, dtype=float), *rest) for points, *rest in header["lanes"])
        header["crossings"] = tuple(_crossing(**values) for values in header["crossings"])
        header["paved"] = tuple(np.array(polygon, dtype=float) for polygon in header["paved"])
        for name in ("roads", "stop_lines", "heads"):
            header[name] = tuple(tuple(values) for values in header[name])
        replay = Replay(**arrays, **header)
        if {len(getattr(replay, name)) for name in FRAMES} != {1 + len(replay.actions) * replay.frames_per_step}:
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
