"""Pictures of a scene from above, drawn with pygame in software: no display and no window are needed.

`draw` gives the scene alone, following the ego; `draw_frame` gives what videos and `env.render` show, with the camera's
image beside it. Shapes are in metres until the last moment and are drawn at twice the resolution, which smooths edges.
"""

import functools

import numpy as np
import pygame

from envs.scene import Lane, Scene, View, distance_to_polyline
from envs.vehicle_shapes import draw_vehicle

SUPERSAMPLE = 2
METRES_ACROSS = 120.0

GRASS = (92, 122, 74)
VERGE = (112, 116, 96)
ASPHALT = (66, 69, 75)
WHEEL_TRACK = (62, 65, 71)
MARKING = (226, 228, 226)
PLATE = (18, 21, 26)
TEXT = (232, 235, 240)
FAINT_TEXT = (150, 158, 170)

SHOULDER = 1.2  # [m], paved, outside the outer lines
MARKING_WIDTH = 0.18  # [m]
DASH, DASH_PERIOD = 3.0, 8.0  # [m], highway-env's stripes
TILE = 48.0  # side of the repeating patch of grass [m]
TREE_CELL = 13.0  # at most one tree in a square of this side [m]


def draw(scene: Scene, width: int, height: int, zoom: float | None = None) -> pygame.Surface:
    """The scene from above, following the ego.

    Args:
        scene: what to draw.
        width, height: of the picture [pixel].
        zoom: [pixel/m]; by default such that 120 m fit across.
    """
    view = View.following(scene, width, height, zoom or width / METRES_ACROSS)
    fine = view.times(SUPERSAMPLE)
    canvas = pygame.Surface((fine.width, fine.height), 0, 32)
    _draw_ground(canvas, fine)
    _draw_trees(canvas, fine, scene)
    _draw_road(canvas, fine, scene)
    _draw_vehicles(canvas, fine, scene)
    picture = pygame.Surface((width, height), 0, 32)
    pygame.transform.smoothscale(canvas, (width, height), picture)
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
    lane = f"{scene.lane[0] + 1} of {len(scene.lanes)}"
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


def font(size: int) -> pygame.font.Font:
    """pygame's own font, the same on every machine."""
    if not pygame.font.get_init():  # also after someone's pygame.quit(), which invalidates every font
        pygame.font.init()
        _font.cache_clear()
    return _font(size)


@functools.lru_cache(maxsize=32)
def _font(size: int) -> pygame.font.Font:
    return pygame.font.Font(None, round(size * 1.4))


def write(surface: pygame.Surface, text: str, at: tuple, size: int, colour: tuple = TEXT, align: str = "left") -> pygame.Rect:
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
    line = font(size).render(text, True, colour)
    return surface.blit(line, line.get_rect(**{f"top{align}" if align != "center" else "midtop": at}))


def _draw_plate(surface: pygame.Surface, text: str, at: tuple[int, int]) -> None:
    """A line of text on a translucent dark plate."""
    width, height = font(15).size(text)
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


# --- ground -----------------------------------------------------------------------------------------------------------


@functools.cache
def _grass() -> pygame.Surface:
    """A patch of grass that repeats without a seam: noise whose spectrum falls off, brought to a few greens."""
    side = 384
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side))) * side
    spectrum = np.fft.fft2(np.random.default_rng(0).standard_normal((side, side)))
    noise = np.fft.ifft2(spectrum / (1 + (frequency / 9) ** 1.3)).real
    noise /= noise.std()
    tint = np.array([7.0, 6.5, 4.5])
    pixels = np.clip(GRASS + np.clip(noise, -2.2, 2.2)[..., None] * tint, 0, 255).astype(np.uint8)
    return pygame.surfarray.make_surface(pixels)


@functools.lru_cache(maxsize=2)
def _grass_tile(pixels: int) -> pygame.Surface:
    tile = pygame.Surface((pixels, pixels), 0, 32)
    tile.blit(pygame.transform.smoothscale(_grass().convert(tile), (pixels, pixels)), (0, 0))
    return tile


def _draw_ground(canvas: pygame.Surface, view: View) -> None:
    tile = _grass_tile(int(np.ceil(TILE * view.zoom)))
    (x0, y0), (x1, y1) = view.to_metres([(0, 0), (view.width, view.height)]) // TILE
    for column in range(int(x0), int(x1) + 1):
        for row in range(int(y0), int(y1) + 1):
            canvas.blit(tile, np.rint(view.to_pixels((column * TILE, row * TILE))).astype(int).tolist())


def _draw_trees(canvas: pygame.Surface, view: View, scene: Scene) -> None:
    """Trees away from the road, always in the same places: without them nothing but dashes tells how fast one goes."""
    reach = 4.0  # beyond the edge, so that a crown shows before its trunk does
    (x0, y0), (x1, y1) = view.to_metres([(0, 0), (view.width, view.height)]) + ((-reach, -reach), (reach, reach))
    columns = np.arange(np.floor(x0 / TREE_CELL), np.ceil(x1 / TREE_CELL))
    rows = np.arange(np.floor(y0 / TREE_CELL), np.ceil(y1 / TREE_CELL))
    cells = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    chance = _hash(cells)  # [cells, 4]
    places = (cells + 0.2 + 0.6 * chance[:, 1:3]) * TREE_CELL
    radius = 1.1 + 1.7 * chance[:, 3]
    clear = np.full(len(cells), np.inf)
    for points, _, _ in scene.lanes:
        clear = np.minimum(clear, distance_to_polyline(places, points)[0])
    grows = (chance[:, 0] < 0.5) & (clear > radius + scene.lane_width / 2 + SHOULDER + 2.0)
    for place, r, shade in zip(places[grows], radius[grows], chance[grows, 0], strict=True):
        _draw_tree(canvas, view, place, r, shade)


