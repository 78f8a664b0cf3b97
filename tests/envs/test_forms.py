"""What is not a car, as the camera sees it: forms, their classes, signals and goals."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warp as wp

from envs.phases import ALL
from envs.precision import scalar
from envs.roads.lanes import straight
from envs.roads.network import RoadNetwork
from envs.roads.signals import AMBER, GREEN, PERMISSIVE, RED, Signal
from envs.sensors import appearance, rig
from envs.sensors.camera import Camera
from envs.sensors.heads import BOTTOM, LAMP, TOP, WIDTH
from envs.sensors.surfaces import CLASSES
from envs.state import FORMS, LANDMARK, OBSTACLE, WorldState

AHEAD = rig.SURROUND.cameras[0]
SIZES = {
    "car": (5.0, 2.0, 1.5),
    "van": (5.5, 2.0, 2.4),
    "truck": (8.0, 2.5, 3.4),
    "bus": (12.0, 2.5, 3.1),
    "person": (0.4, 0.55, 1.75),
    "cyclist": (1.8, 0.6, 1.75),
    "cone": (0.4, 0.4, 0.75),
    "barrier": (0.4, 2.4, 1.0),
    "debris": (0.8, 1.0, 0.35),
    "wall": (0.5, 12.0, 3.0),
}
LABELS = {"car": "vehicle", "van": "vehicle", "truck": "vehicle", "bus": "vehicle"} | {
    "person": "person", "cyclist": "cyclist", "cone": "obstacle", "barrier": "obstacle", "debris": "obstacle",
    "wall": "obstacle",
}  # fmt: skip
COLOUR = {RED: (255, 36, 28), AMBER: (255, 168, 16), GREEN: (24, 240, 120), PERMISSIVE: (24, 240, 120)}


def thing(form: str, x: float, y: float = 0.0, heading: float = 0.0, kind: int = OBSTACLE) -> dict:
    """A thing whose face is at x where it is not turned, as columns of the state."""
    length, width, height = SIZES.get(form, (5.0, 2.0, 0.0))
    return {"form": FORMS.index(form), "x": x + length / 2, "y": y, "heading": heading, "kind": kind} | {
        "length": length, "width": width, "height": height,
    }  # fmt: skip


def film(worlds: list[list[dict]], signals: list[Signal] = (), shown: list[list[int]] = (), mounted="surround", seed=0):
    """What the camera of an ego at the origin, on an empty plain with a lane along y = -20 m, sees in every world.

    Returns:
        "rgb" (N, H, W, 3) int, "depth" and "semantic" (N, H, W).
    """
    network = RoadNetwork()
    network.add_lane("a", "b", straight((-100.0, -20.0), (100.0, -20.0)))
    network.signals += signals
    n, device = len(worlds), torch.device("cpu")
    state = WorldState(n, 1 + max(map(len, worlds)), device, signals=max(1, len(signals)))
    state.kind[:, 0] = 1
    for w, things in enumerate(worlds):
        for i, columns in enumerate(things, start=1):
            for name, value in columns.items():
                state.tensors[name][w, i] = value
    if len(shown):
        state.signal.copy_(torch.tensor(shown))
    state.world_id.zero_()
    state.cos_heading.copy_(state.heading.cos())
    state.sin_heading.copy_(state.heading.sin())
    simulation = SimpleNamespace(
        state=state,
        maps=[network],
        num_worlds=n,
        device=device,
        seed=torch.full((1,), seed, dtype=torch.int64),
        real=scalar("float32"),
        warp_device=wp.device_from_torch(device),
    )
    camera = Camera(simulation, mounted, frames=1, channels=("rgb", "depth", "semantic"))
    for launch in camera.launches(ALL, restart=True):
        launch.record(simulation.warp_device, 0, n).launch()
    seen = {name: output.numpy() for name, output in camera.outputs.items()}
    return seen | {"rgb": seen["camera"].transpose(0, 2, 3, 1).astype(int)}


def ahead(seen: dict, name: str) -> np.ndarray:
    """The image of the camera that looks ahead."""
    return seen[name][:, : AHEAD.height]


def near(image: np.ndarray, colour: tuple, tolerance: int = 40) -> np.ndarray:
    """Which pixels have a colour."""
    return np.abs(image - colour).max(axis=-1) <= tolerance


# --- forms ------------------------------------------------------------------------------------------------------------


def test_old_classes_keep_their_numbers():
    assert CLASSES[:5] == ("sky", "terrain", "road", "marking", "vehicle")
    assert CLASSES[5:] == ("person", "cyclist", "obstacle", "signal")


@pytest.mark.parametrize("distance", [10.0, 30.0])
def test_every_form_has_its_class_and_is_as_large_as_its_box(distance):
    forms = list(SIZES)
    # Half a pixel to the side, so that columns look along the middles of all of them.
    y = 0.5 / AHEAD.columns_per_unit * distance
    seen = film([[thing(form, distance + AHEAD.forward, y)] for form in forms])
    for k, form in enumerate(forms):
        label = ahead(seen, "semantic")[k]
        mine = label == CLASSES.index(LABELS[form])
        assert not ((label >= CLASSES.index("vehicle")) & ~mine).any(), form
        _, width, height = SIZES[form]
        pixels = distance / AHEAD.columns_per_unit  # m, the side of a pixel there
        rows = AHEAD.horizon + (AHEAD.elevation - np.array([height, 0.0])) / pixels
        assert np.ptp(np.flatnonzero(mine.any(axis=0))) + 1 == pytest.approx(
            min(width / pixels, AHEAD.width), abs=1.01
        ), form
        if form not in ("person", "cyclist", "debris") or distance < 20:
            found = np.flatnonzero(mine.any(axis=1))
            assert found[0] == pytest.approx(max(rows[0], 0), abs=1.5), form
            assert found[-1] == pytest.approx(rows[1] - 1, abs=1.01), form


def test_every_form_has_a_look_of_its_own():
    forms = [form for form in SIZES if form not in ("debris",)]
    # Boxes of one size: what differs is the look.
    same = [thing(form, 12.0) | {"length": 3.0, "width": 2.0, "height": 2.0} for form in forms]
    for turned in (0.0, math.pi / 2):
        images = film([[one | {"heading": turned}] for one in same], mounted="wide")["rgb"]
        for a in range(len(forms)):
            for b in range(a):
                assert (images[a] != images[b]).any(axis=-1).sum() > 300, (forms[a], forms[b])


def test_outlines_let_the_background_be_seen():
    """Beside a cone's tip and beside a head there is what lies behind."""
    forms = ("cone", "person", "barrier")
    seen = film([[thing(form, 6.0), thing("bus", 15.0)] for form in forms], mounted="wide")
    for k, form in enumerate(forms):
        mine = seen["semantic"][k] == CLASSES.index(LABELS[form])
        width = mine.sum(axis=1)[mine.any(axis=1)]
        narrowest, widest = ((0.0, 0.3), (0.3, 0.6), (0.95, 1.05))[k]
        assert narrowest * width[-2] < width[1] < widest * width[-2], form
        above = np.flatnonzero(mine.any(axis=1))[1]
        beside = np.flatnonzero(mine[above])[0] - 2
        assert seen["depth"][k, above, beside] > 8, form


