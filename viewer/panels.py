"""What is drawn round the scene: the panel beside it, the plates on it, and the page of keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pygame

from envs.render import FAINT_TEXT, PLATE, TEXT, enlarge, line, write
from envs.sensors.rig import Rig
from envs.vehicle_shapes import CRASH, EGO
from evaluation.metrics import time_headway, time_to_collision
from viewer.session import Moment, Session

WIDTH = 340  # of the panel [pixel]
MARGIN = 16
INNER = WIDTH - 2 * MARGIN
CARD = (28, 32, 39)
TRACK = (46, 52, 61)
FAINT = (104, 112, 124)
WARNING = (255, 178, 54)
SPARK_SECONDS = 20.0
FULL_ACCELERATION = 6.0  # [m/s2], the end of the scale

KEYS = (
    ("space", "pause"),
    (".  ,", "a decision forward, back in a recording"),
    (">  <", "a simulation frame forward, back in a recording"),
    ("[  ]", "slower, faster (or page down, page up)"),
    ("+  -", "zoom, also with the mouse wheel; 0 as at the start"),
    ("R", "the same episode from its start"),
    ("N", "the next world"),
    ("W", "take the wheel, or give it back"),
    ("arrows", "at the wheel: change lane, faster, slower; or pedals and steering"),
    ("", "in a recording: a second back, forward"),
    ("C", "another camera"),
    ("E", "what speaks for and against the decision; the next method"),
    ("U", "how unfamiliar what the policy sees is, and no more"),
    ("V", "record to mp4, and stop"),
    ("S", "save a screenshot"),
    ("F", "full screen"),
    ("H  F1", "this page"),
    ("Q  esc", "quit"),
)


@dataclass(frozen=True)
class Picture:
    """What a camera sees. `pixels`: uint8 [h, w, 3]; `rig` made it, or None where that is not known."""

    pixels: np.ndarray
    rig: Rig | None
    label: str


def draw_panel(size: tuple[int, int], session: Session, moment: Moment, picture: Picture | None) -> pygame.Surface:
    """The panel. What does not fit at its lower end is left out.

    Args:
        size: width and height [pixel].
        session: what is shown.
        moment: of it.
        picture: the camera's image.
    """
    panel = pygame.Surface(size, 0, 32)
    panel.fill(PLATE)
    top = MARGIN
    sections: list[tuple[int, Callable[[int], None]]] = []
    if picture is not None:
        room = min(round(INNER * picture.pixels.shape[0] / picture.pixels.shape[1]), INNER)
        sections.append((room + 20, lambda y: _draw_camera(panel, y, picture, room)))
    sections += [
        (104, lambda y: _draw_speed(panel, y, session, moment)),
        (30 + 21 * max(len(session.action_names), 3), lambda y: _draw_actions(panel, y, session, moment)),
        (112, lambda y: _draw_figures(panel, y, moment)),
    ]
    for height, draw in sections:
        if top + height > size[1]:
            break
        draw(top)
        top += height + 10
    return panel


def _draw_camera(panel: pygame.Surface, top: int, picture: Picture, room: int) -> None:
    image = enlarge(picture.pixels, INNER, room)
    left = MARGIN + (INNER - image.get_width()) // 2
    panel.blit(image, (left, top))
    if picture.rig is not None:
        row, scale = 0, image.get_height() / picture.rig.height
        for camera in picture.rig.cameras:
            y = top + round(row * scale)
            if row:
                pygame.draw.line(panel, PLATE, (left, y), (left + image.get_width() - 1, y), 2)
            name = "all around" if camera.field_of_view >= 360 else "ahead"
            _write_on_plate(panel, name, (left + 6, y + 6), 10)
            row += camera.height
    rows, columns = picture.pixels.shape[:2]
    write(panel, picture.label, (MARGIN, top + room + 6), 11, FAINT_TEXT)
    write(panel, f"{columns} x {rows} pixels", (MARGIN + INNER, top + room + 6), 11, FAINT, align="right")


def _card(panel: pygame.Surface, box: tuple[int, int, int, int]) -> None:
    pygame.draw.rect(panel, CARD, box, border_radius=8)


def _draw_speed(panel: pygame.Surface, top: int, session: Session, moment: Moment) -> None:
    scene = moment.scene
    _card(panel, (MARGIN, top, INNER, 104))
    left, right = MARGIN + 12, MARGIN + INNER - 12
    number = write(panel, f"{3.6 * scene.speed[0]:.0f}", (left, top + 10), 34)
    write(panel, "km/h", (number.right + 6, top + 28), 12, FAINT_TEXT)
    target = moment.target_speed
    if target:
        write(panel, f"target {3.6 * target:.0f}", (left, top + 51), 12, FAINT_TEXT)
    _draw_spark(panel, pygame.Rect(right - 150, top + 14, 150, 44), session, target)
    _draw_acceleration(panel, pygame.Rect(left, top + 84, 128, 6), scene.acceleration[0])
    lane, target = int(scene.lane[0]), int(scene.target_lane[0])
    place, count = scene.roads[lane] if scene.roads else (lane, len(scene.lanes))
    # A target on another road has no box of its own.
    beside = place + target - lane
    _draw_lanes(panel, right, top + 78, place, beside if 0 <= beside < count else place, count)


def _draw_spark(panel: pygame.Surface, box: pygame.Rect, session: Session, target: float | None) -> None:
    """The ego's speed over the last seconds."""
    count = round(SPARK_SECONDS / session.dt)
    speeds = session.speeds()[-count:]
    low, high = 3.6 * min(15.0, *speeds), 3.6 * max(35.0, *speeds)
    pygame.draw.line(panel, TRACK, box.bottomleft, box.bottomright)

    def height(speed: float) -> float:
        return box.bottom - box.height * (3.6 * speed - low) / (high - low)

    if target:
        y = round(height(target))
        for x in range(box.left, box.right, 6):
            pygame.draw.line(panel, FAINT, (x, y), (x + 2, y))
    x = box.right - (len(speeds) - 1 - np.arange(len(speeds))) * box.width / count
    points = [(float(a), height(b)) for a, b in zip(x, speeds, strict=True)]
    if len(points) > 1:
        pygame.draw.aalines(panel, EGO, False, points)
    if points:
        pygame.draw.circle(panel, EGO, points[-1], 3)


