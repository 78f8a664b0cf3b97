"""The mix of drivers in every kind of scenario: who drives, how well, and what disturbs them."""

import pytest
import torch

import envs
from envs import scenarios
from perception.data import DRIVERS, DrivingData
from perception.drivers import Disturbances, LaneFollower, Parker

# Meta-actions on a highway and on a network, several agents, continuous actions; IDM cannot drive the last two.
KINDS = ("highway-fast", "intersection-multi-agent", "racetrack", "parking", "lane-keeping")


def crashes(scenario: str, steps: int = 40) -> dict[str, float]:
    """Crashes an episode of each driver, where any ended."""
    data = DrivingData(scenario, 32, "cpu")
    crashed, ended = torch.zeros(2, 32)
    for _ in range(steps):
        states = data.idm.state, data.policy.state
        before = torch.cat([state.episode for state in states])
        data.step()
        end = torch.cat([state.episode for state in states]) != before
        ended += end
        crashed += end & (torch.cat([state.ego_crashed for state in states]) != 0)
    data.close()
    mine = {name: data.drivers == k for k, name in enumerate(DRIVERS)}
    return {name: (crashed[m].sum() / ended[m].sum()).item() for name, m in mine.items() if ended[m].any()}


@pytest.mark.parametrize("scenario", KINDS)
def test_three_drivers_share_the_worlds(scenario):
    data = DrivingData(scenario, 16, "cpu")
    counts = torch.bincount(data.drivers, minlength=3).tolist()
    assert counts == ([0, 8, 8] if scenario in ("parking", "lane-keeping") else [4, 8, 4])
    assert data.idm.num_worlds + data.policy.num_worlds == 16
    worlds = torch.cat([data.idm.state.world_id, data.policy.state.world_id])
    assert worlds.tolist() == list(range(16))  # no two worlds are one
    data.close()


@pytest.mark.parametrize("scenario", ["two-way", "merge"])
def test_the_noisy_expert_crashes_less_than_the_restless(scenario):
    share = crashes(scenario)
    assert share["noisy"] < 0.5 * share["restless"]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", scenarios.SCENARIOS)
def test_every_scenario_can_be_filmed_and_gone_on_with(scenario):
    data = DrivingData(scenario, 8, "cpu")
    drive = data.collect(20)
    assert 0 <= drive.actions.min() and drive.actions.max() < data.num_actions
    assert (drive.images.flatten(2).float().std(2) > 1).all()  # nobody looks at nothing
    state = {name: value.clone() for name, value in data.state().items()}
    expected = data.collect(5)
    data.set_state(state)
    again = data.collect(5)
    assert torch.equal(again.images, expected.images) and torch.equal(again.actions, expected.actions)
    data.close()


def test_only_who_is_disturbed_drives_differently():
    """Of two equal batches, one has half of its experts disturbed."""
    batches = [envs.make_vec("exit", num_worlds=8, device="cpu", observation="state", ego="idm") for _ in range(2)]
    for worlds in batches:
        worlds.reset(seed=0)
    disturbed = torch.arange(8) >= 4
    disturb = Disturbances(batches[0], disturbed, torch.Generator().manual_seed(0))
    road = torch.tensor([hash(index[:2]) for network in batches[0].sim.maps for index in network.indices])
    swerved, different = 0, torch.zeros(8, dtype=torch.bool)
    for _ in range(25):
        before = batches[0].state.target_lane[:, 0].clone()
        disturb()
        after = batches[0].state.target_lane[:, 0]
        assert torch.equal(road[before.long()], road[after.long()]) and ((after - before).abs() <= 1).all()
        swerved += int((after != before).sum())
        for worlds in batches:
            worlds.step(torch.zeros(8, dtype=torch.int64))
        ours, theirs = (worlds.state.x[:, 0] + worlds.state.y[:, 0] for worlds in batches)
        different |= ours != theirs
    assert torch.equal(different, disturbed) and swerved > 0


def test_who_gives_way_is_not_hurried():
    worlds = envs.make_vec("intersection", num_worlds=64, device="cpu", observation="state", ego="idm")
    worlds.reset(seed=0)
    disturb = Disturbances(worlds, torch.ones(64, dtype=torch.bool), torch.Generator().manual_seed(0))
    worlds.state.target_speed[:32, 0] = 0.0
    disturb()
    assert (worlds.state.target_speed[:32, 0] == 0).all()
    worlds.close()


def test_the_lane_follower_keeps_to_its_lane():
    """The reward is 1 - (r / width)^2."""
    worlds = envs.make_vec("lane-keeping", num_worlds=4, device="cpu", observation="state")
    worlds.reset(seed=0)
    driver = LaneFollower(worlds)
    rewards = torch.stack([worlds.step(driver())[1] for _ in range(200)])
    assert rewards[40:].mean() > 0.95
    worlds.close()


def test_the_parker_parks():
    worlds = envs.make_vec("parking", num_worlds=32, device="cpu", observation="state")
    worlds.reset(seed=0)
    driver, reached, ended = Parker(worlds), 0, 0
    for _ in range(250):
        _, _, terminated, _, info = worlds.step(driver())
        reached += int((info["success"] & terminated).sum())
        ended += int(terminated.sum())
    assert ended >= 32 and reached > 0.8 * ended
    worlds.close()