def test_nothing_behind_a_wall_is_seen():
    wall = thing("wall", 12.0)
    behind = [thing(form, 16.0) for form in ("person", "cone", "bus", "cyclist")]
    signals = [Signal((("a", "b", 0),), (30.0, 0.0), 0.0)]
    alone = film([[wall]], signals, [[RED]])
    # A bus is a little higher than the wall, and the signal is not: from behind it neither is seen from 11 m off.
    for one in behind:
        both = film([[wall, one | {"height": min(one["height"], 2.9)}]], signals, [[GREEN]])
        for name in ("rgb", "depth", "semantic"):
            np.testing.assert_array_equal(ahead(both, name), ahead(alone, name))


def test_clothes_differ_and_some_are_dark_and_some_bright():
    shades = []
    for seed in range(40):
        seen = film([[thing("person", 6.0)]], seed=seed, mounted="front")
        mine = seen["semantic"][0] == CLASSES.index("person")
        rows = np.flatnonzero(mine.any(axis=1))
        chest = seen["rgb"][0][rows[int(0.35 * len(rows))]][mine[rows[int(0.35 * len(rows))]]]
        shades.append(chest.mean())
    assert min(shades) < 50 and max(shades) > 140 and len(set(shades)) > 8


# --- signals ----------------------------------------------------------------------------------------------------------


