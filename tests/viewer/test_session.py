import numpy as np
import pytest
import torch

import envs
from envs.scene import Scene
from viewer.film import Film
from viewer.session import HOLD, Live, Recording

DECISION = 1.0  # [s], in highway-fast
LANE_RIGHT, FASTER = 2, 3


def crashing(live):
    """A session that has come to the end of its episode, by a collision."""
    session = live()
    for _ in range(40):
        session.advance(DECISION)
        if session.now().ended:
            return session
    raise AssertionError("who only ever accelerates was expected to crash")


def test_a_live_session_shows_what_the_worlds_do(live):
    session = live()
    worlds = envs.make_vec("highway-fast", 1, device="cpu", observation="state")
    worlds.reset(seed=5)
    total = 0.0
    for step in range(1, 4):
        session.step(session.frames_per_step)
        frames = []
        _, reward, *_ = worlds.step(
            torch.tensor([FASTER]), on_frame=lambda frames=frames: frames.append(Scene.of(worlds))
        )
        total += float(reward[0])
        shown = session.now()
        assert np.array_equal(shown.scene.x, frames[-1].x) and np.array_equal(shown.scene.heading, frames[-1].heading)
        assert (shown.step, shown.episode_return) == (step, pytest.approx(total))
        assert shown.scene.time == pytest.approx(step * DECISION)
        assert shown.action == FASTER and shown.target_speed == 30.0
        assert shown.probabilities[FASTER] == pytest.approx(0.8) and shown.value == 3.5
    worlds.close()


def test_time_passes_evenly(live):
    session = live()
    times, places = [], []
    for _ in range(100):
        session.advance(1 / 60)
        times.append(session.now().scene.time)
        places.append(session.now().scene.x[0])
    assert times == pytest.approx(np.arange(1, 101) / 60)
    # No jumps: a 60th of a second at 20 to 30 m/s.
    assert np.diff(places).min() > 0.3 and np.diff(places).max() < 0.55
    assert len(session.speeds()) == 1 + int(100 / 60 / session.dt)


def test_the_end_of_an_episode_stays_for_a_while_and_the_next_begins(live):
    session = crashing(live)
    last = session.now()
    assert last.ended == "collision" and last.scene.crashed[0]
    forgotten = session.policy.forgotten
    session.advance(HOLD - 0.1)
    assert session.now() is last
    session.advance(0.3)
    now = session.now()
    assert now.scene.time == pytest.approx(0.2) and not now.ended and not now.scene.crashed[0]
    assert (now.step, now.episode_return, now.life) == (0, 0.0, (5, 0, 1))
    assert forgotten == 2  # at the start, and where the episode ended


def test_restart_shows_the_same_episode_and_the_next_world_another(live):
    session = live()
    first = session.now().scene.x
    session.advance(2.5)
    session.restart()
    assert np.array_equal(session.now().scene.x, first)
    session.next_world()
    assert not np.array_equal(session.now().scene.x, first) and session.now().scene.time == 0
    assert "world 1" in session.title


def test_a_persons_wish_is_the_next_decision_and_only_that(live):
    session = live(None)
    assert session.human and session.now().action == 1
    session.wish = FASTER
    session.step(session.frames_per_step)
    session.step(1)
    assert session.now().action == FASTER and session.now().target_speed == 30.0
    session.step(session.frames_per_step)
    session.step(1)
    assert session.now().action == 1 and session.wish == 1


def test_the_wheel_goes_to_a_person_and_back(live):
    session = live()
    session.take_wheel(True)
    session.wish = LANE_RIGHT
    seen = []
    for _ in range(3):
        session.step(session.frames_per_step)
        session.step(1)
        seen.append(session.now().action)
    # One decision was worked out ahead; then the wish, then nothing.
    assert seen == [FASTER, LANE_RIGHT, 1]
    session.take_wheel(False)
    for _ in range(2):
        session.step(session.frames_per_step)
        session.step(1)
    assert session.now().action == FASTER


