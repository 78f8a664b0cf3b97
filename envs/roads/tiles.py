"""The ground of road networks: square tiles of coverages, of which all maps share those that look the same.

A map is a grid of tiles, each of which is a number into an atlas. Most of a map is grass and straight road, and maps
built on a lattice of whole tiles repeat each other's junctions: what a tile shows is known from the lanes that touch
it, relative to its corner, and only tiles that show something new are drawn. Tile 0 is bare terrain.

A tile holds the averages over every power-of-two rectangle of its texels, see `envs.roads.ground.GroundTexture`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from envs.errors import UserError
from envs.roads.ground import DASH, LINE_WIDTH, PERIOD, SHOULDER, TEXEL, ripmap, stop_bar, zebra_bars
from envs.roads.lanes import CIRCULAR, POLYLINE, SINE, STRAIGHT, Lane
from envs.roads.network import RoadNetwork

TILE = 32.0  # m: edge of a tile, a multiple of PERIOD, so that dashes repeat from tile to tile
TEXELS = 256  # along an edge
TEXELS_OF_TILE = 4 * TEXELS**2
MAX_TILES = 2**31 // TEXELS_OF_TILE  # kernels count texels in 32 bits
SPACING = 2.0  # m between the points that say which tiles a lane touches
REACH = TILE / math.sqrt(2) + 1.0  # m from a tile's middle; what lies farther off does not touch it
DECIMALS = 6  # of what tells tiles apart, in m

# Everything drawn so far, by what it shows. Shape: (TEXELS_OF_TILE, 2) each.
_drawn: dict[tuple, np.ndarray] = {}


@dataclass(frozen=True)
class GroundTiles:
    """The ground of several maps.

    Attributes:
        texels: shares of road, and of paint on it, of 255; of each tile those of a `GroundTexture`.
            Shape: (tiles, TEXELS_OF_TILE, 2) uint8.
        index: the tiles of all maps, map by map, row by row in y. Shape: (cells,) int32.
        corner: where each map's first tile begins [m]. Shape: (maps, 2).
        columns, rows: tiles of each map along x and y. Shape: (maps,) int32.
        first: where each map begins in `index`. Shape: (maps,) int32.
    """

    texels: np.ndarray
    index: np.ndarray
    corner: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    first: np.ndarray


def of_networks(networks: list[RoadNetwork]) -> GroundTiles:
    """The ground of maps, map by map. What the process has drawn before is not drawn again.

    Raises:
        UserError: maps with more different tiles than an atlas holds.
    """
    numbers: dict[tuple, int] = {(): 0}
    grids, corners = [], []
    for network in networks:
        cells = _cells(network)
        places = np.array(list(cells))
        low, high = places.min(axis=0), places.max(axis=0)
        grid = np.zeros((high - low + 1)[::-1], dtype=np.int32)
        for (column, row), (lanes, bars) in cells.items():
            key = (*sorted(_lane_key(lane) for lane in lanes), *sorted(_rounded(bar) for bar in bars))
            if key not in _drawn:
                averages = ripmap(_draw(lanes, bars), TEXEL, 0.0).texels
                _drawn[key] = np.rint(255 * averages).astype(np.uint8).reshape(-1, 2)
            grid[row - low[1], column - low[0]] = numbers.setdefault(key, len(numbers))
        if len(numbers) >= MAX_TILES:
            raise UserError(f"the maps have {MAX_TILES} different tiles of ground or more: use fewer or smaller maps")
        grids.append(grid)
        corners.append(low * TILE)
    sizes = [grid.size for grid in grids]
    return GroundTiles(
        np.stack([_drawn[key] if key else np.zeros((TEXELS_OF_TILE, 2), dtype=np.uint8) for key in numbers]),
        np.concatenate([grid.ravel() for grid in grids]),
        np.array(corners),
        np.array([grid.shape[1] for grid in grids], dtype=np.int32),
        np.array([grid.shape[0] for grid in grids], dtype=np.int32),
        np.cumsum([0, *sizes[:-1]], dtype=np.int32),
    )


# --- which tiles show what --------------------------------------------------------------------------------------------


def _cells(network: RoadNetwork) -> dict[tuple[int, int], tuple[list[Lane], list[np.ndarray]]]:
    """Column and row of every tile that something touches -> the lanes and the bars there, relative to its corner."""
    cells: dict[tuple[int, int], tuple[list[Lane], list[np.ndarray]]] = {}
    for lane in [*network.lanes, *network.paved]:
        points = lane.position(np.linspace(0.0, lane.length, math.ceil(lane.length / SPACING) + 1))
        for place in _touched(points, _half_asphalt(lane) + SPACING / 2):
            piece = _piece(lane, np.multiply(place, TILE))
            if piece is not None:
                cells.setdefault(place, ([], []))[0].append(piece)
    bars = [zebra_bars(crossing) for crossing in network.crossings]
    bars += [stop_bar(network.lane(index)) for index in network.stop_lines]
    for bar in np.concatenate(bars) if bars else ():
        x, y, c, s, length, width = bar
        points = (x, y) + np.linspace(0.0, length, math.ceil(length / SPACING) + 1)[:, None] * (c, s)
        for place in _touched(points, width / 2 + SPACING / 2):
            relative = bar - (*np.multiply(place, TILE), 0, 0, 0, 0)
            cells.setdefault(place, ([], []))[1].append(relative)
    return cells


def _touched(points: np.ndarray, reach: float) -> list[tuple[int, int]]:
    """Columns and rows of the tiles that lie within `reach` of any of the points, along x and y; in order."""
    offsets = np.linspace(-reach, reach, int(2 * reach / TILE) + 2)
    shifts = np.stack(np.meshgrid(offsets, offsets), axis=-1).reshape(-1, 1, 2)
    places = np.floor((points + shifts) / TILE).astype(int).reshape(-1, 2)
    return sorted({(column, row) for column, row in places.tolist()})


def _half_asphalt(lane: Lane) -> float:
    widest = lane.width if lane.kind != POLYLINE else float(lane.samples[:, 4].max())
    return widest / 2 + SHOULDER


def _piece(lane: Lane, corner: np.ndarray) -> Lane | None:
    """The part of a lane that a tile shows, relative to its corner; None where it ends before the tile.

    Straight lanes are cut a whole number of dash periods from their start, out of the tile's sight: tiles along a
    straight road then have equal pieces.
    """
    if lane.kind == POLYLINE:
        return _polyline_piece(lane, corner)
    x, y, *rest = lane.parameters
    x, y = x - corner[0], y - corner[1]
    if lane.kind != STRAIGHT:
        return replace(lane, parameters=(x, y, *rest))
    c, s = rest[:2]
    along = (TILE / 2 - x) * c + (TILE / 2 - y) * s
    first = max(0.0, PERIOD * math.floor((along - REACH) / PERIOD))
    last = min(lane.length, along + REACH)
    if last <= first:
        return None
    return replace(lane, parameters=(x + first * c, y + first * s, c, s), length=last - first)


def _polyline_piece(lane: Lane, corner: np.ndarray) -> Lane | None:
    samples = lane.samples.copy()
    samples[:, :2] -= corner
    near = np.flatnonzero(np.hypot(*(samples[:, :2] - TILE / 2).T) < REACH + _half_asphalt(lane))
    if len(near) == 0:
        return None
    first = int(PERIOD * (near[0] // PERIOD))
    last = near[-1] + 1
    if last >= len(samples) - 1:
        return replace(lane, samples=samples[first:], length=lane.length - first)
    return replace(lane, samples=samples[first : last + 1], length=float(last - first))


def _lane_key(lane: Lane) -> tuple:
    samples = () if lane.samples is None else _rounded(lane.samples.ravel())
    return (lane.kind, lane.lines, *_rounded((*lane.parameters, lane.length, lane.width)), *samples)


def _rounded(values) -> tuple[float, ...]:
    # Adding 0 makes -0 to 0.
    return tuple((np.round(np.asarray(values, dtype=float), DECIMALS) + 0.0).tolist())


# --- drawing a tile ---------------------------------------------------------------------------------------------------


def _draw(lanes: list[Lane], bars: list[np.ndarray]) -> np.ndarray:
    """Shares of road and paint of a tile's texels. Shape: (TEXELS, TEXELS, 2), along x and y."""
    middle = (np.arange(TEXELS) + 0.5) * TEXEL
    x, y = np.meshgrid(middle, middle, indexing="ij")
    road, paint = np.zeros_like(x), np.zeros_like(x)
    for lane in lanes:
        s, r, half = _local(lane, x, y)
        within = _share(s, 0.0, lane.length)
        # Where one lane ends and the next begins, each has a part of the texel.
        road += within * _share(r, -half - SHOULDER, half + SHOULDER)
        for style, edge in zip(lane.lines, (-half, half), strict=True):
            if style != "none":
                along = _dashes(s, lane.length) if style == "dashed" else within
                paint = np.maximum(paint, along * _share(r, edge - LINE_WIDTH / 2, edge + LINE_WIDTH / 2))
    for bar_x, bar_y, c, s, length, width in bars:
        dx, dy = x - bar_x, y - bar_y
        bar = _share(dx * c + dy * s, 0.0, length) * _share(dy * c - dx * s, -width / 2, width / 2)
        paint = np.maximum(paint, bar)
    return np.stack((np.minimum(road, 1.0), paint), axis=2)


