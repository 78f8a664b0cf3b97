"""The map of failures: each failure is on it once, where it happened, and can be told from the others."""

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluation
from evaluation.endings import AT_FAULT, KINDS
from evaluation.road_map import CELL, HEIGHT, SHAPES, WIDTH, Places, road_map

STRAIGHT = [(np.array([[0.0, y], [1000.0, y]]), 4.0) for y in (0.0, 4.0, 8.0)]
CROSS = [(np.array([[-100.0, 0.0], [100.0, 0.0]]), 4.0), (np.array([[0.0, -100.0], [0.0, 100.0]]), 4.0)]
MARK = re.compile(r'<g class="mark (\w+) \w+" transform="translate\(([-\d.]+) ([-\d.]+)\)[^>]*><title>([^<]+)</title>')


def marks(picture: str) -> list[tuple[str, np.ndarray, list[int]]]:
    """Class, place in pixels and episodes of every mark."""
    found = []
    for shade, x, y, title in MARK.findall(picture):
        found.append((shade, np.array([float(x), float(y)]), [int(k) for k in re.findall(r"episode (\d+)", title)]))
    return found


def places(pose, kind) -> Places:
    pose = np.asarray(pose, dtype=float)
    return Places(pose, np.asarray(kind), np.zeros(len(pose), bool), [f"episode {k}" for k in range(len(pose))])


def metres_a_pixel(picture: str) -> float:
    """By the scale below the picture."""
    bar, metres = re.search(r'class="median" x1="0" x2="([\d.]+)".*?>(\d+) m', picture).groups()
    return float(metres) / float(bar)


drawn = st.lists(
    st.tuples(st.floats(-99, 99), st.booleans(), st.sampled_from(range(len(KINDS)))), min_size=1, max_size=80
)


@settings(max_examples=40)
@given(drawn)
def test_every_failure_is_on_the_map_once_where_it_happened(entries):
    pose = [(along, 0.0, 0.0) if east else (0.0, along, -1.5) for along, east, _ in entries]
    kinds = [kind for *_, kind in entries]
    picture = road_map(CROSS, places(pose, kinds))
    found = marks(picture)
    assert Counter(k for *_, episodes in found for k in episodes) == Counter(range(len(entries)))
    scale = metres_a_pixel(picture)
    _, first, (reference, *_) = found[0]
    for shade, at, episodes in found:
        assert {f"k{kinds[k]}" for k in episodes} == {shade}
        for k in episodes:
            # As far from another failure as on the road, but for marks that are shared within a few pixels.
            apart = scale * (at - first) - (np.array(pose[k]) - pose[reference])[:2]
            assert np.abs(apart).max() <= scale * (2 * CELL + 0.2) * 1.02
    assert sum(int(number) for number in re.findall(r'class="count"[^>]*>(\d+)<', picture)) <= len(entries)


def test_a_failure_by_itself_is_exact():
    pose = [(10.0, 4.0, 0.0), (400.0, 4.0, 0.0), (760.0, 4.0, 0.0)]
    picture = road_map(STRAIGHT, places(pose, [AT_FAULT] * 3))
    x = [at[0] for _, at, _ in sorted(marks(picture), key=lambda mark: mark[1][0])]
    assert np.diff(x) * metres_a_pixel(picture) == pytest.approx([390.0, 360.0], rel=0.005)
    assert "across the road wider" in picture


def test_numbers_are_those_of_clusters():
    at_one_place = [(5.0 + 0.1 * k, 0.0, 0.0) for k in range(30)]
    picture = road_map(CROSS, places([*at_one_place, (0.0, -80.0, 1.57)], [AT_FAULT] * 31))
    assert re.findall(r'class="count"[^>]*>(\d+)<', picture) == ["30"] and picture.count('class="cluster"') == 1
    # On a long road columns count them: 12 pixels each, the tallest with its number.
    rng = np.random.default_rng(0)
    along = np.concatenate([rng.uniform(0, 1000, 40), rng.uniform(500, 505, 25)])
    long = road_map(STRAIGHT, places([(x, 4.0, 0.0) for x in along], [AT_FAULT] * 65))
    columns = [tuple(map(float, c)) for c in re.findall(r'class="column" x="([\d.]+)".*?height="([\d.]+)"', long)]
    (most,) = re.findall(r'class="count"[^>]*>(\d+)<', long)
    assert 25 <= int(most) <= 30 and "cluster" not in long
    assert sum(tall for _, tall in columns) / max(tall for _, tall in columns) == pytest.approx(
        65 / int(most), rel=0.02
    )


@pytest.mark.parametrize("size", [(1000.0, 12.0), (12.0, 1000.0), (300.0, 300.0)], ids=["wide", "tall", "square"])
def test_maps_stay_in_their_frame(size):
    line = np.array([[0.0, 0.0], size])
    outside = (size[0] + 9.0, size[1] + 9.0, 0.0)  # beside the road
    for pose in ([(*size, 0.0)], [(0.0, 0.0, 0.0), outside]):
        picture = road_map([(line, 4.0)], places(pose, [AT_FAULT] * len(pose)))
        left, top, width, height = map(float, re.search(r'viewBox="([^"]+)"', picture)[1].split())
        assert width == WIDTH and top + height <= HEIGHT + 30
        for _, (x, y), _ in marks(picture):
            assert left <= x <= width and top <= y <= top + height
        assert "nan" not in picture and "inf" not in picture


def test_names_are_escaped():
    pose, kind = np.zeros((1, 3)), np.array([0])
    picture = road_map(CROSS, Places(pose, kind, np.array([False]), ["<b>"]))
    assert "&lt;b&gt;" in picture and "<b>" not in picture


# --- colours ----------------------------------------------------------------------------------------------------------

# Linear RGB as seen without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1.
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]
    ],
}  # fmt: skip


def schemes() -> dict[str, dict[str, np.ndarray]]:
    """The colours of the page in linear RGB, light and dark."""
    style = (Path(evaluation.__file__).parent / "report.css").read_text()
    found: dict[str, dict[str, np.ndarray]] = {}
    colours: dict[str, np.ndarray] = {}
    for name, block in zip(("light", "dark"), re.findall(r":root \{(.*?)\}", style, re.S), strict=True):
        for key, digits in re.findall(r"--([\w-]+): #(\w{6})", block):
            share = np.array([int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)])
            colours[key] = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        found[name] = dict(colours)
    return found


def lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear.clip(0, 1)
    f = np.cbrt(xyz / (0.9505, 1.0, 1.089))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_kinds_are_told_apart_by_everybody(scheme):
    colours = schemes()[scheme]
    kinds = [colours[f"k{kind}"] for kind in range(len(KINDS))] + [colours["shared"]]
    for name, seen_as in SIGHT.items():
        seen = [lab(np.array(seen_as) @ colour) for colour in kinds]
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert nearest > 20, name  # CIE76; 2.3 can just be noticed
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for colour, ground in itertools.product(kinds, ("asphalt", "card")):
        low, high = sorted((luminance @ colour, luminance @ colours[ground]))
        assert (high + 0.05) / (low + 0.05) >= 3.0  # WCAG 2.1, 1.4.11
    assert len(set(SHAPES.values())) == len(KINDS)
