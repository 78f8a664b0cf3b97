"""A road from above with the places where a policy failed, as inline SVG.

Every failure is in exactly one mark: those of one kind that lie within a few pixels of each other share one. Marks are
small and let others shine through. Where many are close together a disc says how many; a road that is far longer than
wide has columns above it for that, a column the failures on a stretch. Colours and shapes tell kinds apart, each alone
would do; `report.css` has the colours.
"""

import html
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.endings import AT_FAULT, KINDS, MISSED, NO_NUMBERS, OFF_ROAD, OTHER, RED_LIGHT

WIDTH, HEIGHT = 360, 270  # of a picture at most [pixel]
NARROWEST = 84  # pixel across a road that is far longer than what surrounds it is wide
MARGIN = 30.0  # m of road that is shown around the failures at least
CELL = 4  # pixel: failures of a kind that share a square of this size are one mark
LARGEST = 1.8  # times the size of a mark of a single failure
CLUSTER = 17  # pixel around the middle of a cluster
FEWEST, SHARE = 5, 0.06  # failures of a cluster at least, and their share of all
COLUMN, TALLEST = 12, 34  # pixel: width of a column above a long road, and its greatest height
MANY = 100  # marks, from which on they are fainter
APART = 3.0  # pixel between two points of a bend
# The outline of each kind's mark, about 4 pixel around its middle.
SHAPES = {
    AT_FAULT: "M-4-4L4 4M4-4L-4 4",
    OTHER: "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
    RED_LIGHT: "M0-5L4.6 3.4H-4.6Z",
    OFF_ROAD: "M0-5L5 0L0 5L-5 0Z",
    MISSED: "M-3.7-3.7H3.7V3.7H-3.7Z",
    NO_NUMBERS: "M0 5L4.6-3.4H-4.6Z",
}

Lane = tuple[np.ndarray, float]  # centre line [m], shape (P, 2), and width [m]


@dataclass(frozen=True)
class Places:
    """Where a policy failed on a road.

    Attributes:
        pose: x, y [m] and heading [rad]; y grows downwards. Shape: (n, 3), n >= 1.
        kind: of failure, an index into `KINDS`. Shape: (n,).
        shared: True where the reference driver crashed in the same case. Shape: (n,).
        names: of the episodes.
    """

    pose: np.ndarray
    kind: np.ndarray
    shared: np.ndarray
    names: Sequence[str]


def glyph(kind: int, shared: bool = False) -> str:
    """The mark of a kind of failure, for a key."""
    return f'<svg class="glyph" viewBox="-7 -7 14 14" aria-hidden="true">{mark(kind, shared, 0, 0)}</svg>'


def mark(kind: int, shared: bool, x: float, y: float, size: float = 1.0, title: str = "") -> str:
    """A mark at a place in a picture.

    Args:
        kind: of failure, an index into `KINDS`.
        shared: whether the reference driver crashed in the same case.
        x, y: in pixels.
        size: 1 is that of a single failure.
        title: shown where the pointer rests on it.
    """
    words = f"<title>{html.escape(title)}</title>" if title else ""
    shade = "shared" if shared else f"k{kind}"
    scale = f" scale({size:.2f})" if size != 1.0 else ""
    kind_of = "cross" if kind == AT_FAULT else "ring" if kind == OTHER else "solid"
    return (
        f'<g class="mark {shade} {kind_of}" transform="translate({x:.1f} {y:.1f}){scale}">{words}'
        f'<path d="{SHAPES[kind]}"></path></g>'
    )


def road_map(lanes: Sequence[Lane], places: Places, note: str = "") -> str:
    """The part of a road around the places, and these. A road that is far longer than what surrounds it is wide is
    drawn wider than it is.

    Args:
        lanes: of the road.
        places: on it.
        note: stands below it, after the scale.
    """
    low, high = _cut(lanes, places.pose[:, :2])
    extent = high - low
    true = min(WIDTH / extent[0], HEIGHT / extent[1])
    scale = np.maximum(true, NARROWEST / extent)
    size = extent * scale
    left = max(0.0, (WIDTH - float(size[0])) / 2)
    long = scale[1] > 1.01 * scale[0]  # a road in the direction of x, drawn wider than it is
    above = TALLEST + 16 if long and len(places.kind) >= FEWEST else 6
    parts = [f'<svg x="{left:.0f}" width="{size[0]:.0f}" height="{size[1]:.0f}" class="map">']
    parts += [_lane((line - low) * scale, width * float(scale.max()), size) for line, width in lanes]
    parts.append("</svg>")
    at = (places.pose[:, :2] - low) * scale + (left, 0.0)
    marks = _marks(at, places, scale)
    below, numbers = ([], []) if len(at) < FEWEST else (_columns(at[:, 0]), []) if long else _discs(at)
    parts += [*below, *marks, *numbers]
    metres = next(m for m in (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1) if m * true <= size.max() / 3)
    base = size[1] + 15
    words = f"{metres} m, across the road wider" if scale.max() > 1.01 * true else f"{metres} m"
    parts.append(f'<line class="median" x1="0" x2="{metres * true:.1f}" y1="{base:.1f}" y2="{base:.1f}"/>')
    parts.append(f'<text class="faint" x="{metres * true + 7:.1f}" y="{base + 4:.1f}">{words}</text>')
    counts = np.bincount(places.kind, minlength=len(KINDS))
    said = ", ".join(f"{KINDS[kind]} {counts[kind]}" for kind in np.flatnonzero(counts))
    box = f"0 {-above} {max(float(size[0]), WIDTH):.0f} {size[1] + above + 22:.0f}"
    kind = "road many" if len(marks) > 2 * MANY else "road"
    return f'<svg class="{kind}" viewBox="{box}" role="img" aria-label="where it failed: {said}">{"".join(parts)}</svg>'


