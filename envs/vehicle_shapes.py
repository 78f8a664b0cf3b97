"""How a vehicle looks from above: body, glass, lamps, and the mark of a crash.

What is no vehicle is drawn by `envs.form_shapes`.
"""

import functools
from dataclasses import dataclass

import numpy as np
import pygame

from envs.form_shapes import draw_thing
from envs.scene import Scene, View
from envs.sensors.columns import BRAKING
from envs.state import FORMS

EGO = (32, 190, 240)
CRASH = (255, 66, 54)
TRAFFIC = (
    (206, 209, 213),
    (236, 237, 238),
    (122, 130, 140),
    (74, 104, 152),
    (150, 62, 62),
    (178, 164, 138),
    (88, 122, 104),
)
GLASS = (26, 31, 38)
SHADOW = (38, 40, 45)
HEADLAMP = (255, 246, 214)
TAIL_LAMP, BRAKE_LAMP = (120, 26, 26), (255, 40, 30)
INDICATOR = (255, 172, 30)

# Vehicles with a long roof: how much of them lies before it [m].
LARGE = {"van": 1.4, "truck": 2.0, "bus": 0.7}
TRUCK_BOX = (206, 210, 210)

BLINK_PERIOD = 0.7  # [s]
REACH = 1.6  # [m], beyond a vehicle's front and rear, within which its lamps shine and its shadow falls
_CORNER = np.linspace(0, np.pi / 2, 5)


@dataclass(frozen=True)
class _Shape:
    """Outlines in a vehicle's own frame [m]: x forward, y to the right. Shape: (points, 2) each."""

    body: np.ndarray
    glass: np.ndarray
    roof: np.ndarray


@functools.lru_cache(maxsize=256)
def _shape(form: str, length: float, width: float) -> _Shape:
    half = np.array([length, width]) / 2
    if form in LARGE:
        bonnet = min(LARGE[form], 0.5 * length)  # what lies before the roof: windscreen, and a truck's cab
        front = half[0] - bonnet
        return _Shape(
            body=_rounded(half * (-1, -1), half * (1, 1), rear=0.05 * width, front=0.12 * width),
            glass=half * (1, 0.86) * _trapezoid(1 - 0.62 * bonnet / half[0], 1 - 0.18 * bonnet / half[0], 1.0, 0.92),
            roof=np.array([(-0.97 * half[0], -0.9 * half[1]), (front, -0.9 * half[1])])[[0, 1, 1, 0]]
            * np.array([(1, 1), (1, 1), (1, -1), (1, -1)]),
        )
    return _Shape(
        body=_rounded(half * (-1, -1), half * (1, 1), rear=0.14 * width, front=0.3 * width),
        glass=half * _trapezoid(rear=-0.74, front=0.4, rear_width=0.74, front_width=0.84),
        roof=half * _trapezoid(rear=-0.5, front=0.1, rear_width=0.7, front_width=0.68),
    )


