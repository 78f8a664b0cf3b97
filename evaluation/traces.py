"""The seconds before a moment of a recorded episode as curves: time to collision, and what the policy did.

Actions are a row each, filled while they are carried out, or, where they are continuous, a curve for throttle and one
for steering. Of a car that drives itself there are no actions, and its acceleration is shown.
"""

import numpy as np
import pygame

from envs.render import FAINT_TEXT, PLATE, TEXT, write
from evaluation.metrics.time_to_collision import CRITICAL
from evaluation.replay import Replay

SECONDS = 5.0  # of the past that is shown
MOST_TTC = 6.0  # top of the axis [s]
MOST_ACCELERATION = 8.0  # ends of the axis [m/s2]
GRID = (52, 58, 68)
FIRST, SECOND, ALARM = (90, 169, 245), (240, 149, 90), (255, 92, 80)
LETTERS = 16  # [pixel]


class _Plot:
    """Axes from SECONDS ago to now in a box of a surface."""

    def __init__(self, surface: pygame.Surface, box: pygame.Rect, low: float, high: float):
        self.surface, self.box, self.low, self.high = surface, box, low, high
        pygame.draw.line(surface, GRID, box.bottomleft, box.bottomright)
        pygame.draw.line(surface, GRID, box.topright, box.bottomright)

    def column(self, ago: float) -> float:
        """Of a time [s] before now."""
        return float(self.box.right - ago / SECONDS * self.box.width)

    def row(self, value: float) -> float:
        share = (np.clip(value, self.low, self.high) - self.low) / (self.high - self.low)
        return float(self.box.bottom - share * self.box.height)

    def level(self, value: float, label: str, colour: tuple = GRID) -> None:
        """A line across, with its label on the left."""
        row = self.row(value)
        pygame.draw.line(self.surface, colour, (self.box.left, row), (self.box.right, row))
        write(self.surface, label, (self.box.left - 8, row - 9), LETTERS - 2, FAINT_TEXT, align="right")

    def curve(self, ago: np.ndarray, values: np.ndarray, colour: tuple) -> None:
        """A curve, with gaps where a value is not finite."""
        points = [(self.column(a), self.row(v)) if np.isfinite(v) else None for a, v in zip(ago, values, strict=True)]
        for start, end in zip(points, points[1:], strict=False):
            if start and end:
                pygame.draw.line(self.surface, colour, start, end, 3)


def draw_traces(replay: Replay, frame: int, width: int, height: int) -> np.ndarray:
    """The curves up to a frame.

    Args:
        replay: of the episode.
        frame: the present, 0 ... len(replay) - 1.
        width, height: of the picture [pixel].

    Returns:
        uint8 [height, width, 3].
    """
    surface = pygame.Surface((width, height), 0, 32)
    surface.fill(PLATE)
    half = width // 2
    _draw_ttc(surface, pygame.Rect(48, 38, half - 72, height - 56), replay, frame)
    right = pygame.Rect(half + 110, 38, width - half - 134, height - 56)
    if replay.about.get("policy") == "idm":
        _draw_acceleration(surface, right, replay, frame)
    elif replay.action_names:
        _draw_rows(surface, right, replay, frame)
    else:
        _draw_controls(surface, right, replay, frame)
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


