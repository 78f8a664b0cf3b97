"""The tiles of road networks against the areas and intervals that they should cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from envs.roads import tiles
from envs.roads.ground import DASH, LINE_WIDTH, PERIOD, SHOULDER, STOP_LINE, TEXEL, ZEBRA
from envs.roads.lanes import Lane, circular, polyline, sine, straight
from envs.roads.network import Crossing, RoadNetwork
from envs.roads.tiles import TEXELS, TILE, GroundTiles

ROAD, PAINT = 0, 1
coordinate = st.floats(-70, 70)


def network(*lanes: Lane) -> RoadNetwork:
    result = RoadNetwork()
    for lane in lanes:
        result.add_lane("a", "b", lane)
    return result


def full(ground: GroundTiles, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A map's texels at full resolution, as shares. Shape: (nx, ny, 2); and where they begin [m]. Shape: (2,)."""
    columns, rows, first = (int(getattr(ground, name)[number]) for name in ("columns", "rows", "first"))
    index = ground.index[first : first + columns * rows].reshape(rows, columns)
    level = ground.texels.reshape(-1, 2 * TEXELS, 2 * TEXELS, 2)[:, :TEXELS, :TEXELS][index] / 255
    return level.transpose(1, 2, 0, 3, 4).reshape(columns * TEXELS, rows * TEXELS, 2), ground.corner[number]


def overlap(first: float, count: int, low: float, high: float) -> np.ndarray:
    """The share of each of `count` texels from `first` on that lies in [low, high]."""
    edges = first + TEXEL * np.arange(count + 1)
    return np.diff(np.clip(edges, low, high)) / TEXEL


@settings(max_examples=10, deadline=None)
@given(x=coordinate, y=coordinate, length=st.floats(1, 60), width=st.floats(2, 6), back=st.booleans())
def test_a_lane_along_an_axis_covers_what_it_should(x, y, length, width, back):
    start, end = ((x + length, y), (x, y)) if back else ((x, y), (x + length, y))
    texels, corner = full(tiles.of_networks([network(straight(start, end, width=width, lines=("solid", "dashed")))]))
    nx, ny = texels.shape[:2]
    along = overlap(corner[0], nx, x, x + length)
    across = overlap(corner[1], ny, y - width / 2 - SHOULDER, y + width / 2 + SHOULDER)
    np.testing.assert_allclose(texels[..., ROAD], np.outer(along, across), atol=0.003)
    assert texels[..., ROAD].sum() * TEXEL**2 == pytest.approx(length * (width + 2 * SHOULDER), rel=2e-3)
    starts = np.arange(0, length, PERIOD)
    ends = np.minimum(starts + DASH, length)
    starts, ends = (x + length - ends, x + length - starts) if back else (x + starts, x + ends)
    dashes = sum(overlap(corner[0], nx, low, high) for low, high in zip(starts, ends, strict=True))
    left = 1 if back else -1
    paint = np.zeros((nx, ny))
    for line, side in ((along, left), (dashes, -left)):
        middle = y + side * width / 2
        paint += np.outer(line, overlap(corner[1], ny, middle - LINE_WIDTH / 2, middle + LINE_WIDTH / 2))
    np.testing.assert_allclose(texels[..., PAINT], paint, atol=0.003)