def head(x: float, y: float, heading: float = 0.0, arrow: bool = False) -> Signal:
    return Signal((("a", "b", 0),), (x, y), heading, arrow)


@pytest.mark.parametrize("arrow", [False, True])
@pytest.mark.parametrize("state", [RED, AMBER, GREEN, PERMISSIVE])
def test_a_lit_lamp_at_30_metres_is_two_pixels_or_more(state, arrow):
    """In the default rig, wherever between two columns and two rows it falls."""
    for distance, y in zip(np.linspace(29.5, 30.0, 12), np.linspace(2.0, 2.4, 12), strict=True):
        signals = [head(distance + AHEAD.forward, y, arrow=arrow)]
        image = ahead(film([[]], signals, [[state]]), "rgb")[0]
        lit = [near(image, COLOUR[s]).sum() for s in (RED, AMBER, GREEN)]
        shown = min(state, GREEN)
        assert lit[shown] >= 2, (distance, y)
        assert sum(lit) == lit[shown]


def test_lamps_are_where_they_are_in_a_signal():
    """Red above amber above green, of the size and at the height that the module tells."""
    camera = rig.WIDE.cameras[0]
    image = film([[]] * 3, [head(21.0, 0.0)], [[RED], [AMBER], [GREEN]], mounted="wide")
    pixel = 20.0 / camera.columns_per_unit
    for state, low in ((RED, BOTTOM + 2 * LAMP), (AMBER, BOTTOM + LAMP), (GREEN, BOTTOM)):
        rows, columns = np.nonzero(near(image["rgb"][state], COLOUR[state]))
        top, foot = camera.horizon + (camera.elevation - np.array([low + LAMP, low])) / pixel
        assert rows.min() == pytest.approx(top, abs=1.6) and rows.max() + 1 == pytest.approx(foot, abs=1.6)
        assert np.ptp(columns) + 1 == pytest.approx(WIDTH / pixel, abs=1.5)
        everything = np.argwhere(image["semantic"][state] == CLASSES.index("signal"))
        ends = camera.horizon + (camera.elevation - np.array([TOP, 0.0])) / pixel
        assert everything[:, 0].min() == pytest.approx(ends[0], abs=1)
        assert everything[:, 0].max() + 1 == pytest.approx(ends[1], abs=1.5)  # its post stands on the ground


def test_lamps_are_seen_from_the_front_only():
    for heading, lit in ((0.0, True), (0.9, True), (math.pi / 2 + 0.1, False), (math.pi, False), (-2.0, False)):
        seen = film([[]], [head(16.0, 0.5, heading)], [[GREEN]], mounted="wide")
        assert near(seen["rgb"][0], COLOUR[GREEN]).any() == lit
        assert (seen["semantic"][0] == CLASSES.index("signal")).sum() > 100