def _draw_acceleration(panel: pygame.Surface, box: pygame.Rect, acceleration: float) -> None:
    share = float(np.clip(acceleration / FULL_ACCELERATION, -1, 1))
    write(panel, "brake", (box.left, box.top - 15), 10, FAINT_TEXT)
    write(panel, "accelerate", (box.right, box.top - 15), 10, FAINT_TEXT, align="right")
    pygame.draw.rect(panel, TRACK, box, border_radius=3)
    reach = round(share * box.width / 2)
    bar = pygame.Rect(box.centerx + min(reach, 0), box.top, abs(reach), box.height)
    pygame.draw.rect(panel, EGO if share >= 0 else CRASH, bar, border_radius=3)
    pygame.draw.line(panel, TEXT, (box.centerx, box.top - 2), (box.centerx, box.bottom + 1))


def _draw_lanes(panel: pygame.Surface, right: int, top: int, lane: int, target: int, count: int) -> None:
    """A box a lane: the ego's is full, the one that it is heading for has a frame."""
    write(panel, f"lane {lane + 1} of {count}", (right, top - 9), 10, FAINT_TEXT, align="right")
    width = min(20, (INNER // 2 - 20) // count)
    for index in range(count):
        box = pygame.Rect(right - (count - index) * width + 3, top + 5, width - 3, 10)
        pygame.draw.rect(panel, EGO if index == lane else TRACK, box, border_radius=3)
        if index == target != lane:
            pygame.draw.rect(panel, WARNING, box, 2, border_radius=3)


def _draw_actions(panel: pygame.Surface, top: int, session: Session, moment: Moment) -> None:
    names = session.action_names
    _card(panel, (MARGIN, top, INNER, 30 + 21 * max(len(names), 3)))
    left, right = MARGIN + 12, MARGIN + INNER - 12
    wish = session.wish if session.human else None
    heading = "your decision" if session.human else "decision"
    if moment.probabilities is not None:
        heading = "decision and its probabilities"
    write(panel, heading, (left, top + 8), 11, FAINT_TEXT)
    if moment.action is None:
        write(panel, "The simulation drives:", (left, top + 28), 13)
        write(panel, "IDM keeps the distance,", (left, top + 48), 13, FAINT_TEXT)
        write(panel, "MOBIL changes lanes.", (left, top + 68), 13, FAINT_TEXT)
        return
    if not names:
        _draw_pedals(panel, (left, right, top + 30), moment.action)
        return
    for index, name in enumerate(names):
        y = top + 27 + 21 * index
        chosen, wished = index == moment.action, index == wish
        colour = EGO if chosen else FAINT_TEXT
        write(panel, name.lower().replace("_", " "), (left, y + 2), 12, TEXT if chosen else FAINT_TEXT)
        track = pygame.Rect(left + 84, y + 3, right - left - 84 - 46, 12)
        pygame.draw.rect(panel, TRACK, track, border_radius=4)
        share = float(chosen) if moment.probabilities is None else float(moment.probabilities[index])
        if share * track.width >= 1:
            filled = pygame.Rect(track.topleft, (max(4, round(share * track.width)), track.height))
            pygame.draw.rect(panel, colour, filled, border_radius=4)
        if moment.probabilities is not None:
            write(panel, f"{100 * share:.0f} %", (right, y + 2), 12, colour, align="right")
        if wished:
            pygame.draw.rect(panel, WARNING, track.inflate(4, 4), 1, border_radius=5)
            write(panel, "next", (right, y + 2), 12, WARNING, align="right")


def _draw_pedals(panel: pygame.Surface, place: tuple[int, int, int], action: np.ndarray) -> None:
    """Continuous actions, as bars from the middle. `place`: left, right and top of the bars [pixel]."""
    left, right, top = place
    for row, (name, share) in enumerate(zip(("throttle", "steering")[-len(action) :], action, strict=True)):
        y = top + 28 * row
        write(panel, name, (left, y + 1), 12)
        track = pygame.Rect(left + 84, y + 3, right - left - 84 - 46, 12)
        pygame.draw.rect(panel, TRACK, track, border_radius=4)
        reach = round(float(share) * track.width / 2)
        bar = pygame.Rect(track.centerx + min(reach, 0), track.top, abs(reach), track.height)
        pygame.draw.rect(panel, EGO, bar, border_radius=4)
        pygame.draw.line(panel, TEXT, (track.centerx, track.top - 2), (track.centerx, track.bottom + 1))
        write(panel, f"{share:+.2f}", (right, y + 1), 12, align="right")


def _draw_figures(panel: pygame.Surface, top: int, moment: Moment) -> None:
    """Six figures in two rows."""

    def seconds(value: float, critical: float, doubtful: float) -> tuple[str, str, tuple]:
        if not np.isfinite(value) or value > 99:
            return "-", "", FAINT_TEXT
        return f"{value:.1f}", "s", CRASH if value < critical else WARNING if value < doubtful else TEXT

    value = ("-", "", FAINT_TEXT) if moment.value is None else (f"{moment.value:.2f}", "", TEXT)
    figures = (
        ("time to collision", *seconds(moment.ttc, time_to_collision.CRITICAL, 3.0)),
        ("time headway", *seconds(moment.headway, time_headway.CRITICAL, 1.5)),
        ("value", *value),
        ("return", f"{moment.episode_return:.2f}", "", TEXT),
        ("step", f"{moment.step}", "", TEXT),
        ("time", f"{moment.scene.time:.1f}", "s", TEXT),
    )
    width, height = (INNER - 16) // 3, 52
    for index, (label, text, unit, colour) in enumerate(figures):
        x, y = MARGIN + index % 3 * (width + 8), top + index // 3 * (height + 8)
        _card(panel, (x, y, width, height))
        write(panel, label, (x + 10, y + 7), 10, FAINT_TEXT)
        number = write(panel, text, (x + 10, y + 23), 19, colour)
        write(panel, unit, (number.right + 3, y + 32), 10, FAINT_TEXT)


# --- on the scene -----------------------------------------------------------------------------------------------------


def _plate(surface: pygame.Surface, box: pygame.Rect, colour: tuple = (*PLATE, 200)) -> None:
    plate = pygame.Surface(box.size, pygame.SRCALPHA)
    pygame.draw.rect(plate, colour, plate.get_rect(), border_radius=6)
    surface.blit(plate, box)


def _write_on_plate(
    surface: pygame.Surface, text: str, at: tuple[int, int], size: int = 14, colour: tuple = TEXT
) -> pygame.Rect:
    """A line of text on a dark plate, whose upper left corner is `at`."""
    width, height = line(text, size).get_size()
    box = pygame.Rect(*at, width + size, height + size // 2)
    _plate(surface, box)
    write(surface, text, (box.left + size // 2, box.top + size // 4), size, colour)
    return box


def draw_plates(scene: pygame.Surface, title: str, chips: Sequence[tuple[str, tuple]]) -> None:
    """What is shown, and in which state the player is, in the upper left corner.

    Args:
        scene: to be drawn on.
        title: what is shown.
        chips: further plates after it, each a text and its colour.
    """
    box = _write_on_plate(scene, title, (12, 12))
    for text, colour in chips:
        box = _write_on_plate(scene, text, (box.right + 6, 12), 14, colour)


def draw_ending(scene: pygame.Surface, text: str) -> None:
    """How the episode ended, in large letters."""
    size = 26
    width, height = line(text, size).get_size()
    box = pygame.Rect(0, 0, width + 44, height + 26)
    box.midtop = (scene.get_width() // 2, max(50, scene.get_height() // 8))
    _plate(scene, box)
    write(scene, text, (box.centerx, box.top + 13), size, CRASH if text == "collision" else TEXT, align="center")


def draw_message(scene: pygame.Surface, text: str) -> None:
    """Something that has just happened, at the lower edge."""
    width, height = line(text, 14).get_size()
    at = ((scene.get_width() - width) // 2 - 7, scene.get_height() - height - 36)
    _write_on_plate(scene, text, at)


def progress_box(size: tuple[int, int]) -> pygame.Rect:
    """Where a recording's progress is drawn on a scene of this size, and where a click seeks."""
    return pygame.Rect(0, size[1] - 10, size[0], 10)


def draw_progress(scene: pygame.Surface, share: float) -> None:
    """How much of a recording has been played."""
    box = progress_box(scene.get_size())
    _plate(scene, box)
    pygame.draw.rect(scene, EGO, (box.left, box.top + 3, round(share * box.width), 4))


def draw_help(window: pygame.Surface) -> None:
    """The page of keys, over everything."""
    veil = pygame.Surface(window.get_size(), pygame.SRCALPHA)
    veil.fill((*PLATE, 150))
    window.blit(veil, (0, 0))
    box = pygame.Rect(0, 0, 552, 62 + 24 * len(KEYS))
    box.center = window.get_rect().center
    _plate(window, box, (*PLATE, 245))
    pygame.draw.rect(window, TRACK, box, 1, border_radius=6)
    write(window, "Keys", (box.left + 26, box.top + 18), 19)
    for index, (keys, meaning) in enumerate(KEYS):
        y = box.top + 52 + 24 * index
        write(window, keys, (box.left + 26, y), 14, EGO)
        write(window, meaning, (box.left + 110, y), 14)