@settings(max_examples=8, deadline=None)
@given(
    x=coordinate,
    y=coordinate,
    radius=st.floats(8, 40),
    start=st.floats(-math.pi, math.pi),
    turn=st.floats(0.2, 6.2),
    clockwise=st.booleans(),
)
def test_an_arc_covers_the_area_of_a_ring(x, y, radius, start, turn, clockwise):
    end = start + (turn if clockwise else -turn)
    lane = circular((x, y), radius, start, end, clockwise, width=4.0, lines=("solid", "none"))
    texels, corner = full(tiles.of_networks([network(lane)]))
    half = 2.0 + SHOULDER
    area = turn / 2 * ((radius + half) ** 2 - (radius - half) ** 2)
    assert texels[..., ROAD].sum() * TEXEL**2 == pytest.approx(area, rel=0.01)
    edge = radius + 2.0 if clockwise else radius - 2.0  # the left one: outside where it turns to the right
    assert texels[..., PAINT].sum() * TEXEL**2 == pytest.approx(turn * edge * LINE_WIDTH, rel=0.02)
    # Texels whose middle lies well inside or outside.
    px, py = (corner[k] + TEXEL * (np.arange(texels.shape[k]) + 0.5) for k in (0, 1))
    dx, dy = np.meshgrid(px - x, py - y, indexing="ij")
    distance, phase = np.hypot(dx, dy), (np.arctan2(dy, dx) - min(start, end)) % (2 * math.pi)
    margin = 0.1 / np.maximum(distance, 0.1)
    inside = (phase > margin) & (phase < turn - margin) & (np.abs(distance - radius) < half - 0.1)
    outside = (phase > turn + margin) & (phase < 2 * math.pi - margin) | (np.abs(distance - radius) > half + 0.1)
    assert (texels[inside, ROAD] == 1).all() and (texels[outside, ROAD] == 0).all()
    on_line = inside & (np.abs(distance - edge) < 0.01)
    assert (texels[on_line, PAINT] == 1).all()
    assert (texels[np.abs(distance - edge) > 0.2, PAINT] == 0).all()


def test_a_lane_at_any_angle_has_its_area():
    for angle in np.linspace(0.1, 6, 9):
        end = (50 * math.cos(angle), 50 * math.sin(angle))
        texels, _ = full(tiles.of_networks([network(straight((0, 0), end, lines=("solid", "none")))]))
        assert texels[..., ROAD].sum() * TEXEL**2 == pytest.approx(50 * (4 + 2 * SHOULDER), rel=2e-3)
        assert texels[..., PAINT].sum() * TEXEL**2 == pytest.approx(50 * LINE_WIDTH, rel=0.01)


def test_a_polyline_looks_like_the_curve_that_it_follows():
    lines = ("solid", "dashed")
    arc = circular((3.0, 40.0), 30.0, -2.0, 1.0, lines=lines)
    swing = sine((-50.0, -60.0), (60.0, -40.0), 2.0, 0.08, 0.3, lines=lines)
    for lane in (arc, swing):
        followed = polyline(lane.centre_line(0.1), lines=lines)
        (a, corner), (b, other) = (full(tiles.of_networks([network(shown)])) for shown in (lane, followed))
        np.testing.assert_array_equal(corner, other)
        # A sine's s runs along its axis and its r across it: it is a little narrower, and its dashes longer.
        assert np.abs(a - b)[..., ROAD].sum() < 0.02 * a[..., ROAD].sum()
        assert np.abs(a - b)[..., PAINT].sum() < 0.25 * a[..., PAINT].sum()


def test_lanes_that_follow_each_other_leave_no_gap():
    lanes = [straight((0, 1), (10.06, 1)), straight((10.06, 1), (30, 1)), straight((0, 5), (30, 5))]
    texels, corner = full(tiles.of_networks([network(*lanes)]))
    x, y = (
        ((np.array([0.5, 29.5]) - corner[0]) / TEXEL).astype(int),
        ((np.array([0, 6]) - corner[1]) / TEXEL).astype(int),
    )
    assert (texels[x[0] : x[1], y[0] : y[1], ROAD] == 1).all()


def test_crossings_and_stop_lines_are_painted():
    road = network(straight((0, 0), (60, 0), lines=("none", "none")))
    road.crossings = [Crossing((30.0, -2.0), (30.0, 2.5), 4.0), Crossing((10.0, -2.0), (10.0, 2.0), zebra=False)]
    road.stop_lines = [("a", "b", 0)]
    texels, corner = full(tiles.of_networks([road]))
    paint = texels[..., PAINT]
    at = (np.array([[30, 59.8, 10]]).T - corner[0]) / TEXEL
    zebra, stop, bare = paint[at.astype(int).ravel()]
    # Five stripes of 0.5 m with gaps of 0.5 m fill 4.5 m.
    y = corner[1] + TEXEL * (np.arange(paint.shape[1]) + 0.5)
    np.testing.assert_array_equal(zebra, (y > -2) & (y < 2.5) & ((y + 2) % (2 * ZEBRA) < ZEBRA))
    np.testing.assert_array_equal(stop, np.abs(y) < 2)
    assert not bare.any()
    assert paint.sum() * TEXEL**2 == pytest.approx(5 * ZEBRA * 4 + STOP_LINE * 4, rel=5e-3)