def _hash(cells: np.ndarray) -> np.ndarray:
    """Four numbers in [0, 1) for each cell of the plane, always the same. Shape: (N, 2) to (N, 4)."""
    keys = cells @ np.array([[127.1, 269.5, 419.2, 37.7], [311.7, 183.3, 371.9, 91.3]])
    return np.modf(np.abs(np.sin(keys) * 43758.5453))[0]


def _draw_tree(canvas: pygame.Surface, view: View, place: np.ndarray, radius: float, shade: float) -> None:
    def disc(offset: tuple[float, float], share: float, colour: np.ndarray) -> None:
        centre = view.to_pixels(place + radius * np.array(offset))
        pygame.draw.circle(canvas, colour.astype(int).tolist(), centre, share * radius * view.zoom)

    green = np.array([52, 88, 50]) + 30 * shade * np.array([1.0, 0.9, 0.3])
    disc((0.35, 0.4), 1.0, np.array([70, 95, 58]))
    for offset in ((0.0, 0.0), (-0.35, 0.3), (0.38, 0.22), (0.05, -0.4)):
        disc(offset, 0.72, green)
    for offset, share, lift in (((-0.2, -0.2), 0.55, 1.12), ((-0.3, -0.32), 0.28, 1.26)):
        disc(offset, share, green * lift)


# --- road -------------------------------------------------------------------------------------------------------------


def _draw_road(canvas: pygame.Surface, view: View, scene: Scene) -> None:
    half = scene.lane_width / 2
    for extent, colour in ((half + SHOULDER + 0.5, VERGE), (half + SHOULDER, ASPHALT)):
        for points, _, _ in scene.lanes:
            _draw_band(canvas, view, points, -extent, extent, colour)
    for points, _, _ in scene.lanes:
        for centre in (-0.21 * scene.lane_width, 0.21 * scene.lane_width):
            _draw_band(canvas, view, points, centre - 0.3, centre + 0.3, WHEEL_TRACK)
    for lane in scene.lanes:
        _draw_markings(canvas, view, lane, half)


def _draw_markings(canvas: pygame.Surface, view: View, lane: Lane, half: float) -> None:
    points, left, right = lane
    for style, side in ((left, -half), (right, half)):
        if style != "none":
            edges = side - MARKING_WIDTH / 2, side + MARKING_WIDTH / 2
            _draw_band(canvas, view, points, *edges, MARKING, dashed=style == "dashed")


def _draw_band(
    canvas: pygame.Surface, view: View, points: np.ndarray, left: float, right: float, colour: tuple, dashed: bool = False
) -> None:
    """Fill the band between two lateral offsets [m] from a polyline, as far as it shows."""
    segment, start, end = _visible_pieces(points, view, dashed)
    normals = _normals(points)
    corners = []
    for offset, share in ((left, start), (left, end), (right, end), (right, start)):
        edge = points + offset * normals
        corners.append(edge[segment] + share[:, None] * (edge[segment + 1] - edge[segment]))
    for quad in view.to_grid(np.stack(corners, axis=1)).tolist():
        pygame.draw.polygon(canvas, colour, quad)


def _visible_pieces(points: np.ndarray, view: View, dashed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stretches of a polyline that show, each within one segment.

    Returns:
        index of the segment, and the shares of it at which the stretch starts and ends. Shape: (pieces,) each.
    """
    along = np.diff(points, axis=0)
    length = np.hypot(along[:, 0], along[:, 1])
    relative = points[:-1] - (view.x, view.y)
    # Where the segment's line enters and leaves the circle round the view: |relative + s * unit| = radius.
    middle = -(relative * along).sum(-1) / length
    chord = np.sqrt(np.maximum((view.radius + 8.0) ** 2 - (relative**2).sum(-1) + middle**2, 0.0))
    first, last = np.clip(middle - chord, 0, length), np.clip(middle + chord, 0, length)
    segment = np.flatnonzero(last > first)
    first, last = first[segment], last[segment]
    if dashed:
        # Dashes are counted from the polyline's start, so that they stay in place while the view moves.
        before = np.concatenate([[0.0], np.cumsum(length)])[segment]
        from_dash = ((before + first) // DASH_PERIOD).astype(int)
        count = ((before + last) // DASH_PERIOD).astype(int) - from_dash + 1
        owner = np.repeat(np.arange(len(segment)), count)
        dash = from_dash[owner] + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        start = dash * DASH_PERIOD - before[owner]
        first, last = np.maximum(start, first[owner]), np.minimum(start + DASH, last[owner])
        segment = segment[owner]
        shows = last > first
        segment, first, last = segment[shows], first[shows], last[shows]
    return segment, first / length[segment], last / length[segment]


def _normals(points: np.ndarray) -> np.ndarray:
    """At each point of a polyline the vector to its right that keeps offset lines parallel (a mitre). Shape: (P, 2)."""
    along = np.diff(points, axis=0)
    along /= np.hypot(along[:, 0], along[:, 1])[:, None]
    right = np.stack([-along[:, 1], along[:, 0]], axis=-1)
    before, after = np.concatenate([right[:1], right]), np.concatenate([right, right[-1:]])
    return (before + after) / np.maximum(1 + (before * after).sum(-1, keepdims=True), 0.3)


# --- vehicles ---------------------------------------------------------------------------------------------------------


def _draw_vehicles(canvas: pygame.Surface, view: View, scene: Scene) -> None:
    near = np.hypot(scene.x - view.x, scene.y - view.y) < view.radius + scene.length
    lateral = scene.lane_offset(scene.target_lane)
    for slot in reversed(np.flatnonzero(scene.present & near)):  # the ego last, on top
        draw_vehicle(canvas, view, scene, slot, lateral[slot])
