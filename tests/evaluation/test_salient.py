"""Saliency in recordings and their videos."""

import dataclasses

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import envs
from agents import policies
from agents.shield import Shield
from evaluation import replay, video
from evaluation.corruptions import Corrupted
from evaluation.overlay import overlay
from evaluation.recorder import record
from evaluation.salient import explained, looking
from evaluation.traces import SECONDS


class Watched:
    """Keeps what a policy is shown, and what it does."""

    def __init__(self, policy):
        self.policy, self.name, self.env_options = policy, policy.name, policy.env_options
        self.reset, self.seen, self.taken = policy.reset, [], []

    def act(self, obs):
        self.seen.append({name: tensor.clone() for name, tensor in obs.items()})
        self.taken.append(self.policy.act(obs))
        return self.taken[-1]


@pytest.fixture(scope="module")
def driver():
    return policies.load("zoo/highway-ppo", "highway-fast")


@pytest.fixture(scope="module")
def recorded(driver):
    """An episode of highway-fast, and what the policy was shown in it."""
    worlds = envs.make_vec("highway-fast", 2, device="cpu", **driver.env_options)
    watched = Watched(driver)
    trajectory = record(worlds, watched, seed=1_000_000)
    found = replay.of(trajectory, 1, worlds, "a drive", {"policy": driver.name})
    worlds.close()
    return found, watched


@pytest.fixture(scope="module")
def told(recorded, driver):
    """The same with the shares of its last decisions."""
    return explained(recorded[0], looking(driver))


def test_a_recording_holds_what_the_policy_was_shown(recorded):
    found, watched = recorded
    again = found.observed(2)
    assert len(again["camera"]) == len(found.actions) > SECONDS
    for step, obs in enumerate(watched.seen[: len(found.actions)]):
        assert torch.equal(again["camera"][step], obs["camera"][1]), step
        assert torch.equal(again["speed"][step], obs["speed"][1]), step


def test_what_is_told_of_the_route_is_recorded_too(tmp_path):
    """So that who is told one can be asked again about a recording."""
    worlds = envs.make_vec("intersection-signals", 2, device="cpu")
    watched = Watched(policies.load("random", "intersection-signals"))
    trajectory = record(worlds, watched, seed=1_000_000)
    replay.save(replay.of(trajectory, 1, worlds, "a drive", {}), tmp_path / "a.safetensors")
    worlds.close()
    again = replay.load(tmp_path / "a.safetensors").observed(2)
    assert again.keys() == watched.seen[0].keys()
    assert len(again["route"]) == trajectory.steps[1] > 10
    for step, obs in enumerate(watched.seen[: len(again["route"])]):
        assert torch.equal(again["route"][step], obs["route"][1]), step


def test_the_last_decisions_are_explained(recorded, told, driver, tmp_path):
    found, watched = recorded
    look = looking(driver)
    steps, last = len(found.actions), round(SECONDS)  # a decision a second
    assert told.shares.shape == (last, 64, 96) and told.shares.dtype == np.int8
    assert told.about == found.about | {"saliency": "perturbation"}
    assert told.shares_at(steps - last - 1) is None
    for step in (steps - last, steps - 1):  # one after the other, and all at once: the same
        obs = {name: tensor[1:] for name, tensor in watched.seen[step].items()}
        expected = look.shares(obs, watched.taken[step][1:])[0].numpy()
        assert np.abs(told.shares_at(step) - expected).max() < 0.01  # in steps of 1/127
    replay.save(told, tmp_path / "told.safetensors")
    replay.save(found, tmp_path / "found.safetensors")
    again = replay.load(tmp_path / "told.safetensors")
    assert np.array_equal(again.shares, told.shares) and again.about == told.about
    larger = (tmp_path / "told.safetensors").stat().st_size / (tmp_path / "found.safetensors").stat().st_size
    assert larger < 1.1


def test_who_saw_something_else_is_not_explained(recorded, driver):
    assert looking(policies.load("idm")) is None
    assert looking(Corrupted(driver, "fog", 3)) is None
    assert looking(Shield(driver)).policy is driver
    assert explained(recorded[0], None) is recorded[0]
    blind = dataclasses.replace(recorded[0], camera=None)
    assert explained(blind, looking(driver)) is blind


def test_a_video_shows_it_beside_the_camera(recorded, told, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "SECONDS", 0.4)
    monkeypatch.setattr(video, "FREEZE", 0.1)
    shape = (video.HEIGHT, video.WIDTH + video.SALIENT, 3)
    video.write_video(told, tmp_path / "a.mp4")
    assert imageio.imread(tmp_path / "a.mp4").shape[1:] == shape
    # The picture alone stands left of that with colours, which only the last five seconds have.
    early, last = video._picture(told, told.scene(0)), video.last_picture(told)
    assert early.shape == last.shape == shape
    for picture, same in ((early, True), (last, False)):
        assert np.array_equal(picture[20:190, 674:946], picture[20:190, 960:1232]) == same
    assert video.last_picture(recorded[0]).shape == (video.HEIGHT, video.WIDTH, 3)
    assert np.array_equal(video.last_picture(recorded[0])[: video.SCENE], last[: video.SCENE, : video.WIDTH])


def test_colours():
    picture = np.full((1, 3, 3), 100, dtype=np.uint8)
    against, nothing, speaks = overlay(picture, np.array([[-1.0, 0.0, 1.0]]))[0].astype(int)
    assert nothing.tolist() == [100, 100, 100]
    assert speaks[0] > 200 > speaks[2] and against[2] > 200 > against[0]
