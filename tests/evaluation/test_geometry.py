import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path

from evaluation.geometry import Boxes, distance, first_contact


def box(x, y, heading=0.0, length=5.0, width=2.0) -> Boxes:
    return Boxes(*(torch.tensor([float(value)], dtype=torch.float64) for value in (x, y, heading, length, width)))


def contact(a: Boxes, b: Boxes, vx: float, vy: float) -> float:
    return float(first_contact(a, b, torch.tensor([vx], dtype=torch.float64), torch.tensor([vy], dtype=torch.float64)))


def test_aligned_boxes():
    assert contact(box(0, 0), box(30, 0), 10, 0) == 2.5
    assert contact(box(0, 0), box(30, 1.9), 10, 0) == 2.5
    assert contact(box(0, 0), box(30, 2.1), 10, 0) == math.inf
    assert contact(box(0, 0), box(-30, 0), 10, 0) == math.inf
    assert contact(box(0, 0), box(3, 1), 10, 0) == 0
    assert contact(box(0, 0), box(3, 1), 0, 0) == 0
    assert contact(box(0, 0), box(30, 0), 0, 0) == math.inf
    # Nearer across than along: the later of the two axes decides.
    assert contact(box(0, 0), box(30, 12), 10, 5) == 2.5


def test_corner_meets_side():
    # A square of 4 m on its corner reaches 2 sqrt(2) towards a box of 5 m without width; 1 m aside it reaches 1 m less.
    square = box(30, 0, math.pi / 4, 4, 4)
    assert math.isclose(contact(box(0, 0, width=0), square, 1, 0), 30 - 2.5 - 2 * math.sqrt(2), rel_tol=1e-12)
    assert math.isclose(contact(box(0, 1, width=0), square, 1, 0), 30 - 2.5 - 2 * math.sqrt(2) + 1, rel_tol=1e-12)


def test_distance():
    assert float(distance(box(0, 0), box(30, 1))) == 25
    assert float(distance(box(0, 0), box(1, 3))) == 1
    assert float(distance(box(0, 0), box(4, 0))) == -1


def corners(b: Boxes, shift=(0.0, 0.0)) -> np.ndarray:
    x, y, heading, length, width = (float(value) for value in b)
    forward, right = np.array([math.cos(heading), math.sin(heading)]), np.array([-math.sin(heading), math.cos(heading)])
    signs = [(1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1)]
    return np.array([(x, y) + np.array(shift) + a * forward * length / 2 + c * right * width / 2 for a, c in signs])


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-20, 20),
    st.floats(-8, 8),
    st.floats(-3.2, 3.2),
    st.floats(-3.2, 3.2),
    st.floats(-15, 15),
    st.floats(-4, 4),
)
def test_contact_agrees_with_polygons_moved_in_small_steps(x, y, heading, other_heading, vx, vy):
    a, b = box(0, 0, heading), box(x, y, other_heading)
    target = Path(corners(b))
    times = np.linspace(0, 4, 401)
    touching = [target.intersects_path(Path(corners(a, (vx * t, vy * t))), filled=True) for t in times]
    found = contact(a, b, vx, vy)
    if any(touching):
        first = times[touching.index(True)]
        assert found <= first + 1e-6
        assert found >= first - 0.01 - 1e-6
    else:
        # Nothing touched at the sampled moments: no contact at all, or one that only grazes between two of them.
        assert found > 4 or not first_contact_lasts(a, b, vx, vy, found)


def first_contact_lasts(a: Boxes, b: Boxes, vx: float, vy: float, at: float) -> bool:
    """True if the boxes still overlap one sample after the contact."""
    later = a._replace(x=a.x + vx * (at + 0.01), y=a.y + vy * (at + 0.01))
    return float(distance(later, b)) < -1e-9