def _rounded(low: np.ndarray, high: np.ndarray, rear: float, front: float) -> np.ndarray:
    """A rectangle with rounded corners, whose radii differ at the rear and at the front."""
    corners = []
    for turn, (x, y, radius) in enumerate(
        ((high[0], high[1], front), (low[0], high[1], rear), (low[0], low[1], rear), (high[0], low[1], front))
    ):
        angle = _CORNER + turn * np.pi / 2
        centre = np.array([x - np.sign(x) * radius, y - np.sign(y) * radius])
        corners.append(centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    return np.concatenate(corners)


def _trapezoid(rear: float, front: float, rear_width: float, front_width: float) -> np.ndarray:
    return np.array([(rear, -rear_width), (front, -front_width), (front, front_width), (rear, rear_width)])


def body_colour(scene: Scene, slot: int) -> tuple[int, int, int]:
    """The ego has a colour of its own; the others have their paint or, without, take turns in a few."""
    if slot == 0:
        return EGO
    if scene.paint is None:
        return TRAFFIC[(slot * 5 + slot // 7) % len(TRAFFIC)]
    # A black car would not show on the asphalt.
    return tuple((40 + 0.85 * scene.paint[slot]).astype(int).tolist())


def draw_vehicle(canvas: pygame.Surface, view: View, scene: Scene, slot: int, turn: int) -> None:
    """Draw what is in a slot, a vehicle mostly.

    Args:
        canvas: to draw on.
        view: where the canvas looks.
        scene: holds the vehicle.
        slot: which vehicle.
        turn: -1 or 1 where it changes to the lane on the left or right, else 0.
    """
    form = "car" if scene.form is None else FORMS[scene.form[slot]]
    if form != "car" and form not in LARGE:
        draw_thing(canvas, view, scene, slot, body_colour(scene, slot))
        return
    cosine, sine = np.cos(scene.heading[slot]), np.sin(scene.heading[slot])
    place = np.array([scene.x[slot], scene.y[slot]])
    length, width = scene.length[slot], scene.width[slot]
    crashed = bool(scene.crashed[slot])

    def world(points: np.ndarray) -> np.ndarray:
        return points @ np.array([[cosine, sine], [-sine, cosine]]) + place

    def fill(points: np.ndarray, colour: tuple) -> None:
        pygame.draw.polygon(canvas, colour, view.to_grid(world(points)).tolist())

    def lamp(front: bool, side: int, colour: tuple, lit: bool, inner: float = 0.5, outer: float = 0.9) -> None:
        """A lamp at a corner; one that is lit shines round about."""
        x = np.array([0.985, 0.91] if front else [-0.985, -0.92]) * length / 2
        y = side * np.array([inner, outer]) * width / 2
        fill(np.array([(x[0], y[0]), (x[0], y[1]), (x[1], y[1]), (x[1], y[0])]), colour)
        if lit:
            glow = _glow(max(2, round(0.9 * view.zoom)), colour)
            centre = np.rint(view.to_pixels(world(np.array([1.03 * x[0], y.mean()])))).astype(int)
            canvas.blit(glow, glow.get_rect(center=centre.tolist()), special_flags=pygame.BLEND_RGB_ADD)

    shape = _shape(form, float(length), float(width))
    colour = np.array(body_colour(scene, slot))
    if crashed:
        colour = colour * 0.55
    shadow = view.to_grid(world(shape.body) + (0.14, 0.2))
    pygame.draw.polygon(canvas, SHADOW, shadow.tolist())
    fill(shape.body, (colour * 0.78).astype(int).tolist())
    fill(shape.body * (0.975, 0.9), colour.astype(int).tolist())
    fill(shape.glass, GLASS)
    roof = colour if form != "truck" else np.array(TRUCK_BOX) * (0.55 if crashed else 1.0)
    fill(shape.roof, np.minimum(roof * 1.06 + 4, 255).astype(int).tolist())

    braking = scene.acceleration[slot] < BRAKING and not crashed
    blink = scene.time % BLINK_PERIOD < 0.6 * BLINK_PERIOD
    for side in (-1, 1):
        lamp(True, side, HEADLAMP, lit=False)
        lamp(False, side, BRAKE_LAMP if braking else TAIL_LAMP, lit=braking)
        if blink and (crashed or side == turn):
            lamp(True, side, INDICATOR, lit=True, inner=0.72, outer=1.0)
            lamp(False, side, INDICATOR, lit=True, inner=0.72, outer=1.0)
    if crashed:
        _draw_crash_mark(canvas, view, world(shape.body * 1.12), place)


def _draw_crash_mark(canvas: pygame.Surface, view: View, outline: np.ndarray, place: np.ndarray) -> None:
    thick = max(1, round(0.16 * view.zoom))
    pygame.draw.polygon(canvas, CRASH, view.to_grid(outline).tolist(), thick)
    reach = 0.75
    for tilt in (1, -1):
        ends = view.to_grid(place + np.array([(-reach, -tilt * reach), (reach, tilt * reach)]))
        pygame.draw.line(canvas, CRASH, *ends.tolist(), 2 * thick)


@functools.lru_cache(maxsize=16)
def _glow(radius: int, colour: tuple[int, int, int]) -> pygame.Surface:
    """Light that falls off round a lamp, to be added to the picture."""
    offset = np.arange(-radius, radius + 1) / radius
    share = np.clip(1 - np.hypot(*np.meshgrid(offset, offset)), 0, 1) ** 2 * 0.55
    return pygame.surfarray.make_surface((share[..., None] * np.array(colour)).astype(np.uint8))