def test_coarse_texels_are_averages():
    ground = tiles.of_networks([network(circular((10, 10), 30, 0, 4, lines=("solid", "dashed")))])
    for tile in ground.texels.reshape(-1, 2 * TEXELS, 2 * TEXELS, 2):
        base = tile[:TEXELS, :TEXELS].astype(float)
        np.testing.assert_allclose(tile[-2, -2], base.mean(axis=(0, 1)), atol=1)
        # Level (3, 1) begins where the larger ones end.
        x, y = 2 * TEXELS - 2 * (TEXELS >> 3), 2 * TEXELS - 2 * (TEXELS >> 1)
        level = tile[x : x + (TEXELS >> 3), y : y + (TEXELS >> 1)]
        np.testing.assert_allclose(level, base.reshape(TEXELS // 8, 8, TEXELS // 2, 2, 2).mean(axis=(1, 3)), atol=1)


def crossroads(x: float, y: float) -> RoadNetwork:
    """Two roads that cross at a point, with a bend between them, a winding way and a zebra crossing."""
    lines = ("solid", "dashed")
    winding = np.stack((x + np.arange(40.0), y + 30 + 5 * np.sin(np.arange(40) / 9)), axis=1)
    result = network(
        straight((x - 90, y + 2), (x + 90, y + 2), lines=lines),
        straight((x + 2, y + 90), (x + 2, y - 90), lines=lines),
        circular((x + 20, y + 20), 18, math.pi, 1.5 * math.pi, lines=lines),
        sine((x - 40, y - 40), (x + 40, y - 30), 2.0, 0.1, 0.5, lines=lines),
        polyline(winding, lines=lines),
    )
    result.crossings.append(Crossing((x - 20, y - 2), (x - 20, y + 6)))
    result.stop_lines.append(("a", "b", 1))
    return result


def test_maps_on_a_lattice_of_tiles_share_them():
    once = tiles.of_networks([crossroads(3.3, 7.7)])
    many = tiles.of_networks([crossroads(3.3 + TILE * a, 7.7 - TILE * b) for a in range(-3, 4) for b in range(-3, 4)])
    assert len(many.texels) == len(once.texels)
    np.testing.assert_array_equal(many.index.reshape(49, -1), np.broadcast_to(once.index, (49, len(once.index))))
    for number in range(49):
        a, b = divmod(number, 7)
        np.testing.assert_array_equal(many.corner[number], once.corner[0] + (TILE * (a - 3), -TILE * (b - 3)))
    # Half a tile farther on everything is new.
    assert len(tiles.of_networks([crossroads(3.3, 7.7), crossroads(19.3, 7.7)]).texels) > 1.5 * len(once.texels)


@pytest.mark.parametrize(("end", "most"), [((9_000, 2.0), 8), ((5.0, -9_000), 8)])
def test_a_long_straight_road_is_few_tiles(end, most):
    start = (5.0, 2.0)
    lanes = [straight(np.add(start, k * 4), np.add(end, k * 4), lines=("dashed", "solid")) for k in range(2)]
    ground = tiles.of_networks([network(*lanes)])
    assert len(ground.texels) <= most and len(ground.index) > 280


def test_maps_stand_one_after_the_other():
    maps = [network(straight((0, 0), (50, 0))), crossroads(0, 0), network(straight((-70, 40), (-70, 300)))]
    together = tiles.of_networks(maps)
    for number, alone in enumerate(tiles.of_networks([shown]) for shown in maps):
        (a, corner), (b, other) = full(together, number), full(alone)
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(corner, other)
    assert not together.texels[0].any()


def test_too_many_different_tiles_are_refused(monkeypatch):
    monkeypatch.setattr(tiles, "MAX_TILES", 4)
    with pytest.raises(UserError, match="4 different tiles"):
        tiles.of_networks([crossroads(0, 0)])
