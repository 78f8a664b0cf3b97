"""How unfamiliar what a policy sees is: decision by decision, and shown by a key."""

import pygame
import pytest

import envs
from agents import familiarity, policies
from agents.familiarity import Watch
from envs.errors import UserError, exit_on_user_error
from envs.physics.actions import META_ACTIONS
from perception import ood
from perception.data import DrivingData
from perception.familiar import Drives, fitted
from perception.transitions import Transitions, through
from viewer.__main__ import main
from viewer.familiarity import watch
from viewer.session import Live, Recording
from viewer.stage import SIZE
from viewer.window import Window


@pytest.fixture(scope="module")
def policy():
    return policies.load("zoo/highway-ppo", "highway-fast")


@pytest.fixture(scope="module")
def file(policy, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ood, "STEPS", 20)
        patch.setattr(ood, "RANK", 64)
        drives = Drives("highway-fast", "surround", 2, 16, 30, 0, "cpu")
        known, _ = fitted(drives, {"encoder": through(policy.encoder)})["encoder"]
    path = tmp_path_factory.mktemp("run") / familiarity.NAME
    familiarity.write(path, known, policy.encoder, {"scenario": "highway-fast"})
    return path


@pytest.fixture
def seeing(policy):
    """Makes live sessions whose driver sees pictures, and closes them."""
    made = []

    def make() -> Live:
        worlds = envs.make_vec("highway-fast", 1, device="cpu", **policy.env_options)
        made.append(Live(worlds, policy, 5))
        return made[-1]

    yield make
    for session in made:
        session.close()


def test_a_watch_says_what_the_scores_say(policy, file):
    """Decision by decision as all at once; nothing in an episode's first pictures."""
    known, _ = familiarity.read(file, policy.encoder)
    data = DrivingData("highway-fast", 4, "cpu", seed=2)
    drive = data.collect(12)
    data.close()
    world, seen = 3, Watch(policy, known, META_ACTIONS)
    features, places = through(policy.encoder)(drive.images[:, world])
    for t in range(12):
        fresh = t == 0 or bool(drive.episodes[t, world] != drive.episodes[t - 1, world])
        shown = seen({"camera": drive.images[t, world][None]}, fresh)
        seen.acted(int(drive.actions[t, world]))
        if t < 2 or drive.episodes[t, world] != drive.episodes[t - 2, world]:
            assert shown is None
            continue
        actions = drive.actions[t - 1 : t, world]
        step = Transitions(features[t - 1 : t], features[t : t + 1], places[t : t + 1], actions, actions)
        expected = ood.calibrated(known, ood.scores(known, step)[ood.COMBINED])
        assert shown == pytest.approx(float(expected[0]), abs=2e-3)


def press(window: Window, key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
    window.frame(0.0)


def test_a_key_shows_it(seeing, stage, file):
    session = seeing()
    watch(session, "zoo/highway-ppo", file)
    one = stage(session)
    window = Window(one)
    for _ in range(2):
        session.step(session.frames_per_step)
        session.step(1)
    assert session.now().step == 2 and 0 <= session.now().unfamiliar <= 1
    plain = pygame.surfarray.array3d(one.draw(SIZE))
    press(window, pygame.K_u)
    assert one.familiarity and (pygame.surfarray.array3d(one.draw(SIZE)) != plain).any()
    press(window, pygame.K_u)
    assert not one.familiarity
    session.restart()
    assert session.now().unfamiliar is None
    pygame.display.quit()


def test_it_says_why_there_is_nothing_to_show(live, seeing, replay, always, stage, tmp_path):
    with pytest.raises(UserError, match="'always' does not drive by a frozen encoder"):
        watch(live(always()), "always", None)
    with pytest.raises(UserError, match="a recording does not say"):
        watch(Recording(replay), None, None)
    with pytest.raises(UserError, match=r"familiarity.safetensors is missing; python -m train.familiarity"):
        watch(seeing(), "zoo/highway-ppo", tmp_path / familiarity.NAME)
    window = Window(stage(live()))
    press(window, pygame.K_u)
    assert not window.stage.familiarity and "not known what is familiar" in window._message
    pygame.display.quit()


def test_continuous_actions_have_no_names(policy, file):
    known, _ = familiarity.read(file, policy.encoder)
    with pytest.raises(UserError, match="continuous actions"):
        Watch(policy, known, ())


def test_the_command(monkeypatch, tmp_path, capsys):
    film = tmp_path / "film.mp4"
    common = ["viewer", "--env", "highway-fast", "--record", str(film), "--seconds", "0.1"]
    missing = ["--policy", "zoo/highway-ppo", "--familiarity", str(tmp_path / "nothing.safetensors")]
    monkeypatch.setattr("sys.argv", [*common, *missing])
    with pytest.raises(SystemExit) as left:
        exit_on_user_error(main)
    assert left.value.code == 2 and "nothing.safetensors is missing" in capsys.readouterr().err
    assert not film.exists()
