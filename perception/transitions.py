"""What features do from one step to the next, recorded while worlds are driven; of the pictures nothing is kept.

Features are of stacked frames, so two kinds of steps would show at a glance where they come from, whatever is on the
road. The first of an episode, whose frames are one picture over and over, are left out. Frames one policy step apart
are a second apart in some scenarios and a fifth of one in others: worlds are filmed with single frames, which are
stacked here, `apart` steps from each other.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.data import Drive, DrivingData
from perception.encoders import Encoder
from perception.mixture import Mixture

# Stacked frames uint8 (N, 3 * frames, H, W), the oldest first -> features (N, d) and what is at the places of the
# picture (N, p), see `places`.
Look = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Transitions:
    """n steps from features to features.

    before, after: float32 [n, d], the features at both ends. places: float16 [n, p], of the later end. actions: int64
    [n], the meta-action that was taken between them; of a step over several decisions the most frequent one. worlds:
    int64 [n], where it was.
    """

    before: Tensor
    after: Tensor
    places: Tensor
    actions: Tensor
    worlds: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, rows: Tensor) -> "Transitions":
        """Some of them, by index or mask."""
        return Transitions(*(getattr(self, field.name)[rows] for field in fields(self)))


def places(maps: Tensor) -> Tensor:
    """What is found at each place, whatever its contrast: an encoder's maps with the channels of each place normalised
    to mean 0 and variance 1. Shape: (n, C, rows, columns) -> float16 (n, rows * columns * C).
    """
    return F.layer_norm(maps.float().movedim(1, 3), maps.shape[1:2]).flatten(1).half()


def through(encoder: Encoder) -> Look:
    """The look of an encoder."""

    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        maps = encoder.maps(images)
        return encoder.project(maps), places(maps)

    return look


@torch.no_grad()
def record(
    data: DrivingData | Mixture,
    looks: Mapping[str, Look],
    steps: int,
    frames: int,
    apart: Sequence[int] = (1,),
    every: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> dict[int, dict[str, Transitions]]:
    """Drive worlds on and keep what the looks make of them. All looks see the same transitions.

    Args:
        data: worlds filmed with single frames (frames=1).
        looks: by name.
        steps: policy steps to drive.
        frames: that are stacked.
        apart: policy steps between two stacked frames, and from `before` to `after`; several are recorded side by side.
        every: policy steps from one recorded `after` to the next.
        advance: called after each step.

    Returns:
        {steps apart: {name of a look: its transitions, step by step}}.
    """
    past: deque[Drive] = deque(maxlen=frames * max(apart) + 1)
    made: dict[tuple[str, int, int], tuple[Tensor, Tensor]] = {}  # of all worlds, by look, steps apart and time
    rows: dict[int, list[tuple[Tensor, Tensor]]] = {steps_apart: [] for steps_apart in apart}
    ends: dict[tuple[int, str], list[tuple[Tensor, ...]]] = {(a, name): [] for a in apart for name in looks}

    def seen(name: str, steps_apart: int, time: int, back: int) -> tuple[Tensor, Tensor]:
        key = (name, steps_apart, time - back)
        if key not in made:
            stack = [past[-1 - back - k * steps_apart].images[0] for k in reversed(range(frames))]
            made[key] = looks[name](torch.cat(stack, 1))
        return made[key]

    for time in range(steps):
        past.append(data.collect(1))
        for steps_apart in apart if time % every == 0 else ():
            if len(past) <= frames * steps_apart:
                continue
            one = (past[-1].episodes == past[-1 - frames * steps_apart].episodes)[0].nonzero()[:, 0]
            taken = torch.cat([past[-2 - k].actions for k in range(steps_apart)]).mode(0).values
            rows[steps_apart].append((taken[one], one))
            for name in looks:
                before, after = (seen(name, steps_apart, time, back) for back in (steps_apart, 0))
                ends[steps_apart, name].append((before[0][one], after[0][one], after[1][one]))
        made = {key: value for key, value in made.items() if key[2] + max(apart) > time}
        advance()
    found = {}
    for steps_apart in apart:
        taken, worlds = (torch.cat(parts) for parts in zip(*rows[steps_apart], strict=True))
        found[steps_apart] = {
            name: Transitions(
                *(torch.cat(parts) for parts in zip(*ends[steps_apart, name], strict=True)), taken, worlds
            )
            for name in looks
        }
    return found