def test_arrows_look_different_from_full_lamps():
    full, arrow = (film([[]], [head(16.0, 0.5, arrow=a)], [[RED]], mounted="wide")["rgb"][0] for a in (False, True))
    assert near(arrow, COLOUR[RED]).sum() < 0.8 * near(full, COLOUR[RED]).sum()
    # It points to the left: of its columns the left ones are full in fewer rows than those at the head's base.
    columns = near(arrow, COLOUR[RED]).sum(axis=0)
    filled = columns[columns > 0]
    assert filled[0] < filled.max() and filled[: len(filled) // 2 + 1].max() == filled.max()
    # In the default rig the housing tells them apart.
    dull = [ahead(film([[]], [head(31.0, 0.5, arrow=a)], [[RED]]), "rgb")[0] for a in (False, True)]
    housing = [image[near(image, (c, c, c), 45)] for image, c in zip(dull, (26, 120), strict=True)]
    assert len(housing[0]) >= 2 and len(housing[1]) >= 2


def test_a_lamp_shines_through_haze_and_in_the_dark(monkeypatch):
    """A signal's light is its own: light 0.45 dims everything else, haze takes half of the contrast at 60 m."""
    clear = film([[]], [head(61.0, 0.5)], [[RED]])
    dull = {"light": (0.45,) * 3, "haze": (60.0,) * 3}
    monkeypatch.setattr(appearance, "QUANTITIES", appearance.QUANTITIES | dull)
    hazy = film([[]], [head(61.0, 0.5)], [[RED]])
    lit = near(ahead(clear, "rgb")[0], COLOUR[RED])
    assert lit.sum() >= 1
    assert np.abs(ahead(hazy, "rgb")[0][lit] - COLOUR[RED]).max() < 40
    assert np.abs(ahead(hazy, "rgb")[0][~lit] - ahead(clear, "rgb")[0][~lit]).mean() > 40


def test_what_stands_behind_a_post_is_seen_below_the_housing():
    car = thing("car", 33.0, 0.0)
    with_post = film([[car]], [head(20.0, 0.0)], [[RED]], mounted="wide")
    without = film([[car]], mounted="wide")
    same = (with_post["rgb"][0] == without["rgb"][0]).all(axis=-1)
    cars = [seen["semantic"][0] == CLASSES.index("vehicle") for seen in (with_post, without)]
    assert 0.75 < cars[0].sum() / cars[1].sum() < 1.0
    assert same[cars[0]].all()
    # And a van that stands before it hides the housing where it is higher.
    hidden = film([[thing("truck", 10.0, 0.0)]], [head(30.0, 0.0)], [[RED]], mounted="wide")
    assert not (hidden["semantic"] == CLASSES.index("signal")).any()


def test_worlds_see_the_states_of_their_own_signals():
    seen = film([[], []], [head(15.0, 2.0), head(15.0, -2.0)], [[RED, GREEN], [GREEN, RED]], mounted="wide")["rgb"]
    for image, states in zip(seen, ((GREEN, RED), (RED, GREEN)), strict=True):
        left, right = (np.nonzero(near(image, COLOUR[state]))[1].mean() for state in states)
        assert left < image.shape[1] / 2 < right


# --- goals ------------------------------------------------------------------------------------------------------------


def test_a_goal_lies_flat_on_the_ground():
    goal = thing("car", 8.0, kind=LANDMARK)
    seen = film([[], [goal], [goal, thing("cone", 20.0)]])
    depth, label = ahead(seen, "depth"), ahead(seen, "semantic")
    np.testing.assert_array_equal(depth[0], depth[1])  # nothing rises above the ground
    changed = (ahead(seen, "rgb")[0] != ahead(seen, "rgb")[1]).any(axis=-1)
    assert changed.any()
    assert (label[1][changed] == CLASSES.index("marking")).all()
    far = depth[0][changed] + AHEAD.forward
    assert far.min() == pytest.approx(8.0, abs=0.6) and far.max() == pytest.approx(13.0, abs=1.2)
    assert (label[2] == CLASSES.index("obstacle")).any()
