"""Pictures of a scene from above, drawn with pygame in software: no display and no window are needed.

`draw` gives the scene alone, following the ego; `draw_frame` gives what videos and `env.render` show, with the camera's
image beside it. Shapes are in metres until the last moment and are drawn at twice the resolution, which smooths edges.
"""

import functools
from collections.abc import Callable

import numpy as np
import pygame

from envs.form_shapes import ASIDE, HEAD_RADIUS, draw_head
from envs.scene import Scene, View
from envs.scenery import SUPERSAMPLE, draw_ground
from envs.state import FORMS
from envs.vehicle_shapes import REACH, draw_vehicle

METRES_ACROSS = 120.0
TEXT_SUPERSAMPLE = 4

PLATE = (18, 21, 26)
TEXT = (232, 235, 240)
FAINT_TEXT = (150, 158, 170)


def draw(scene: Scene, width: int, height: int, zoom: float | None = None) -> pygame.Surface:
    """The scene from above, following the ego.

    Args:
        scene: what to draw.
        width, height: of the picture [pixel].
        zoom: [pixel/m]; by default such that 120 m fit across.
    """
    view = View.following(scene, width, height, zoom or width / METRES_ACROSS)
    picture = pygame.Surface((width, height), 0, 32)
    draw_ground(picture, view, scene)
    _draw_vehicles(picture, view, scene)
    _draw_signals(picture, view, scene)
    _draw_scale_bar(picture, view)
    return picture


def draw_frame(scene: Scene, width: int = 1000, height: int = 320, zoom: float | None = None) -> np.ndarray:
    """The scene from above with the camera's image and the ego's speed, lane and time beside it.

    Args:
        scene: what to draw.
        width, height: of the whole picture [pixel].
        zoom: [pixel/m]; by default such that 120 m fit across the scene.

    Returns:
        uint8 [height, width, 3].
    """
    column = min(300, int(0.34 * width))
    frame = pygame.Surface((width, height), 0, 32)
    frame.fill(PLATE)
    frame.blit(draw(scene, width - column, height, zoom), (0, 0))
    left, top, inner = width - column + 14, 14, column - 28
    if scene.camera is not None:
        image = enlarge(scene.camera, inner, height - 100)
        frame.blit(image, (left, top))
        pygame.draw.rect(frame, FAINT_TEXT, image.get_rect(topleft=(left, top)).inflate(2, 2), 1)
        top += image.get_height() + 14
    place, count = scene.roads[scene.lane[0]] if scene.roads else (scene.lane[0], len(scene.lanes))
    lane = f"{place + 1} of {count}"
    for label, text in (("speed", f"{3.6 * scene.speed[0]:.0f} km/h"), ("lane", lane), ("time", f"{scene.time:.1f} s")):
        write(frame, label, (left, top), 15, FAINT_TEXT)
        write(frame, text, (left + inner, top), 15, align="right")
        top += 22
    if scene.crashed[0]:
        write(frame, "crashed", (left + inner, top), 15, (255, 92, 80), align="right")
    if scene.caption:
        _draw_plate(frame, scene.caption, (12, 12))
    return np.ascontiguousarray(pygame.surfarray.array3d(frame).swapaxes(0, 1))


def enlarge(image: np.ndarray, width: int, height: int) -> pygame.Surface:
    """A camera's image, as large as fits into a box; its pixels stay visible as squares.

    Args:
        image: uint8 [h, w, 3].
        width, height: of the box [pixel].
    """
    rows, columns = image.shape[:2]
    factor = max(min(width / columns, height / rows), 1 / min(rows, columns))
    surface = pygame.image.frombuffer(np.ascontiguousarray(image).tobytes(), (columns, rows), "RGB")
    whole = int(np.ceil(factor))
    size = (round(columns * factor), round(rows * factor))
    return pygame.transform.smoothscale(pygame.transform.scale_by(surface, whole), size)


# --- text -------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def _font(size: int) -> pygame.font.Font:
    """pygame's own font, the same on every machine."""
    return pygame.font.Font(None, round(size * 1.4 * TEXT_SUPERSAMPLE))


@functools.lru_cache(maxsize=512)
def line(text: str, size: int, colour: tuple = TEXT) -> pygame.Surface:
    """A line of text as a picture of its own, with transparency. Arguments: those of `write`."""
    if not pygame.font.get_init():  # also after someone's pygame.quit(), which invalidates every font
        pygame.font.init()
        _font.cache_clear()
    # Letters of this size would otherwise stand on whole pixels, unevenly.
    large = _font(size).render(text, True, colour)
    return pygame.transform.smoothscale_by(large, 1 / TEXT_SUPERSAMPLE)


