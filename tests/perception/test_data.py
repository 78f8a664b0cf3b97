"""The data engine: its drivers, its episodes, and that it goes on exactly."""

import pytest
import torch

import envs
from envs.errors import UserError
from perception.data import FASTER, IDLE, LEFT, RIGHT, SLOWER, DrivingData, cautious


def data(seed: int = 0, num_worlds: int = 8) -> DrivingData:
    return DrivingData("highway-fast", num_worlds, "cpu", seed=seed)


def test_a_drive_is_what_the_worlds_saw_and_did():
    engine = data()
    first = engine.image.clone()
    drive = engine.collect(5)
    assert drive.images.shape == (5, 8, 6, 64, 96) and drive.images.dtype == torch.uint8
    assert drive.actions.shape == drive.episodes.shape == (5, 8)
    assert drive.actions.dtype == torch.int64 and 0 <= drive.actions.min() and drive.actions.max() < engine.num_actions
    assert torch.equal(drive.images[0], first)
    for t in range(1, 5):  # the newer frame of one image is the older frame of the next, within an episode
        same = drive.episodes[t] == drive.episodes[t - 1]
        assert same.any()
        assert torch.equal(drive.images[t, same, :3], drive.images[t - 1, same, 3:])


def test_episodes_are_told_apart():
    drive = data().collect(45)  # an episode has 30 steps at most
    assert (drive.episodes[-1] > drive.episodes[0]).all()
    starts = drive.episodes[1:] != drive.episodes[:-1]
    begun = drive.images[1:][starts]
    assert torch.equal(begun[:, :3], begun[:, 3:])  # at the start of an episode both frames are its first


def test_two_engines_of_one_seed_are_equal_and_of_two_seeds_are_not():
    drive, again, other = data().collect(4), data().collect(4), data(seed=1).collect(4)
    assert torch.equal(drive.images, again.images) and torch.equal(drive.actions, again.actions)
    assert not (drive.images == other.images).flatten(2).all(2).any()


def test_a_drive_can_be_written_over():
    engine = data()
    drive = engine.collect(3)
    storage = drive.images.data_ptr()
    following = engine.image.clone()
    again = engine.collect(3, drive)
    assert again.images.data_ptr() == storage and torch.equal(again.images[0], following)


def test_goes_on_exactly_from_its_state():
    engine = data()
    engine.collect(3)
    state = {name: value.clone() for name, value in engine.state().items()}
    expected = engine.collect(6)
    restored = data(seed=5)
    restored.set_state(state)
    drive = restored.collect(6)
    assert torch.equal(drive.images, expected.images) and torch.equal(drive.actions, expected.actions)
    assert torch.equal(drive.episodes, expected.episodes)


def test_too_few_worlds_for_the_mix():
    with pytest.raises(UserError, match="at least 4 worlds, not 3"):
        data(num_worlds=3)


def placed(*others: tuple[float, float, float]) -> int:
    """The cautious driver's action at 25 m/s in the middle lane, at x = 500, among others at (x, lane, speed)."""
    env = envs.make_vec("highway-fast", num_worlds=1, device="cpu", observation="state")
    env.reset()
    s = env.state
    s.x[:], s.y[:], s.speed[:] = 5000, 0, 20
    for slot, (x, lane, speed) in enumerate([(500.0, 1, 25.0), *others]):
        s.x[0, slot], s.y[0, slot], s.speed[0, slot] = x, 4.0 * lane, speed
    return int(cautious(env))


def test_cautious_driver():
    assert placed() == FASTER
    assert placed((550.0, 1, 25.0)) == IDLE
    blocked = [(505.0, 0, 25.0), (505.0, 2, 25.0)]
    assert placed((520.0, 1, 25.0), *blocked) == SLOWER
    assert placed((545.0, 1, 10.0), *blocked) == SLOWER  # reached in under 3 s
    assert placed((530.0, 1, 22.0), blocked[0]) == RIGHT
    assert placed((530.0, 1, 22.0), blocked[1]) == LEFT
    assert placed((530.0, 1, 22.0), (490.0, 0, 25.0), blocked[1]) != LEFT  # someone is close behind there


def test_idm_is_named_by_the_action_that_would_have_done_the_same():
    engine = DrivingData("highway-fast", 32, "cpu")
    count = engine.idm.num_worlds
    for _ in range(10):
        lane, speed = engine.idm.state.target_lane[:, 0].clone(), engine.idm.state.speed[:, 0].clone()
        episode = engine.idm.state.episode.clone()
        actions = engine.step()[:count]
        same = engine.idm.state.episode == episode
        moved = engine.idm.state.target_lane[:, 0] - lane
        assert (actions[same & (moved < 0)] == LEFT).all() and (actions[same & (moved > 0)] == RIGHT).all()
        change = engine.idm.state.speed[:, 0] - speed
        assert (actions[same & (moved == 0) & (change > 1)] == FASTER).all()
        assert (actions[same & (moved == 0) & (change.abs() <= 1)] == IDLE).all()


@pytest.mark.parametrize("scenario", ["merge", "intersection", "racetrack", "parking"])
def test_every_kind_of_scenario_can_be_filmed(scenario):
    """Five, three, steering, throttle and steering: whatever is done has the name of one of five meta-actions."""
    engine = DrivingData(scenario, 8, "cpu")
    drive = engine.collect(8)
    assert drive.actions.shape == (8, 8) and 0 <= drive.actions.min() and drive.actions.max() < engine.num_actions == 5
    if scenario == "intersection":
        assert not ((drive.actions == LEFT) | (drive.actions == RIGHT)).any()
    state = {name: value.clone() for name, value in engine.state().items()}
    expected = engine.collect(3)
    engine.set_state(state)
    assert torch.equal(engine.collect(3).images, expected.images)
    engine.close()


def test_the_cautious_driver_of_a_network_looks_along_its_lane():
    env = envs.make_vec("roundabout", num_worlds=4, device="cpu", observation="state")
    env.reset(seed=0)
    s = env.state
    s.lane[:], s.lane_s[:], s.speed[:, 0] = 99, 0.0, 20.0
    s.lane[:3, :2] = 5
    s.lane_s[:, 1] = torch.tensor([20.0, 40.0, 80.0, 20.0])
    s.speed[:, 1] = 20.0
    s.kind[:, 1] = 1
    s.kind[:, 2:] = 0
    s.lane[3, 0] = 5
    assert cautious(env).tolist() == [SLOWER, IDLE, FASTER, FASTER]
    env.close()
