"""The worlds that encoders learn from: several scenarios, drivers and wanderers in one engine."""

import pytest
import torch

import envs
from envs.errors import UserError
from evaluation.probes.labels import Reader
from perception.data import DRIVERS, DrivingData
from perception.mixture import APART, driving_data
from perception.wandering import LanePoses, WanderingData

SCENARIOS = "highway-fast,intersection"


@pytest.fixture
def mixed():
    data = driving_data(SCENARIOS, 17, "cpu", seed=5)
    yield data
    data.close()


def test_each_part_is_what_it_would_be_alone(mixed):
    drive = mixed.collect(4)
    begin = 0
    alone = [
        DrivingData("highway-fast", 7, "cpu", seed=5),
        WanderingData("highway-fast", 2, "cpu", 2, 5, "surround", first_world=7),
        DrivingData("intersection", 6, "cpu", seed=5 + APART),
        WanderingData("intersection", 2, "cpu", 2, 5 + APART, "surround", first_world=6),
    ]
    for data in alone:
        own = data.collect(4)
        part = slice(begin, begin + data.num_worlds)
        assert torch.equal(drive.images[:, part], own.images)
        assert torch.equal(drive.actions[:, part], own.actions)
        assert torch.equal(drive.episodes[:, part], own.episodes)
        assert torch.equal(mixed.image[part], data.image)
        assert torch.equal(mixed.drivers[part], data.drivers)
        begin = part.stop
        data.close()
    assert begin == mixed.num_worlds == 17
    assert torch.bincount(mixed.drivers)[DRIVERS.index("wandering")] == 4


def test_it_goes_on_exactly(mixed):
    mixed.collect(3)
    state = {name: value.clone() for name, value in mixed.state().items()}
    wanted = mixed.collect(3)
    other = driving_data(SCENARIOS, 17, "cpu", seed=6)
    other.set_state(state)
    found = other.collect(3)
    other.close()
    assert torch.equal(found.images, wanted.images) and torch.equal(found.actions, wanted.actions)


def test_where_there_are_no_lanes_nobody_wanders():
    data = driving_data("parking", 16, "cpu")
    assert not (data.drivers == DRIVERS.index("wandering")).any()
    data.close()


def test_bad_mixtures_are_refused():
    with pytest.raises(UserError, match="'highway' is named twice"):
        driving_data("highway,highway", 16, "cpu")
    with pytest.raises(UserError, match="highwy"):
        driving_data("merge,highwy", 16, "cpu")
    with pytest.raises(UserError, match="at least 4 worlds, not 3"):
        driving_data("merge,highway", 7, "cpu")


@pytest.mark.parametrize("scenario", ["highway-fast", "racetrack", "roundabout"])
def test_poses_are_those_that_the_labels_have(scenario):
    """The labels compute headings and curvature exactly; here they are looked up a metre apart."""
    worlds = envs.make_vec(scenario, 16, device="cpu", observation="camera", seed=3, ego="continuous", agents=1)
    worlds.reset()
    for _ in range(3):
        worlds.step(torch.rand(16, 2) * 0.2)
    offset, turn, bend = LanePoses(worlds)()
    exact = Reader(worlds).on_lane()
    torch.testing.assert_close(offset, exact.offset, atol=1e-4, rtol=0)
    torch.testing.assert_close(turn, exact.turn, atol=0.06, rtol=0)
    assert (bend - exact.bend).abs().median() < 0.01
    worlds.close()


def test_wanderers_leave_the_middle_and_stay_on_the_road():
    data = WanderingData("roundabout", 32, "cpu", 2, 0, "surround")
    offsets, on_road = [], []
    for _ in range(6):
        data.collect(1)
        offset, turn, _ = data.poses()
        offsets.append(offset)
        on_road.append((offset.abs() < 2) & (turn.abs() < 0.8))
    data.close()
    assert torch.stack(offsets).std() > 0.3
    assert torch.stack(on_road).float().mean() > 0.7
