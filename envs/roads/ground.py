"""The ground as the camera reads it: a texture of coverages, filtered beforehand for every size of footprint.

This is the texture of a straight carriageway; `envs.roads.tiles` has that of any network. What both paint is here.

A texel says how much of it is road and how much of the road is painted; colours come later, so that they can differ
from world to world. A pixel near the horizon covers tens of metres along its ray and centimetres across it. A ripmap
(Williams 1983's mipmap, reduced independently along both axes) holds the average over every such power-of-two
rectangle, which is what keeps lane markings from shimmering. The texture repeats along x and is clamped across y.
"""

from dataclasses import dataclass

import numpy as np

from envs.roads.lanes import Lane
from envs.roads.network import Crossing
from envs.roads.parallel import ParallelRoad

TEXEL = 0.125  # m
PERIOD = 16.0  # m: one dash and one gap
DASH = 4.0  # m
LINE_WIDTH = 0.2  # m
SHOULDER = 1.5  # m of asphalt beyond the outer lines
ZEBRA = 0.5  # m: a stripe of a zebra crossing, and a gap
STOP_LINE = 0.4  # m: thickness of a stop line


@dataclass(frozen=True)
class GroundTexture:
    """A ripmap of coverages.

    Attributes:
        texels: all levels as an atlas. Shape: (2 nx, 2 ny, channels) float32: road, paint; level (i, j), of
            nx >> i by ny >> j texels, begins at (2 nx - 2 (nx >> i), 2 ny - 2 (ny >> j)).
        size: texels of level (0, 0) along x and y; powers of two.
        texel: edge of a level-0 texel [m].
        origin: world y of the texture's first row [m]; along x it begins at 0.
    """

    texels: np.ndarray
    size: tuple[int, int]
    texel: float
    origin: float


def ripmap(base: np.ndarray, texel: float, origin: float) -> GroundTexture:
    """Average a texture over every power-of-two rectangle.

    Args:
        base: coverages in [0, 1]. Shape: (nx, ny, channels), nx and ny powers of two.
        texel: edge of a texel [m].
        origin: world y of the first row [m].
    """
    nx, ny = base.shape[:2]
    atlas = np.zeros((2 * nx, 2 * ny, base.shape[2]), dtype=np.float32)
    along = base
    for i in range(nx.bit_length()):
        level, x = along, 2 * nx - 2 * (nx >> i)
        for j in range(ny.bit_length()):
            y = 2 * ny - 2 * (ny >> j)
            atlas[x : x + (nx >> i), y : y + (ny >> j)] = level
            if ny >> j > 1:
                level = (level[:, 0::2] + level[:, 1::2]) / 2
        if nx >> i > 1:
            along = (along[0::2] + along[1::2]) / 2
    return GroundTexture(atlas, (nx, ny), texel, origin)


def _coverage(edges: np.ndarray, low: float, high: float) -> np.ndarray:
    """How much of each cell between consecutive edges lies in [low, high], as a share."""
    inside = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.clip(inside, 0.0, None) / np.diff(edges)


def of_parallel_road(road: ParallelRoad) -> GroundTexture:
    """The texture of a carriageway: asphalt, solid outer lines, dashed lines between lanes."""
    left, right = -road.lane_width / 2, (road.lanes - 0.5) * road.lane_width
    needed = (right - left + 2 * SHOULDER) / TEXEL + 2
    ny = 1 << int(np.ceil(np.log2(needed)))
    nx = int(PERIOD / TEXEL)
    origin = (left + right) / 2 - ny * TEXEL / 2
    x, y = np.arange(nx + 1) * TEXEL, origin + np.arange(ny + 1) * TEXEL
    asphalt = _coverage(y, left - SHOULDER, right + SHOULDER)
    dashes = _coverage(x, 0.0, DASH)
    paint = np.zeros((nx, ny))
    for k in range(road.lanes + 1):
        center = left + k * road.lane_width
        line = _coverage(y, center - LINE_WIDTH / 2, center + LINE_WIDTH / 2)
        solid = k in (0, road.lanes)
        paint += np.outer(np.ones(nx) if solid else dashes, line)
    return ripmap(np.stack((np.broadcast_to(asphalt, (nx, ny)), paint), axis=2), TEXEL, origin)


def zebra_bars(crossing: Crossing) -> np.ndarray:
    """The stripes of a zebra crossing, evenly about its middle; none where it is not painted.

    Returns:
        A row a stripe: x, y of the middle of its first edge [m], cosine and sine of the direction in which people walk,
        its extent in that direction and across [m]. Shape: (stripes, 6).
    """
    start, walk = np.array(crossing.start), np.subtract(crossing.end, crossing.start)
    length = np.hypot(*walk)
    count = int((length / ZEBRA + 1) / 2) if crossing.zebra else 0
    along = walk / length
    at = (length - (2 * count - 1) * ZEBRA) / 2 + 2 * ZEBRA * np.arange(count)
    corner = start + at[:, None] * along
    return np.concatenate((corner, np.broadcast_to((*along, ZEBRA, crossing.width), (count, 4))), axis=1)


def stop_bar(lane: Lane) -> np.ndarray:
    """The stop line across the end of a lane, as `zebra_bars` describes a stripe. Shape: (1, 6)."""
    heading = float(lane.heading_at(lane.length))
    along = np.array([np.cos(heading), np.sin(heading)])
    return np.array([[*(lane.position(lane.length) - STOP_LINE * along), *along, STOP_LINE, lane.width]])
