from dataclasses import replace

import numpy as np
import pygame
import pytest

import envs
from envs.form_shapes import GOAL, LIT_AMBER, LIT_GREEN, LIT_RED, ORANGE
from envs.render import draw, draw_frame
from envs.roads import signals
from envs.roads.lanes import straight
from envs.roads.network import Crossing, RoadNetwork
from envs.roads.signals import Signal
from envs.scene import LOOK_AHEAD, Scene, View, interpolate, of_road
from envs.state import FORMS
from envs.vehicle_shapes import EGO

WIDTH, HEIGHT, ZOOM = 600, 300, 10.0
GREEN = (30, 200, 40)


def scene(**changes) -> Scene:
    """The ego at x = 50 m in the upper one of two lanes, a car 20 m ahead of it in the lower one."""
    end = 1000.0
    lanes = (
        (np.array([[0.0, 0.0], [end, 0.0]]), "solid", "dashed", 4.0),
        (np.array([[0.0, 4.0], [end, 4.0]]), "none", "solid", 4.0),
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


def test_lanes_have_their_own_width_and_crossings_their_stripes():
    network = RoadNetwork()
    network.add_lane("a", "b", straight((0.0, 0.0), (100.0, 0.0), width=3.0, lines=("solid", "solid")))
    network.add_lane("c", "d", straight((60.0, 40.0), (60.0, 5.0), width=6.0, lines=("none", "solid")))
    network.crossings.append(Crossing((45.0, -2.0), (45.0, 2.5), width=3.0))
    network.stop_lines.append(("c", "d", 0))
    lone = {"present": np.array([False, False]), "lane": np.array([0, 1])}
    picture = pixels(scene(**lone, **of_road(network)))

    def bright(x: float, y: float) -> bool:
        return picture[place(x, y)].min() > 180

    # Edges of lanes 3 m and 6 m wide; the stop line in the last 0.4 m of the second one.
    assert bright(55.0, -1.5) and bright(55.0, 1.5) and not bright(55.0, 2.0)
    assert bright(63.0, 12.0) and not bright(57.0, 12.0) and not bright(62.0, 12.0)
    assert bright(58.0, 5.2) and bright(62.0, 5.2) and not bright(60.0, 6.0)
    # Stripes of 0.5 m, 0.5 m apart, 3 m long.
    stripes = [bright(45.0, y) for y in np.arange(-1.75, 2.5, 0.5)]
    assert stripes == [True, False] * 4 + [True]
    assert bright(43.8, 0.25) and not bright(43.2, 0.25)


def test_a_scene_knows_a_lanes_place_on_its_road():
    network = RoadNetwork()
    for road, count in ((("a", "b"), 1), (("b", "c"), 3)):
        for k in range(count):
            network.add_lane(*road, straight((0.0, 4.0 * k), (100.0, 4.0 * k)))
    assert of_road(network)["roads"] == ((0, 1), (0, 3), (1, 3), (2, 3))
    frame = draw_frame(scene(lane=np.array([2, 0]), **of_road(network)), 1000, 320)
    other = draw_frame(scene(lane=np.array([1, 0]), **of_road(network)), 1000, 320)
    assert (frame != other)[:, 700:].any()


def alike(picture: np.ndarray, colour: tuple, tolerance: int = 30) -> np.ndarray:
    """Which pixels have a colour. Shape: (height, width)."""
    return np.abs(picture - np.array(colour)).max(axis=-1) <= tolerance


@pytest.mark.parametrize("form", FORMS[:-1])
def test_every_form_is_as_large_as_its_box(form):
    length, width = {"person": (1.0, 1.0), "barrier": (0.6, 3.0)}.get(form, (4.0, 1.6))
    box = {"length": np.array([5.0, length]), "width": np.array([2.0, width])}
    shapes = {"form": np.array([0, FORMS.index(form)])}
    empty = pixels(scene(**box, **shapes, present=np.array([True, False])))
    rows, columns = np.nonzero((pixels(scene(**box, **shapes)) != empty).any(axis=-1))
    for found, extent in ((columns, length), (rows, width)):
        # Shadows and lamps reach a little farther than the box.
        assert extent - 0.5 < (np.ptp(found) + 1) / ZOOM < extent + 0.9


def test_forms_look_different_from_each_other():
    pictures = [pixels(scene(form=np.array([0, k]))) for k in range(len(FORMS))]
    for a in range(len(FORMS)):
        for b in range(a):
            assert (pictures[a] != pictures[b]).any(axis=-1).sum() > 100, (FORMS[a], FORMS[b])
    assert np.array_equal(pictures[0], pixels(scene()))  # cars as ever
    cone = scene(form=np.array([0, FORMS.index("cone")]), length=np.full(2, 1.0), width=np.full(2, 1.0))
    assert alike(pixels(cone), ORANGE).any()


def test_a_goal_is_an_outline_under_the_ego():
    goal = {"form": np.array([0, FORMS.index("ground marking")])}
    picture = pixels(scene(**goal))
    for dx, dy in ((2.5, 0.0), (-2.5, 0.0), (0.0, 1.0), (0.0, -1.0)):
        assert alike(picture, GOAL)[place(70.0 + dx, 4.0 + dy)]
    assert not alike(picture, GOAL)[place(70.0, 4.0)]
    reached = pixels(scene(**goal, x=np.array([50.0, 50.0]), y=np.zeros(2)))
    assert np.abs(reached[place(50.0, 0.0)] - EGO).max() < 25


def test_signals_show_their_state_where_they_stand():
    heads = np.array(
        [[60.0 + 4 * k, 7.0, 0.0, state, 0.0] for k, state in enumerate((signals.RED, signals.AMBER, signals.GREEN))]
    )
    picture = pixels(scene(signals=heads))
    for (x, y, *_), colour in zip(heads, (LIT_RED, LIT_AMBER, LIT_GREEN), strict=True):
        assert np.abs(picture[place(x, y)] - colour).max() < 30
    # An arrow for traffic along +x points to -y, its left.
    arrow = alike(pixels(scene(signals=np.array([[60.0, 7.0, 0.0, signals.GREEN, 1.0]]))), LIT_GREEN)
    widths = arrow.sum(axis=1)[arrow.any(axis=1)]
    assert widths[0] < 5 and widths.max() > 8


def test_paved_ground_is_asphalt():
    polygon = np.array([[60.0, 9.0], [70.0, 9.0], [70.0, 13.0], [60.0, 13.0]])
    plain, paved = pixels(scene()), pixels(scene(paved=(polygon,)))
    assert np.abs(paved[place(65.0, 11.0)] - plain[place(60.0, 1.0)]).max() < 12
    assert np.array_equal(paved[place(65.0, 14.0)], plain[place(65.0, 14.0)])


def test_a_scene_holds_forms_goals_and_signals_of_its_world():
    env = envs.make_vec("parking", 1, device="cpu", observation="state")
    env.reset()
    env.road.signals.append(Signal((("a", "b", 0),), (3.0, 4.0), 0.5, arrow=True))
    env.state.signal[0, 0] = signals.GREEN
    shown = Scene.of(env)
    env.close()
    assert (shown.form == FORMS.index("ground marking")).sum() == 1
    assert shown.signals.tolist() == [[3.0, 4.0, 0.5, signals.GREEN, 1.0]]
