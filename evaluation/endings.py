"""How episodes ended: what kind of failure each was, if one, and where the ego was."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from evaluation.trajectory import Trajectory

# Kinds of failure. Of several in one episode it is the first of this list.
KINDS = (
    "collision at fault",
    "other collision",
    "red light run",
    "off the road",
    "goal not reached",
    "no numbers returned",
)
AT_FAULT, OTHER, RED_LIGHT, OFF_ROAD, MISSED, NO_NUMBERS = range(len(KINDS))
NONE = -1


@dataclass(frozen=True)
class Endings:
    """How E episodes ended.

    A collision ends an episode as far as this is concerned, even where the simulation goes on to the end of the policy
    step. An episode fails at its end, but at a red light where it passes the line of the first that it runs. It is off
    the road if it ends with a corner of the ego more than 0.3 m outside everything that may be driven on, and not at
    the end of the map on its lane.

    Attributes:
        kind: of failure, an index into `KINDS`; `NONE` without one. Shape: (E,), int64.
        failure: x, y [m] and heading [rad] of the ego when it failed; NaN without a failure. Shape: (E, 3), float64.
        end: the same at the end of the episode; NaN where nothing was driven. Shape: (E, 3), float64.
        map: number of the scenario's map that was driven on; -1 where nothing was driven. Shape: (E,), int64.
        lane: of that map, the one closest to the ego when it failed, else at the end; -1 where drivers do not keep to
            any, or nothing was driven. Shape: (E,), int64.
    """

    kind: np.ndarray
    failure: np.ndarray
    end: np.ndarray
    map: np.ndarray
    lane: np.ndarray

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The attributes by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def failed(self) -> np.ndarray:
        """True in episodes with a failure. Shape: (E,)."""
        return self.kind != NONE

    def name(self, episode: int) -> str:
        """The kind of an episode's failure in words, "" without one."""
        return KINDS[self.kind[episode]] if self.kind[episode] != NONE else ""


def unknown(count: int) -> Endings:
    """Of episodes in which nothing was driven."""
    nowhere, none = np.full((count, 3), np.nan), np.full(count, -1)
    return Endings(none, nowhere, nowhere, none, none)


def joined(parts: Sequence[Endings]) -> Endings:
    """Those of several blocks of episodes as one."""
    return Endings(**{name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays})


def endings(
    trajectory: Trajectory,
    values: Mapping[str, np.ndarray],
    valid: Mapping[str, np.ndarray],
    lost: Collection[int],
    without_numbers: Collection[int],
) -> Endings:
    """How the episodes of a trajectory ended.

    Args:
        trajectory: of N worlds.
        values, valid: of their metrics. Shape: (N,).
        lost: worlds whose trajectory says nothing.
        without_numbers: worlds in which the policy returned no numbers.
    """
    t, world = trajectory, np.arange(len(trajectory.frames))
    kind = np.select(
        (
            values["collision_at_fault"] > 0,
            values["collision"] > 0,
            valid["red_lights"] & (values["red_lights"] > 0),
            _at(t.outside, t.hit_frame) & ~_past_the_end(t),
            valid["success"] & (values["success"] == 0),
            np.isin(world, list(without_numbers)),
        ),
        range(len(KINDS)),
        NONE,
    )
    frame = t.hit_frame
    if t.red_lights is not None:
        first = (t.red_lights > t.red_lights[0]).int().argmax(0)
        frame = torch.where(torch.from_numpy(kind == RED_LIGHT).to(frame.device), first, frame)

    def pose(frame: Tensor) -> np.ndarray:
        return np.stack([_at(part[..., 0], frame) for part in (t.x, t.y, t.heading)], 1).astype(np.float64)

    map = np.zeros(len(world), np.int64) if t.map is None else t.map.cpu().numpy().astype(np.int64)
    lane = np.full(len(world), -1)
    if t.lanes is not None:
        lane = _at(t.lane[..., 0], frame) - np.array(t.lanes.first)[map]
    found = Endings(kind, np.where((kind != NONE)[:, None], pose(frame), np.nan), pose(t.hit_frame), map, lane)
    for name, nothing in unknown(len(lost)).arrays.items():
        getattr(found, name)[list(lost)] = nothing
    return found


def _past_the_end(t: Trajectory) -> np.ndarray:
    """Whether the ego drove over the end of the lane closest to it: no other is closer, so the map ends there. Shape:
    (N,)."""
    if t.lanes is None:
        return np.zeros(len(t.frames), bool)
    lane, place = _at(t.lane[..., 0], t.hit_frame), [_at(part, t.hit_frame) for part in t.on_lane]
    length, width = t.lanes.length.numpy()[lane], t.lanes.width.numpy()[lane]
    past = place[0] + 0.5 * _at(t.length[..., 0], t.hit_frame) > length
    return past & (np.abs(place[1]) <= 0.5 * width)


def _at(values: Tensor, frame: Tensor) -> np.ndarray:
    """The value of each world in a frame of its own. Shapes: (T, N), (N,)."""
    return values.gather(0, frame[None])[0].cpu().numpy()