def _past(replay: Replay, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames that are shown, and how long ago they were [s]."""
    frames = np.arange(max(0, frame - round(SECONDS / replay.dt)), frame + 1)
    return frames, (frame - frames) * replay.dt


def _head(surface: pygame.Surface, box: pygame.Rect, title: str, value: str, colour: tuple = TEXT) -> None:
    write(surface, f"{title}, last {SECONDS:.0f} s", (box.left, 10), LETTERS, FAINT_TEXT)
    write(surface, value, (box.right, 10), LETTERS, colour, align="right")


def _draw_ttc(surface: pygame.Surface, box: pygame.Rect, replay: Replay, frame: int) -> None:
    frames, ago = _past(replay, frame)
    now = replay.ttc[frame]
    if replay.crashed[frame, 0]:
        value, colour = "crashed", ALARM
    else:
        value = f"{now:.1f} s" if np.isfinite(now) else "closing in on nobody"
        colour = ALARM if now < CRITICAL else TEXT
    _head(surface, box, "Time to collision", value, colour)
    plot = _Plot(surface, box, 0.0, MOST_TTC)
    for level, label in ((2.0, "2"), (4.0, "4"), (MOST_TTC, f"{MOST_TTC:.0f}+")):
        plot.level(level, label)
    plot.level(CRITICAL, f"{CRITICAL:g}", ALARM)
    plot.curve(ago, replay.ttc[frames], FIRST)


def _draw_acceleration(surface: pygame.Surface, box: pygame.Rect, replay: Replay, frame: int) -> None:
    frames, ago = _past(replay, frame)
    _head(surface, box, "Acceleration", f"{replay.acceleration[frame, 0]:+.1f} m/s²")
    plot = _Plot(surface, box, -MOST_ACCELERATION, MOST_ACCELERATION)
    for level in (-5.0, 0.0, 5.0):
        plot.level(level, f"{level:+g}" if level else "0")
    plot.curve(ago, replay.acceleration[frames, 0], FIRST)


def _actions(replay: Replay, frames: np.ndarray) -> np.ndarray:
    """The ego's actions in force at frames. Shape: (F,), or (F, K) where they are continuous."""
    steps = np.minimum(frames // replay.frames_per_step, len(replay.actions) - 1)
    taken = replay.actions[steps]
    agents = 2 if replay.action_names else 3
    return taken[:, 0] if taken.ndim == agents else taken


def _draw_rows(surface: pygame.Surface, box: pygame.Rect, replay: Replay, frame: int) -> None:
    frames, ago = _past(replay, frame)
    taken = _actions(replay, frames)
    names = [name.replace("_", " ").lower() for name in replay.action_names]
    _head(surface, box, "Action", names[taken[-1]])
    plot = _Plot(surface, box, 0.0, 1.0)
    tall = box.height / len(names)
    for index, name in enumerate(names):
        row = pygame.Rect(box.left, round(box.top + index * tall) + 2, box.width, max(2, round(tall) - 4))
        pygame.draw.rect(surface, (30, 35, 42), row)
        colour = TEXT if index == taken[-1] else FAINT_TEXT
        write(surface, name, (box.left - 8, row.centery - 9), LETTERS - 2, colour, align="right")
        for start, end in zip(ago[taken == index], ago[taken == index] - replay.dt, strict=True):
            left, right = round(plot.column(start)), round(plot.column(max(end, 0.0)))
            pygame.draw.rect(surface, FIRST, (left, row.top, max(1, right - left), row.height))


def _draw_controls(surface: pygame.Surface, box: pygame.Rect, replay: Replay, frame: int) -> None:
    frames, ago = _past(replay, frame)
    taken = np.clip(_actions(replay, frames).reshape(len(frames), -1), -1.0, 1.0)
    throttle, steering = (taken[:, 0], taken[:, 1]) if taken.shape[1] > 1 else (None, taken[:, 0])
    value = "" if throttle is None else f"throttle {throttle[-1]:+.2f}   "
    _head(surface, box, "Action", f"{value}steering {steering[-1]:+.2f}")
    plot = _Plot(surface, box, -1.0, 1.0)
    for level in (-1.0, 0.0, 1.0):
        plot.level(level, f"{level:+g}" if level else "0")
    if throttle is not None:
        plot.curve(ago, throttle, FIRST)
        write(surface, "throttle", (box.left - 40, box.top + box.height * 0.22), LETTERS - 2, FIRST, align="right")
    plot.curve(ago, steering, SECOND)
    write(surface, "steering", (box.left - 40, box.top + box.height * 0.62), LETTERS - 2, SECOND, align="right")
