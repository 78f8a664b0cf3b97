import imageio.v3 as imageio
import numpy as np
import pygame
import pytest

import envs
from viewer.session import Live, Recording
from viewer.stage import SIZE
from viewer.window import Window

SYMBOLS = {
    ".": pygame.K_PERIOD,
    ",": pygame.K_COMMA,
    "]": pygame.K_RIGHTBRACKET,
    "+": pygame.K_PLUS,
    "-": pygame.K_MINUS,
}


@pytest.fixture
def window(stage, tmp_path, monkeypatch):
    """A window without a screen; what it saves goes to a temporary directory."""
    monkeypatch.chdir(tmp_path)
    yield lambda session=None: Window(stage(session))
    pygame.display.quit()


def press(window: Window, *keys: int | str) -> None:
    """Press keys, and let a picture be drawn without time passing."""
    for key in keys:
        code = SYMBOLS.get(key, key)
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=code, unicode=key if key in SYMBOLS else "", mod=0))
    window.frame(0.0)


def shown() -> np.ndarray:
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)


def test_pause_and_steps(window):
    one = window()
    one.frame(0.5)
    assert one.session.now().scene.time == pytest.approx(0.5)
    press(one, pygame.K_SPACE)
    one.frame(0.5)
    assert one.paused and one.session.now().scene.time == pytest.approx(0.5)
    press(one, ".")
    assert one.session.now().scene.time == pytest.approx(1.0)
    press(one, pygame.K_SPACE)
    one.frame(0.25)
    assert one.session.now().scene.time == pytest.approx(1.25)


def test_speed_and_zoom(window):
    one = window()
    press(one, "]", "]")
    one.frame(0.1)
    assert one.speed == 4 and one.session.now().scene.time == pytest.approx(0.4)
    press(one, pygame.K_PAGEDOWN, pygame.K_PAGEDOWN)
    assert one.speed == 1
    press(one, "+")
    assert one.stage.metres == pytest.approx(100.0)
    pygame.event.post(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=-2))
    press(one, "-")
    assert one.stage.metres == pytest.approx(172.8)
    press(one, *["-"] * 20)
    assert one.stage.metres == 500.0


def test_restart_and_next_world(window):
    one = window()
    before = one.session.now().scene.x
    one.frame(0.5)
    press(one, pygame.K_r)
    assert np.array_equal(one.session.now().scene.x, before)
    press(one, pygame.K_n)
    assert one.session.world == 1


def test_the_arrows_steer_only_at_the_wheel(window, live):
    one = window()
    press(one, pygame.K_RIGHT)
    assert not one.session.human and one.session.wish == 1
    press(one, pygame.K_w, pygame.K_RIGHT)
    assert one.session.human and one.session.wish == 2
    press(one, pygame.K_UP)
    assert one.session.wish == 3
    press(one, pygame.K_w)
    assert not one.session.human


def release(window: Window, key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key, mod=0))
    window.frame(0.0)


@pytest.mark.parametrize("name", ["parking", "intersection"])
def test_the_arrows_are_pedals_or_what_there_is(window, name):
    session = Live(envs.make_vec(name, 1, device="cpu", observation="state"), None, 5)
    one = window(session)
    press(one, pygame.K_UP, pygame.K_LEFT)
    if name == "parking":
        assert session.held == (1.0, -1.0)
        release(one, pygame.K_UP)
        assert session.held == (0.0, -1.0)
    else:
        assert session.action_names[session.wish] == "FASTER" and "only go faster or slower" in one._message
    session.close()


def test_a_recording_is_sought_with_arrows_and_mouse(window, replay):
    one = window(Recording(replay))
    press(one, pygame.K_SPACE, pygame.K_RIGHT)
    assert one.session.position == pytest.approx(5.0)
    press(one, pygame.K_LEFT, pygame.K_LEFT)
    assert one.session.position == 0.0
    width, height = one.stage.scene_size(SIZE)
    for x, y, expected in ((width // 2, height - 4, 7.5), (10, 10, 7.5)):
        pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(x, y)))
        one.frame(0.0)
        assert one.session.position == pytest.approx(expected)
    press(one, pygame.K_n, pygame.K_w, ",")
    assert one.session.position == 5.0 and one.paused


def test_what_is_shown_depends_on_nothing_but_the_moment(window):
    one = window()
    press(one, pygame.K_SPACE)
    first = shown()
    press(one, pygame.K_h)
    assert one.keys and not np.array_equal(shown(), first)
    press(one, pygame.K_F1)
    assert np.array_equal(shown(), first)


def test_cameras(window):
    one = window()
    pictures = [shown() for _ in one.stage.cameras if press(one, pygame.K_SPACE, pygame.K_SPACE, pygame.K_c) is None]
    assert one.stage.camera == 0 and not np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("size", [(500, 300), (700, 2000), (900, 200), (1400, 500), (30, 20)])
def test_resizing(window, size):
    one = window()
    pygame.display.set_mode(size, pygame.RESIZABLE)
    one.frame(0.1)
    assert shown().shape == (size[1], size[0], 3)
    if min(size) > 100:
        # The ego, in the lane that it is in, left of the middle.
        x, y = int(0.28 * one.stage.scene_size(size)[0]), size[1] // 2
        assert shown()[y, x, 2] > 200 > shown()[y, x, 0] + 100


def test_screenshot_and_recording(window, tmp_path):
    one = window()
    one.frame(0.1)
    press(one, pygame.K_s)
    (picture,) = (tmp_path / "runs/viewer").glob("*.png")
    assert imageio.imread(picture).shape == (SIZE[1], SIZE[0], 3)
    press(one, pygame.K_v)
    for _ in range(6):
        one.frame(1 / 15)
    press(one, pygame.K_v)
    (video,) = (tmp_path / "runs/viewer").glob("*.mp4")
    frames = imageio.imread(video)
    assert frames.shape[1:] == (SIZE[1], SIZE[0], 3) and len(frames) == 1 + 12
    assert not list((tmp_path / "runs/viewer").glob(".*"))


def test_what_cannot_be_saved_is_said_and_ends_nothing(window, tmp_path):
    one = window()
    (tmp_path / "runs").write_text("in the way")
    press(one, pygame.K_s, pygame.K_v)
    assert one.running and "cannot" in one._message


def test_quitting(stage):
    for event in (
        pygame.event.Event(pygame.QUIT),
        pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE, unicode="", mod=0),
    ):
        one = Window(stage())
        pygame.event.post(event)
        one.run()
        assert not one.running and not pygame.display.get_init()