def _share(distance: np.ndarray, low, high) -> np.ndarray:
    """How much of a texel lies between two lines, from its middle's distance.

    Exact for lines along x or y. A texel's extent deviates alike in all directions, so others are off by little.
    """
    inside = np.minimum(distance + TEXEL / 2, high) - np.maximum(distance - TEXEL / 2, low)
    return np.clip(inside / TEXEL, 0.0, 1.0)


def _dashes(s: np.ndarray, length: float) -> np.ndarray:
    """How much of a texel lies on the dashes of a line."""

    def painted_before(at: np.ndarray) -> np.ndarray:
        at = np.clip(at, 0.0, length)
        periods = np.floor(at / PERIOD)
        return periods * DASH + np.minimum(at - periods * PERIOD, DASH)

    return (painted_before(s + TEXEL / 2) - painted_before(s - TEXEL / 2)) / TEXEL


def _local(lane: Lane, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
    """Of points: distances along a lane and to the right of its centre line, and half of the lane's width there [m]."""
    if lane.kind == POLYLINE:
        return _local_of_polyline(lane, x, y)
    dx, dy = x - lane.parameters[0], y - lane.parameters[1]
    a, b = lane.parameters[2:4]
    if lane.kind == CIRCULAR:
        direction = lane.parameters[4]
        turn, around = 2 * math.pi * a, direction * (np.arctan2(dy, dx) - b) * a
        # Of the places a turn apart the one closest to the middle of the lane.
        s = around - turn * np.rint((around - lane.length / 2) / turn)
        return s, direction * (a - np.hypot(dx, dy)), lane.width / 2
    s, r = dx * a + dy * b, dy * a - dx * b
    if lane.kind == SINE:
        amplitude, pulsation, phase = lane.parameters[4:7]
        r = r - amplitude * np.sin(pulsation * s + phase)
    return s, r, lane.width / 2


def _local_of_polyline(lane: Lane, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`_local` by the closest of the lane's pieces, each of which is looked at where it may be within reach."""
    reach = _half_asphalt(lane) + 2.0
    closest, s, r = np.full(x.shape, np.inf), np.full(x.shape, -TILE), np.full(x.shape, TILE)
    last = len(lane.samples) - 1
    for k, (px, py, c, d, _) in enumerate(lane.samples):
        low = np.clip((np.array((px, py)) - reach) / TEXEL, 0, TEXELS).astype(int)
        high = np.clip((np.array((px, py)) + reach) / TEXEL + 1, 0, TEXELS).astype(int)
        box = slice(low[0], high[0]), slice(low[1], high[1])
        dx, dy = x[box] - px, y[box] - py
        # The outermost pieces go on a little, which ends the lane squarely.
        ahead = np.clip(dx * c + dy * d, -1.0 if k == 0 else 0.0, lane.length - k + 1.0 if k == last else 1.0)
        away_x, away_y = dx - ahead * c, dy - ahead * d
        distance = np.hypot(away_x, away_y)
        better = distance < closest[box]
        closest[box] = np.where(better, distance, closest[box])
        s[box] = np.where(better, k + ahead, s[box])
        r[box] = np.where(better, np.copysign(distance, away_y * c - away_x * d), r[box])
    return s, r, np.interp(s, np.arange(len(lane.samples)), lane.samples[:, 4]) / 2
