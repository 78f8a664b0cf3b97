"""The overlay of saliency: live, in recordings, and where there is none."""

import dataclasses
import threading
import time

import imageio.v3 as imageio
import numpy as np
import pygame
import pytest
import torch

import envs
from agents import policies
from agents.saliency import Saliency
from envs.errors import UserError, exit_on_user_error
from evaluation.overlay import overlay
from evaluation.replay import FULL
from perception.saliency import METHODS
from viewer.__main__ import main
from viewer.attention import Attention
from viewer.session import Live, Recording
from viewer.stage import SIZE, Stage
from viewer.window import Window


@pytest.fixture(scope="module")
def policy():
    return policies.load("zoo/highway-ppo", "highway-fast")


@pytest.fixture
def seeing(policy):
    """Makes live sessions whose driver sees pictures, and closes them."""
    made = []

    def make(patient: bool = True) -> Live:
        worlds = envs.make_vec("highway-fast", 1, device="cpu", **policy.env_options)
        made.append(Live(worlds, policy, 5, patient=patient))
        return made[-1]

    yield make
    for session in made:
        session.close()


def shown(stage: Stage) -> np.ndarray:
    return pygame.surfarray.array3d(stage.draw(SIZE)).swapaxes(0, 1)


def test_a_decision_is_shown_under_its_saliency(seeing, stage, policy):
    session = seeing()
    one = stage(session)
    plain = shown(one)
    one.show_saliency("hirescam")
    assert one.camera == len(one.cameras) - 1
    for _ in range(2):  # two decisions
        moment = session.now()
        look = Saliency(policy, "hirescam")
        expected = overlay(moment.scene.camera, look.shares(moment.seen)[0].numpy())
        picture = one.cameras[one.camera](moment)
        assert np.array_equal(picture.pixels, expected) and "hirescam" in picture.label
        session.step(session.frames_per_step)
        session.step(1)
        assert session.now().seen is not moment.seen
    session.restart()
    assert not np.array_equal(shown(one), plain)
    one.show_saliency(None)
    assert np.array_equal(one.cameras[one.camera](session.now()).pixels, session.now().scene.camera)


def test_a_window_does_not_wait_and_does_not_fall_behind(policy, monkeypatch):
    """While one decision is worked out others pass; the latest is asked about next."""
    started, asked, go = [], [], threading.Event()

    class Slow:
        def __init__(self, policy, method):
            started.append(method)

        def shares(self, seen):
            asked.append(float(seen["speed"]))
            assert go.wait(30)
            return torch.full((1, 4, 6), float(seen["speed"]))

    monkeypatch.setattr("viewer.attention.Saliency", Slow)
    attention = Attention(policy, patient=False)
    decisions = [
        {"camera": torch.zeros(1, 6, 4, 6, dtype=torch.uint8), "speed": torch.full((1, 1), 0.1 * k)} for k in range(5)
    ]
    assert all(attention.look(seen, "gradcam") is None for seen in decisions)
    go.set()
    while len(asked) < 2 or attention._coming is not None:
        attention.look(decisions[-1], "gradcam")
        time.sleep(0.01)
    assert asked == pytest.approx([0.0, 0.4]) and started == ["gradcam"]
    assert np.array_equal(attention.look(decisions[-1], "gradcam"), overlay(np.zeros((4, 6, 3)), np.full((4, 6), 0.4)))
    # Another method has nothing to show at first.
    assert attention.look(decisions[-1], "hirescam") is None
    attention.close()


def press(window: Window, key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
    window.frame(0.0)


def test_a_key_goes_through_the_methods(seeing, stage):
    one = Window(stage(seeing()))
    for method in (*METHODS, None):
        press(one, pygame.K_e)
        assert one.stage.method == method and (method or "none") in one._message
    pygame.display.quit()


def test_the_key_says_why_there_is_nothing_to_show(stage, replay):
    for session in (None, Recording(replay)):  # a driver without a camera, a recording without shares
        one = Window(stage(session))
        press(one, pygame.K_e)
        assert one.stage.method is None and "nobody decides here by pictures" in one._message
    pygame.display.quit()


def test_nobodys_decision_is_explained_at_the_wheel(seeing, stage):
    session = seeing()
    one = stage(session)
    one.show_saliency("hirescam")
    session.take_wheel(True)
    for _ in range(3):
        session.step(session.frames_per_step)
    session.step(1)
    moment = session.now()
    assert moment.seen is None and np.array_equal(one.cameras[-1](moment).pixels, moment.scene.camera)


def test_a_recording_shows_what_it_holds(stage, replay):
    camera = np.full((3, 64, 96, 3), 100, dtype=np.uint8)
    shares = np.zeros((2, 64, 96), dtype=np.int8)
    shares[:, :32] = FULL
    told = dataclasses.replace(replay, camera=camera, shares=shares, about={"saliency": "perturbation"})
    session = Recording(told)
    one = stage(session)
    with pytest.raises(UserError, match="only 'perturbation' is recorded, not 'gradcam'"):
        one.show_saliency("gradcam")
    one.next_saliency()
    assert one.method == "perturbation"
    first = one.cameras[one.camera](session.now())
    assert (first.pixels == 100).all()  # of the first decision nothing is recorded
    session.step(5)
    second = one.cameras[one.camera](session.now())
    assert (second.pixels[32:] == 100).all() and second.pixels[0, 0, 0] > 180 and "perturbation" in second.label
    one.next_saliency()
    assert one.method is None


def test_the_command(monkeypatch, tmp_path, capsys):
    film = tmp_path / "film.mp4"
    common = ["viewer", "--env", "highway-fast", "--saliency", "hirescam", "--record", str(film), "--seconds", "0.1"]
    monkeypatch.setattr("sys.argv", [*common, "--policy", "zoo/highway-ppo"])
    main()
    assert len(imageio.imread(film)) == 3
    monkeypatch.setattr("sys.argv", [*common, "--policy", "idm"])
    with pytest.raises(SystemExit) as left:
        exit_on_user_error(main)
    said = capsys.readouterr().err
    assert left.value.code == 2 and "nobody decides here by pictures" in said


def test_every_method_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["viewer", "--help"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert all(method in said for method in METHODS)
