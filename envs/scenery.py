"""The ground that scenes are drawn on: grass, trees and the road, as square pieces that are drawn once and kept."""

import functools
from dataclasses import dataclass, field

import numpy as np
import pygame

from envs.roads.ground import DASH, LINE_WIDTH, PERIOD, SHOULDER, zebra_bars
from envs.scene import Bar, Lane, Scene, View, distance_to_polyline

SUPERSAMPLE = 2
PIECE = 256  # side of a piece [pixel]
KEPT = 128  # pieces, of a quarter of a megabyte each

GRASS = (92, 122, 74)
VERGE = (112, 116, 96)
ASPHALT = (66, 69, 75)
WHEEL_TRACK = (62, 65, 71)
MARKING = (226, 228, 226)

TILE = 48.0  # side of the repeating patch of grass [m]
TREE_CELL = 13.0  # at most one tree in a square of this side [m]
CLEARING = 12.0  # no lane farther from a view than this keeps trees off it [m]


@dataclass(frozen=True)
class _Road:
    """Lanes, painted bars and paved ground, compared by `key`, which says the same in values that can be hashed."""

    key: tuple
    lanes: tuple[Lane, ...] = field(compare=False)
    bars: tuple[Bar, ...] = field(compare=False)
    paved: tuple[np.ndarray, ...] = field(compare=False)


def draw_ground(canvas: pygame.Surface, view: View, scene: Scene) -> None:
    """Cover the canvas with what does not move. The ground lies on whole pixels: it is up to half a pixel off."""
    key = tuple((np.asarray(points).tobytes(), *rest) for points, *rest in scene.lanes)
    bars = (*(tuple(bar) for crossing in scene.crossings for bar in zebra_bars(crossing).tolist()), *scene.stop_lines)
    paved = tuple(polygon.tobytes() for polygon in scene.paved)
    road = _Road((*key, *bars, *paved), scene.lanes, bars, scene.paved)
    corner = np.rint((view.x * view.zoom - view.width / 2, view.y * view.zoom - view.height / 2)).astype(int)
    (column0, row0), (column1, row1) = corner // PIECE, (corner + (view.width - 1, view.height - 1)) // PIECE
    for column in range(column0, column1 + 1):
        for row in range(row0, row1 + 1):
            canvas.blit(_piece(road, view.zoom, column, row), (column * PIECE - corner[0], row * PIECE - corner[1]))


@functools.lru_cache(maxsize=KEPT)
def _piece(road: _Road, zoom: float, column: int, row: int) -> pygame.Surface:
    """The square whose corner is `column` and `row` squares away from the origin, at `zoom` pixels a metre."""
    side = PIECE / zoom
    fine = View((column + 0.5) * side, (row + 0.5) * side, zoom, PIECE, PIECE).times(SUPERSAMPLE)
    canvas = pygame.Surface((fine.width, fine.height), 0, 32)
    _draw_grass(canvas, fine)
    _draw_trees(canvas, fine, road)
    _draw_road(canvas, fine, road)
    picture = pygame.Surface((PIECE, PIECE), 0, 32)
    return pygame.transform.smoothscale(canvas, (PIECE, PIECE), picture)


# --- grass and trees --------------------------------------------------------------------------------------------------


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


def _draw_grass(canvas: pygame.Surface, view: View) -> None:
    tile = _grass_tile(int(np.ceil(TILE * view.zoom)))
    (x0, y0), (x1, y1) = view.to_metres([(0, 0), (view.width, view.height)]) // TILE
    for column in range(int(x0), int(x1) + 1):
        for row in range(int(y0), int(y1) + 1):
            canvas.blit(tile, np.rint(view.to_pixels((column * TILE, row * TILE))).astype(int).tolist())


def _draw_trees(canvas: pygame.Surface, view: View, road: _Road) -> None:
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
    for points, _, _, width in _near(road, view, CLEARING):
        clear = np.minimum(clear, distance_to_polyline(places, points)[0] - width / 2)
    grows = (chance[:, 0] < 0.5) & (clear > radius + SHOULDER + 2.0)
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


def _near(road: _Road, view: View, margin: float) -> list[Lane]:
    """The lanes of which something may lie within `margin` of the view [m]."""
    reach = np.array((view.width, view.height)) / view.zoom / 2 + margin
    near = []
    for lane in road.lanes:
        points, width = lane[0], lane[3]
        low, high = points.min(axis=0) - (view.x, view.y), points.max(axis=0) - (view.x, view.y)
        if (low - width / 2 < reach).all() and (high + width / 2 > -reach).all():
            near.append(lane)
    return near


def _draw_road(canvas: pygame.Surface, view: View, road: _Road) -> None:
    """Each layer of all lanes before the next one, so that lanes which cross or meet share their asphalt."""
    lanes = _near(road, view, SHOULDER + 1.0)
    for beyond, colour in ((SHOULDER + 0.5, VERGE), (SHOULDER, ASPHALT)):
        for points, _, _, width in lanes:
            _draw_band(canvas, view, points, -width / 2 - beyond, width / 2 + beyond, colour)
    for polygon in road.paved:
        pygame.draw.polygon(canvas, ASPHALT, view.to_grid(polygon).tolist())
    for points, _, _, width in lanes:
        for centre in (-0.21 * width, 0.21 * width):
            _draw_band(canvas, view, points, centre - 0.3, centre + 0.3, WHEEL_TRACK)
    for lane in lanes:
        _draw_markings(canvas, view, lane)
    for x, y, c, s, length, width in road.bars:
        _draw_band(canvas, view, np.array([[x, y], [x + length * c, y + length * s]]), -width / 2, width / 2, MARKING)


def _draw_markings(canvas: pygame.Surface, view: View, lane: Lane) -> None:
    points, left, right, width = lane
    for style, side in ((left, -width / 2), (right, width / 2)):
        if style != "none":
            edges = side - LINE_WIDTH / 2, side + LINE_WIDTH / 2
            _draw_band(canvas, view, points, *edges, MARKING, dashed=style == "dashed")


def _draw_band(
    canvas: pygame.Surface,
    view: View,
    points: np.ndarray,
    left: float,
    right: float,
    colour: tuple,
    dashed: bool = False,
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
        from_dash = ((before + first) // PERIOD).astype(int)
        count = ((before + last) // PERIOD).astype(int) - from_dash + 1
        owner = np.repeat(np.arange(len(segment)), count)
        dash = from_dash[owner] + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        start = dash * PERIOD - before[owner]
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