def test_time_to_collision_and_headway_are_those_of_evaluation(replay):
    session = Recording(replay)
    # 15 m between the boxes, closing at 5 m/s.
    assert session.now().ttc == pytest.approx(3.0) and session.now().headway == pytest.approx(15.0 / 25.0)
    session.step(5)
    assert session.now().ttc == pytest.approx(2.0) and session.now().headway == pytest.approx(10.0 / 25.0)


def test_a_recording_is_played_stepped_and_sought(replay):
    session = Recording(replay)
    session.advance(0.5)
    assert session.now().scene.x[0] == pytest.approx(12.5) and session.now().scene.time == pytest.approx(0.5)
    session.step(5)
    assert session.position == 5 and (session.now().action, session.now().episode_return) == (3, 0.5)
    session.step(1)
    assert session.position == 6
    session.step(5, forward=False)
    assert session.position == 5
    session.step(5, forward=False)
    session.step(5, forward=False)
    assert session.position == 0
    session.seek(2.0)
    assert session.position == session.last == 15 and session.now().ended == "collision"
    session.advance(10.0)
    assert session.position == 15 and session.now().episode_return == 0.75
    session.restart()
    assert session.position == 0


def test_film_shows_what_the_policy_sees(live, always):
    session = live(always(observation="camera"))
    film = Film("highway-fast", "surround")
    for _ in range(2):
        moment = session.now()
        picture = film.picture(moment.scene, moment.life).astype(int)
        assert np.abs(picture - moment.scene.camera).mean() < 0.05
        session.step(session.frames_per_step)
        session.step(session.frames_per_step)  # its first moment has the picture of its start
        session.step(session.frames_per_step, forward=False)
    film.close()


@pytest.fixture
def scenario():
    """Makes live sessions of any scenario with a person at the wheel, and closes them."""
    made = []

    def make(name: str) -> Live:
        made.append(Live(envs.make_vec(name, 1, device="cpu", observation="state"), None, 5))
        return made[-1]

    yield make
    for session in made:
        session.close()


def test_a_person_drives_with_pedals(scenario):
    session = scenario("parking")
    assert session.now().action.tolist() == [0, 0]
    session.held = (1.0, -1.0)
    taken = []
    for _ in range(5):
        session.step(session.frames_per_step)
        session.step(1)
        taken.append(session.now().action.tolist())
    # 1.5 a second, decided upon five times a second; what stands still cannot turn.
    assert taken[:4] == [pytest.approx([0.3 * k, -0.3 * k]) for k in (1, 2, 3)] + [[1.0, -1.0]]
    assert session.now().scene.speed[0] > 1 and session.now().scene.heading[0] != 0
    session.held = (-1.0, 0.0)
    session.step(session.frames_per_step)
    session.step(1)
    assert session.now().action.tolist() == pytest.approx([-0.3, 0.0])


def test_a_person_steers_where_that_is_all(scenario):
    session = scenario("racetrack")
    session.held = (1.0, 1.0)
    session.step(session.frames_per_step)
    session.step(1)
    assert session.now().action.tolist() == pytest.approx([0.3])


def test_a_person_chooses_among_three(scenario):
    session = scenario("intersection")
    assert session.action_names[session.now().action] == "IDLE"
    session.wish = session.action_names.index("SLOWER")
    session.step(session.frames_per_step)
    session.step(1)
    assert session.action_names[session.now().action] == "SLOWER"


@pytest.mark.parametrize("name", ["crossing", "intersection-signals", "parking"])
def test_film_shows_every_scenario_as_it_is(name):
    """People, signals and marks on the ground stand where the policy's camera sees them."""
    worlds = envs.make_vec(name, 1, device="cpu", frames=1)
    obs, _ = worlds.reset(seed=3, first_world=2)
    film = Film(name, "surround")
    picture = film.picture(Scene.of(worlds), (3, 2, 0)).astype(int)
    assert np.abs(picture - obs["camera"][0].permute(1, 2, 0).numpy()).mean() < 0.05
    film.close()
    worlds.close()