def _cut(lanes: Sequence[Lane], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the part of the plane to be shown: the places and what is around them, in the shape of the picture as
    far as there is a road."""
    points = np.concatenate([line for line, _ in lanes])
    margin = 0.5 * max(width for _, width in lanes) + 1.0
    low, high = places.min(0), places.max(0)
    room = high - low + 2 * MARGIN
    room = np.maximum(room, np.array([WIDTH, HEIGHT]) * (room / (WIDTH, HEIGHT)).max())
    middle = (low + high) / 2
    shown = np.maximum(points.min(0) - margin, middle - room / 2), np.minimum(points.max(0) + margin, middle + room / 2)
    # Who left the road is shown too.
    return np.minimum(shown[0], low - 3.0), np.maximum(shown[1], high + 3.0)


def _lane(line: np.ndarray, width: float, size: np.ndarray) -> str:
    """A lane in pixels; nothing if it is outside the picture."""
    if (line.max(0) < -width).any() or (line.min(0) > size + width).any():
        return ""
    kept = [line[0]]
    for point in line[1:-1]:
        if math.dist(point, kept[-1]) >= APART:
            kept.append(point)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*kept, line[-1]])
    return f'<polyline class="lane" stroke-width="{max(1.5, 0.92 * width):.1f}" points="{points}"></polyline>'


def _columns(x: np.ndarray) -> list[str]:
    """How many failures there are on each stretch of a long road, and the number of the most."""
    counts = np.bincount((x / COLUMN).astype(int))
    most = int(counts.argmax())
    parts = [
        f'<rect class="column" x="{k * COLUMN + 0.5}" width="{COLUMN - 1}" y="{-4 - tall:.1f}" height="{tall:.1f}"/>'
        for k, tall in enumerate(TALLEST * counts / counts[most])
        if tall
    ]
    at = f'x="{(most + 0.5) * COLUMN}" y="{-TALLEST - 7}" text-anchor="middle"'
    return [*parts, f'<text class="count" {at}>{counts[most]}</text>']


def _discs(at: np.ndarray) -> tuple[list[str], list[str]]:
    """A disc for each cluster of failures, and their numbers: round the place with the most others near it, and so on
    among those that are left."""
    fewest = max(FEWEST, SHARE * len(at))
    cells, which, counts = np.unique(np.floor(at / CELL), axis=0, return_inverse=True, return_counts=True)
    spots = np.stack([np.bincount(which.ravel(), part, len(cells)) for part in at.T], 1) / counts[:, None]
    discs, numbers = [], []
    while counts.sum() >= fewest:
        near = np.stack([np.hypot(*(spots - spot).T) <= CLUSTER for spot in spots])
        members = near[(near @ counts).argmax()]
        total = int(counts[members].sum())
        if total < fewest:
            break
        x, y = np.average(spots[members], axis=0, weights=counts[members])
        radius = float(np.hypot(*(spots[members] - (x, y)).T).max()) + 7.0
        discs.append(f'<circle class="cluster" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
        numbers.append(f'<text class="count" x="{x + 0.72 * radius:.1f}" y="{y - 0.72 * radius:.1f}">{total}</text>')
        spots, counts = spots[~members], counts[~members]
    return discs, numbers


def _marks(at: np.ndarray, places: Places, scale: np.ndarray) -> list[str]:
    """The marks, frequent kinds and large marks below."""
    groups = defaultdict(list)
    for k, cell in enumerate(np.floor(at / CELL).astype(int).tolist()):
        groups[int(places.kind[k]), bool(places.shared[k]), *cell].append(k)
    tails, drawn = [], []
    often = np.bincount(places.kind)
    for (kind, shared, *_), members in sorted(groups.items(), key=lambda group: (-often[group[0][0]], -len(group[1]))):
        x, y = at[members].mean(0)
        heading = places.pose[members, 2]
        size = min(LARGEST, len(members) ** 0.25)
        back = -np.stack([np.cos(heading), np.sin(heading)], 1).mean(0) * scale
        back *= (5.0 + 4.0 * size) / max(float(np.hypot(*back)), 1e-9)
        shade = "shared" if shared else f"k{kind}"
        tails.append(
            f'<line class="tail {shade}" x1="{x:.1f}" y1="{y:.1f}" x2="{x + back[0]:.1f}" y2="{y + back[1]:.1f}"/>'
        )
        names = ", ".join(places.names[k] for k in members)
        drawn.append(mark(kind, shared, x, y, size, f"{KINDS[kind]}: {names}"))
    return tails + drawn