def write(
    surface: pygame.Surface, text: str, at: tuple, size: int, colour: tuple = TEXT, align: str = "left"
) -> pygame.Rect:
    """Write a line of text.

    Args:
        surface: to write on.
        text: one line.
        at: the line's top, at its left end, middle or right end [pixel].
        size: height of the letters [pixel], roughly.
        colour: RGB.
        align: "left", "center" or "right": what `at` means.

    Returns:
        The rectangle that was written on.
    """
    letters = line(text, size, colour)
    return surface.blit(letters, letters.get_rect(**{f"top{align}" if align != "center" else "midtop": at}))


def _draw_plate(surface: pygame.Surface, text: str, at: tuple[int, int]) -> None:
    """A line of text on a translucent dark plate."""
    width, height = line(text, 15).get_size()
    plate = pygame.Surface((width + 16, height + 10), pygame.SRCALPHA)
    pygame.draw.rect(plate, (*PLATE, 190), plate.get_rect(), border_radius=6)
    surface.blit(plate, at)
    write(surface, text, (at[0] + 8, at[1] + 5), 15)


def _draw_scale_bar(surface: pygame.Surface, view: View) -> None:
    """A bar of a round number of metres in the lower left corner."""
    metres = next((m for m in (500, 200, 100, 50, 20, 10, 5, 2, 1) if m * view.zoom <= 130), 1)
    pixels = round(metres * view.zoom)
    left, bottom = 16, view.height - 14
    for colour, thick in ((PLATE, 5), (TEXT, 1)):
        spread = thick // 2
        for box in (
            (left, bottom, pixels, 1),
            (left, bottom - 5, 1, 5),
            (left + pixels - 1, bottom - 5, 1, 5),
        ):
            pygame.draw.rect(surface, colour, pygame.Rect(box).inflate(2 * spread, 2 * spread))
    _draw_text_with_edge(surface, f"{metres} m", (left + pixels // 2, bottom - 20))


def _draw_text_with_edge(surface: pygame.Surface, text: str, at: tuple[int, int]) -> None:
    for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        write(surface, text, (at[0] + dx, at[1] + dy), 12, PLATE, align="center")
    write(surface, text, at, 12, align="center")


# --- vehicles ---------------------------------------------------------------------------------------------------------


def _draw_vehicles(picture: pygame.Surface, view: View, scene: Scene) -> None:
    """Draw what is in the slots: marks on the ground first, the ego last."""
    size = np.hypot(scene.length, scene.width)
    near = np.flatnonzero(scene.present & (np.hypot(scene.x - view.x, scene.y - view.y) < view.radius + size))
    flat = np.zeros(len(size), dtype=bool) if scene.form is None else scene.form == FORMS.index("ground marking")
    turn = np.sign(scene.target_lane - scene.lane)  # lanes are numbered from left to right
    for slot in (*near[flat[near]], *reversed(near[~flat[near]])):
        reach = REACH + size[slot] / 2
        _draw_finely(picture, view, scene.x[slot], scene.y[slot], reach, draw_vehicle, scene, slot, turn[slot])


def _draw_signals(picture: pygame.Surface, view: View, scene: Scene) -> None:
    reach = HEAD_RADIUS + ASIDE + 0.5
    for head in scene.signals:
        if np.hypot(head[0] - view.x, head[1] - view.y) < view.radius + reach:
            _draw_finely(picture, view, head[0], head[1], reach, draw_head, head)


def _draw_finely(
    picture: pygame.Surface, view: View, x: float, y: float, reach: float, draw: Callable[..., None], *what
) -> None:
    """Call `draw(canvas, view, *what)` on an enlarged cutting of the picture, which leaves the rest of it as it is."""
    half = int(reach * view.zoom) + 1
    column, row = np.rint(view.to_pixels((x, y))).astype(int).tolist()
    box = pygame.Rect(column - half, row - half, 2 * half, 2 * half).clip(picture.get_rect())
    if box.width and box.height:
        part = picture.subsurface(box)
        centre = view.to_metres((box.left + box.width / 2, box.top + box.height / 2))
        fine = View(float(centre[0]), float(centre[1]), view.zoom, *box.size).times(SUPERSAMPLE)
        canvas = pygame.transform.scale_by(part, SUPERSAMPLE)
        draw(canvas, fine, *what)
        pygame.transform.smoothscale(canvas, box.size, part)
