import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
import torch

import envs
from agents import policies
from envs.errors import UserError
from envs.scene import Scene
from evaluation import replay
from evaluation.recorder import record


@pytest.fixture
def recorded(make_worlds, policy):
    worlds = make_worlds(3)
    trajectory = record(worlds, policy, seed=0)
    pictures = torch.arange(trajectory.actions.numel() * 18).reshape(-1, 3, 3, 2, 3) % 251
    trajectory = dataclasses.replace(trajectory, camera=pictures.to(torch.uint8))
    return replay.of(trajectory, 1, worlds, "straight, episode 1: collision", {"seed": 0}), trajectory


def test_a_replay_is_one_world_up_to_its_end(recorded):
    found, trajectory = recorded
    # World 1 starts at 21 m: a crash in frame 17, in the fourth step.
    assert len(found) == 21 and len(found.actions) == len(found.rewards) == 4
    assert np.array_equal(found.x, trajectory.x[:21, 1].numpy())
    assert found.crashed[16].tolist() == [False] * 3 and found.crashed[17].tolist() == [True, True, False]
    assert found.kind[0].tolist() == [2, 1, 0]
    assert np.array_equal(found.camera[2], trajectory.camera[2, 1].permute(1, 2, 0).numpy())
    assert [found.step(frame) for frame in (0, 4, 5, 19, 20)] == [0, 0, 1, 3, 3]


def test_a_frame_becomes_a_scene(recorded):
    scene = recorded[0].scene(17)
    assert scene.x[:2].tolist() == [85.0, 21.0 + 17 * 4]
    assert scene.time == pytest.approx(17 / 5)
    assert scene.caption == "straight, episode 1: collision"
    assert np.array_equal(scene.camera, recorded[0].camera[3])


def test_round_trip(recorded, tmp_path):
    for original in (recorded[0], dataclasses.replace(recorded[0], camera=None)):
        replay.save(original, tmp_path / "a.safetensors")
        again = replay.load(tmp_path / "a.safetensors")
        for field in dataclasses.fields(original):
            ours, theirs = getattr(original, field.name), getattr(again, field.name)
            if isinstance(ours, np.ndarray):
                assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), field.name
            elif field.name != "lanes":
                assert ours == theirs, field.name
        (points, *styles), (points_again, *styles_again) = original.lanes[0], again.lanes[0]
        assert np.array_equal(points, points_again) and styles == styles_again


def test_what_is_no_replay_is_refused_in_one_line(recorded, tmp_path):
    path = tmp_path / "a.safetensors"
    replay.save(recorded[0], path)
    content = path.read_bytes()

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            replay.load(path)
        assert "\n" not in str(caught.value)

    for cut in (0, 7, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        refused("not a replay, or damaged")
    path.write_text("{}")
    refused("not a replay, or damaged")
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3)}))
    refused("not a replay, or damaged")
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(3)}, {"replay": json.dumps({"format": 99})}))
    refused("not a replay, or damaged")
    path.unlink()
    refused("there is no replay")
    path.mkdir()
    refused("not a replay, or damaged")


def test_a_replay_of_another_format_is_named_as_such(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "FORMAT", 99)
    replay.save(recorded[0], tmp_path / "a.safetensors")
    monkeypatch.undo()
    with pytest.raises(UserError, match="another version"):
        replay.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["crossing", "intersection-signals", "parking"])
def test_a_replay_shows_what_the_worlds_showed(name, tmp_path):
    """People, vans, signals, walls and marks on the ground, on the map that the episode began on."""
    driver = policies.load("random", scenario=name)
    worlds = envs.make_vec(name, 2, device="cpu", **driver.env_options)
    worlds.reset(seed=4, first_world=7)
    seen = [Scene.of(worlds, 1)]

    class Watching:
        act, name, reset = driver.act, driver.name, driver.reset

    original = worlds.step

    def step(actions, on_frame):
        def both():
            on_frame()
            seen.append(Scene.of(worlds, 1))

        return original(actions, on_frame=both)

    worlds.step = step
    trajectory = record(worlds, Watching(), seed=4, first=7)
    replay.save(replay.of(trajectory, 1, worlds, name, {}), tmp_path / "a.safetensors")
    worlds.close()
    again = replay.load(tmp_path / "a.safetensors")
    for frame in (0, 1, len(again) // 2, len(again) - 1):
        shown, scene = again.scene(frame), seen[frame]
        names = (
            "present",
            "form",
            "length",
            "width",
            "height",
            "x",
            "y",
            "lane",
            "target_lane",
            "signals",
            "map",
            "roads",
        )
        for field in names:
            assert np.allclose(getattr(shown, field), getattr(scene, field), atol=1e-4), (frame, field)
        assert len(shown.paved) == len(scene.paved) and shown.crossings == scene.crossings
