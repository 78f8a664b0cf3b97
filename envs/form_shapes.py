"""How what is no vehicle looks from above: people, cyclists, cones, barriers, debris, walls, goals and signals."""

from collections.abc import Callable

import numpy as np
import pygame

from envs.roads.signals import AMBER, RED
from envs.scene import Scene, View
from envs.state import FORMS

SHADOW = (38, 40, 45)
SKIN, HAIR = (224, 180, 148), (62, 46, 36)
TYRE = (28, 28, 30)
ORANGE, WHITE, STRIPE_RED = (240, 104, 24), (238, 238, 234), (204, 40, 34)
RUBBLE = ((108, 88, 66), (138, 132, 124), (86, 72, 58))
CONCRETE, JOINT = (156, 152, 145), (116, 113, 108)
GOAL = (74, 150, 250)
PLATE = (20, 22, 26)
LIT_RED, LIT_AMBER, LIT_GREEN = (255, 58, 46), (255, 180, 40), (40, 235, 120)

STRIPE = 0.4  # m
HEAD_RADIUS = 0.9  # m, of the disc that stands for a signal head
ASIDE = 1.0  # m, by which arrows are drawn farther to the right, off the head beside them
_TURN = np.linspace(0, 2 * np.pi, 13)[:-1]
_DISC = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=-1)
_BOX = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])

Fill = Callable[[np.ndarray, tuple], None]


def draw_thing(canvas: pygame.Surface, view: View, scene: Scene, slot: int, colour: tuple[int, int, int]) -> None:
    """Draw what is in a slot and is no vehicle.

    Args:
        canvas: to draw on.
        view: where the canvas looks.
        scene: holds the thing.
        slot: which.
        colour: of clothes and of a bicycle.
    """
    cosine, sine = np.cos(scene.heading[slot]), np.sin(scene.heading[slot])
    place = np.array([scene.x[slot], scene.y[slot]])
    half = np.array([scene.length[slot], scene.width[slot]]) / 2
    form = FORMS[scene.form[slot]]

    def fill(points: np.ndarray, colour: tuple, lift: float = 0.0) -> None:
        there = points @ np.array([[cosine, sine], [-sine, cosine]]) + place + lift
        pygame.draw.polygon(canvas, colour, view.to_grid(there).tolist())

    if form == "ground marking":
        outline = (half * _BOX) @ np.array([[cosine, sine], [-sine, cosine]]) + place
        pygame.draw.polygon(canvas, GOAL, view.to_grid(outline).tolist(), max(2, round(0.2 * view.zoom)))
        return
    fill((_DISC if form in ("person", "cone") else _BOX) * half, SHADOW, lift=0.12)
    _SHAPES[form](fill, half, colour)


def _person(fill: Fill, half: np.ndarray, colour: tuple) -> None:
    """Shoulders, and the head upon them. Somewhat larger than life, to be seen."""
    fill(_DISC * (half * (0.9, 1.15)), tuple(int(0.75 * c) for c in colour))
    fill(_DISC * (half * (0.7, 1.0)), colour)
    radius = 0.5 * half.max()
    fill(_DISC * radius, HAIR)
    fill(_DISC * (0.5 * radius) + (0.55 * radius, 0.0), SKIN)


def _cyclist(fill: Fill, half: np.ndarray, colour: tuple) -> None:
    fill(_BOX * (half[0], 0.06), TYRE)
    fill(_BOX * (0.05, 0.85 * half[1]) + (0.42 * half[0], 0.0), TYRE)
    fill(_DISC * (0.34 * half[0], 0.8 * half[1]) - (0.08 * half[0], 0.0), colour)
    fill(_DISC * 0.16 + (0.1 * half[0], 0.0), HAIR)


def _cone(fill: Fill, half: np.ndarray, colour: tuple) -> None:
    fill(_BOX * half, TYRE)
    for share, ring in ((0.95, ORANGE), (0.66, WHITE), (0.42, ORANGE)):
        fill(_DISC * half * share, ring)


def _barrier(fill: Fill, half: np.ndarray, colour: tuple) -> None:
    fill(_BOX * half, WHITE)
    along = int(half[1] > half[0])  # which side is the long one
    for start in np.arange(-half[along], half[along] - 1e-6, 2 * STRIPE):
        low, high = start, min(start + STRIPE, half[along])
        stripe = _BOX * half
        stripe[:, along] = np.where(_BOX[:, along] > 0, high, low)
        fill(stripe, STRIPE_RED)


def _debris(fill: Fill, half: np.ndarray, colour: tuple) -> None:
    for turn, (share, shade) in enumerate(zip((0.95, 0.7, 0.45), RUBBLE, strict=True)):
        radius = 0.7 + 0.3 * np.sin(3 * _TURN + 2.1 * turn)
        fill(_DISC * radius[:, None] * half * share + 0.1 * turn * half * (1, -1), shade)


def _wall(fill: Fill, half: np.ndarray, colour: tuple) -> None:
    fill(_BOX * half, JOINT)
    fill(_BOX * np.maximum(half - 0.12, 0.5 * half), CONCRETE)


_SHAPES = {
    "person": _person,
    "cyclist": _cyclist,
    "cone": _cone,
    "barrier": _barrier,
    "debris": _debris,
    "wall": _wall,
}


def lamp_colour(shown: int) -> tuple[int, int, int]:
    """The colour of what a signal head shows, see `envs.roads.signals`."""
    return LIT_RED if shown == RED else LIT_AMBER if shown == AMBER else LIT_GREEN


def draw_head(canvas: pygame.Surface, view: View, head: np.ndarray) -> None:
    """Draw a signal head, a row of `Scene.signals`: a lit dot, or a lit arrow to the left of who faces it."""
    x, y, heading, shown, arrow = head.tolist()
    forward, right = np.array([np.cos(heading), np.sin(heading)]), np.array([-np.sin(heading), np.cos(heading)])
    place = np.array([x, y]) + (ASIDE * right if arrow else 0.0)
    plate = view.to_grid(place + HEAD_RADIUS * _DISC)
    pygame.draw.polygon(canvas, PLATE, plate.tolist())
    points = 0.7 * HEAD_RADIUS * _DISC
    if arrow:
        points = (
            0.85
            * HEAD_RADIUS
            * (np.array([-1.0, 0.5, 0.5])[:, None] * right + np.array([0, 0.8, -0.8])[:, None] * forward)
        )
    pygame.draw.polygon(canvas, lamp_colour(int(shown)), view.to_grid(place + points).tolist())
