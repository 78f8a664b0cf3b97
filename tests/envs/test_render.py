from dataclasses import replace

import numpy as np
import pygame
import pytest

from envs.render import draw, draw_frame
from envs.scene import LOOK_AHEAD, Scene, View, interpolate
from envs.vehicle_shapes import EGO

WIDTH, HEIGHT, ZOOM = 600, 300, 10.0
GREEN = (30, 200, 40)


def scene(**changes) -> Scene:
    """The ego at x = 50 m in the upper one of two lanes, a car 20 m ahead of it in the lower one."""
    end = 1000.0
    lanes = (
        (np.array([[0.0, 0.0], [end, 0.0]]), "solid", "dashed"),
        (np.array([[0.0, 4.0], [end, 4.0]]), "none", "solid"),
    )
    values = {
        "x": np.array([50.0, 70.0]),
        "y": np.array([0.0, 4.0]),
        "heading": np.zeros(2),
        "speed": np.array([25.0, 20.0]),
        "acceleration": np.zeros(2),
        "lane": np.array([0, 1]),
        "target_lane": np.array([0, 1]),
        "crashed": np.zeros(2, dtype=bool),
        "present": np.ones(2, dtype=bool),
        "length": np.full(2, 5.0),
        "width": np.full(2, 2.0),
        "lanes": lanes,
        "paint": np.array([(0, 0, 0), GREEN]),
    }
    return Scene(**values | changes)


def pixels(shown: Scene, zoom: float = ZOOM) -> np.ndarray:
    """Shape: (height, width, 3), signed, so that colours can be subtracted."""
    return pygame.surfarray.array3d(draw(shown, WIDTH, HEIGHT, zoom)).swapaxes(0, 1).astype(int)


def place(x: float, y: float) -> tuple[int, int]:
    """Row and column of a point when the ego is at (50, 0): it stands left of the middle."""
    return int(HEIGHT / 2 + ZOOM * y), int((0.5 - LOOK_AHEAD) * WIDTH + ZOOM * (x - 50.0))


def test_drawing_is_deterministic_and_leaves_no_trace():
    first = pixels(scene())
    pixels(scene(x=np.array([80.0, 90.0])), zoom=4.0)
    assert np.array_equal(first, pixels(scene()))


def test_vehicles_are_where_they_should_be():
    picture = pixels(scene())
    assert np.abs(picture[place(50.0, 0.0)] - EGO).max() < 25
    green = picture[place(70.0, 4.0)]
    assert green[1] > green[0] + 80 and green[1] > green[2] + 80
    # The two boxes, 5 m x 2 m, and nothing beyond what their lamps and shadows reach.
    changed = np.abs(picture - pixels(scene(present=np.array([False, False])))).sum(-1) > 0
    for x, y in ((50.0, 0.0), (70.0, 4.0)):
        for dx, dy in ((2.2, 0.8), (-2.2, 0.8), (2.2, -0.8), (-2.2, -0.8)):
            assert changed[place(x + dx, y + dy)]
    rows, columns = np.nonzero(changed)
    assert rows.min() >= place(0, -2.7)[0] and rows.max() <= place(0, 6.7)[0]
    assert columns.min() >= place(45.8, 0)[1] and columns.max() <= place(74.2, 0)[1]


def test_an_absent_vehicle_is_not_drawn():
    empty = pixels(scene(present=np.array([True, False])))
    assert np.array_equal(empty[place(70.0, 4.0)], empty[place(66.0, 4.0)])


@pytest.mark.parametrize("x", [50.0, 123.0, 800.3])
def test_dashes_stay_on_the_ground_while_the_ego_moves(x):
    picture = pixels(scene(x=np.array([x, x + 20.0])))
    start = 16.0 * np.ceil((x + 4.0) / 16.0)  # of a dash ahead of the ego; dashes are 4 m long, one every 16 m
    for offset, bright in ((2.0, True), (10.0, False)):
        row, column = place(50.0 + start + offset - x, 2.0)
        assert (picture[row - 2 : row + 3, column].max() > 180) == bright


def test_lamps_of_a_braking_and_marks_of_a_crashed_vehicle():
    def red(shown: Scene) -> int:
        picture = pixels(shown)
        return int(((picture[..., 0] > 200) & (picture[..., 1] < 110) & (picture[..., 2] < 110)).sum())

    assert red(scene()) == 0
    assert red(scene(acceleration=np.array([0.0, -3.0]))) > 0
    assert red(scene(crashed=np.array([True, False]))) > 50


def test_the_view_follows_a_turned_ego():
    view = View.following(scene(heading=np.array([np.pi / 2, 0.0])), WIDTH, HEIGHT, ZOOM)
    # It drives down the picture, so it stands above the middle.
    assert view.to_pixels((50.0, 0.0)) == pytest.approx((WIDTH / 2, (0.5 - LOOK_AHEAD) * HEIGHT))
    assert view.to_metres(view.to_pixels((12.0, 34.0))) == pytest.approx((12.0, 34.0))


def test_interpolation_is_linear_and_turns_the_shorter_way():
    a = scene(heading=np.array([np.pi - 0.1, 0.0]), present=np.array([True, False]))
    b = scene(x=np.array([52.0, 99.0]), heading=np.array([-np.pi + 0.3, 0.4]), time=1.0)
    middle = interpolate(a, b, 0.25)
    assert middle.x[0] == pytest.approx(50.5) and middle.time == pytest.approx(0.25)
    assert middle.heading[0] == pytest.approx(np.pi)
    assert middle.x[1] == a.x[1]  # it has no place to come from
    assert interpolate(b, a, 0.75).heading[0] % (2 * np.pi) == pytest.approx(np.pi)


def test_a_frame_holds_the_camera_image():
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[...] = (250, 0, 250)
    frame = draw_frame(replace(scene(), camera=image, caption="a caption"), 1000, 320)
    assert frame.shape == (320, 1000, 3) and frame.dtype == np.uint8
    rows, columns = np.nonzero((np.abs(frame.astype(int) - image[0, 0]) < 4).all(-1))
    assert columns.min() >= 700 and (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(96 / 64, rel=0.02)


def test_float32_scenes_of_recordings_are_drawn():
    shown = scene()
    single = replace(
        shown, **{n: getattr(shown, n).astype(np.float32) for n in ("x", "y", "heading", "length", "width")}
    )
    differing = (pixels(single) != pixels(shown)).any(-1)
    assert differing.mean() < 0.001
