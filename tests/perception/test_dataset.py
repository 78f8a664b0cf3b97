"""Recorded drives: the worlds' own to the bit, in any cut; damaged and missing shards; the command."""

import json
import signal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError, exit_on_user_error
from envs.sensors import rig
from perception import dataset, encoders
from perception.augment import Augmentation
from perception.data import DrivingData
from perception.dataset import Layout, RecordedData, stacked
from perception.pretraining import Pretraining, Settings

WORLDS, STEPS = 8, 42  # longer than an episode of highway-fast


def live(frames: int = 2) -> DrivingData:
    return DrivingData("highway-fast", WORLDS, "cpu", frames, seed=3)


def about(frames: int = 2) -> dict:
    return {"scenario": "highway-fast", "rig": encoders.describe(rig.SURROUND), "frames": frames, "seed": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set of several shards in time and of two groups of worlds."""
    folder = tmp_path_factory.mktemp("data") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SHARD", 1_200_000)
        patch.setattr(dataset, "LEAST_STEPS", 8)
        dataset.record(live(), folder, STEPS, about())
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that may be damaged."""
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_what_was_recorded_is_what_the_worlds_saw(whole):
    data, recorded = live(), RecordedData(whole, "cpu")
    shards = recorded.manifest["shards"]
    assert (
        len({tuple(shard["steps"]) for shard in shards}) > 2 and len({tuple(shard["worlds"]) for shard in shards}) == 2
    )
    assert max(shard["bytes"] for shard in shards) <= 1_200_000
    for steps in (5, 1, 16, 20):  # other cuts than the shards'
        expected, drive = data.collect(steps), recorded.collect(steps)
        assert torch.equal(drive.images, expected.images)
        assert torch.equal(drive.actions, expected.actions) and torch.equal(drive.episodes, expected.episodes)
    assert (expected.episodes != 0).any()  # stacks of a second episode were among them


@pytest.mark.parametrize("frames", [1, 3])
def test_stacks_of_other_sizes(frames, tmp_path):
    dataset.record(live(frames), tmp_path / "set", 35, about(frames))
    assert torch.equal(RecordedData(tmp_path / "set", "cpu").collect(35).images, live(frames).collect(35).images)


def test_the_manifest_tells_what_there_is(whole):
    manifest = json.loads((whole / dataset.MANIFEST).read_text())
    drive = live().collect(STEPS)
    assert (manifest["worlds"], manifest["steps"], manifest["images"]) == (WORLDS, STEPS, WORLDS * STEPS)
    assert manifest["drivers"] == {"expert": 2, "noisy": 4, "restless": 2, "wandering": 0}
    assert list(manifest["actions"].values()) == torch.bincount(drive.actions.flatten(), minlength=5).tolist()
    assert manifest["episodes"] == sum(len(world.unique()) for world in drive.episodes.t())
    assert manifest["image"] == [6, 64, 96] and manifest["seed"] == 3


def test_it_begins_again(whole):
    recorded = RecordedData(whole, "cpu")
    first = recorded.collect(30).images.clone()
    assert torch.equal(recorded.collect(30).images, first)  # 12 steps are left, which are no drive
    with pytest.raises(UserError, match="has 42 policy steps, a drive takes 43"):
        recorded.collect(43)


@settings(max_examples=30)
@given(st.integers(1, 4), st.lists(st.sampled_from([0, 0, 1]), min_size=2, max_size=12), st.data())
def test_frames_are_stacked_as_a_camera_does(frames, ends, draw):
    """Against a stack that is shifted by hand, cut into a shard anywhere."""
    history, stacks, episodes, episode = [], [], [], 0
    for step, end in enumerate(ends):
        episode += end
        history = [step] * frames if end or not history else [*history[1:], step]
        stacks.append(list(history))
        episodes.append(episode)
    cut = draw.draw(st.integers(0, len(ends) - 1))
    older, newest = stacks[cut][:-1], [stack[-1] for stack in stacks[cut:]]
    shard = torch.tensor(older + newest, dtype=torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 1, 1)
    found = stacked(shard, torch.tensor(episodes[cut:])[:, None].expand(-1, 2))
    expected = torch.tensor(stacks[cut:], dtype=torch.uint8).repeat_interleave(3, 1)
    assert torch.equal(found[..., 0, 0], expected[:, None].expand(-1, 2, -1))


@given(st.integers(4, 5000), st.integers(1, 4), st.sampled_from([12_288, 18_432, 691_200]))
def test_shards_have_at_most_their_size(worlds, frames, frame_bytes):
    layout = Layout.of(worlds, frames, frame_bytes)
    numbers = layout.worlds * layout.steps * dataset.NUMBERS
    size = layout.worlds * (layout.steps + frames - 1) * frame_bytes + numbers + dataset.HEADER
    assert size <= dataset.SHARD and layout.steps >= dataset.LEAST_STEPS - 1 and 1 <= layout.worlds <= worlds


def training(data) -> Pretraining:
    torch.manual_seed(0)
    encoder = encoders.build("small", *data.image_shape)
    settings = Settings(steps=8, worlds_per_batch=4, passes=1)
    return Pretraining(encoder, "atc", data, Augmentation(), settings)


def test_training_is_the_same_to_the_bit_and_goes_on_exactly(whole):
    on_worlds, on_disk = training(live()), training(RecordedData(whole, "cpu"))
    for step in range(3):
        assert on_worlds.iterate(step / 4) == on_disk.iterate(step / 4)
    resumed = training(RecordedData(whole, "cpu"))
    resumed.set_state({name: value.clone() for name, value in on_disk.state().items()})
    assert resumed.iterate(0.9) == on_worlds.iterate(0.9)


def test_another_data_set_is_not_gone_on_with(whole, folder):
    state = RecordedData(whole, "cpu").state()
    manifest = json.loads((folder / dataset.MANIFEST).read_text())
    (folder / dataset.MANIFEST).write_text(json.dumps(manifest | {"seed": 4}))
    with pytest.raises(UserError, match="does not hold the data set that the training began with"):
        RecordedData(folder, "cpu").set_state(state)


def test_a_missing_shard(folder):
    (folder / "shard-000003.safetensors").unlink()
    with pytest.raises(UserError, match="is not whole: shard-000003.safetensors is missing"):
        RecordedData(folder, "cpu")


def test_a_shard_cut_in_half(folder):
    path = folder / "shard-000002.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="shard-000002.safetensors is damaged: it has 1,000 bytes in place of"):
        RecordedData(folder, "cpu")


def test_a_flipped_bit(folder):
    path = folder / "shard-000001.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="shard-000001.safetensors is damaged: its checksum differs"):
        RecordedData(folder, "cpu").collect(STEPS)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text[: len(text) // 2], "is not the manifest of a data set"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "has format 9, this version reads format 1"),
        (lambda text: text.replace('"surround"', '"front"'), "filmed with other cameras than rig 'front' has now"),
        (lambda text: json.dumps(json.loads(text) | {"seed": "x"}), "seed is 'x'"),
        (lambda text: json.dumps(json.loads(text) | {"shards": []}), "does not list every shard"),
    ],
)
def test_a_bad_manifest(folder, change, message):
    path = folder / dataset.MANIFEST
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        RecordedData(folder, "cpu")


def test_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no data set in .*: manifest.json is missing"):
        RecordedData(tmp_path / "nowhere", "cpu")


def command(out, **changed) -> dataset.Args:
    return dataset.Args(env="highway-fast", num_worlds=4, steps=6, device="cpu", out=out, **changed)


def test_the_command_records(tmp_path, capsys):
    dataset.main(command(tmp_path / "set"))
    assert RecordedData(tmp_path / "set", "cpu").collect(6).images.shape == (6, 4, 6, 64, 96)
    assert f"python -m train.perception --data {tmp_path / 'set'}" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as end:
        exit_on_user_error(lambda: dataset.main(command(tmp_path)))
    assert end.value.code == 2 and len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"the data set takes .* GB and .* has .* left"):
        dataset.record(live(), tmp_path / "set", 10**12, about())
    assert not (tmp_path / "set").exists()


def test_a_signal_leaves_a_shorter_whole_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 400_000)
    write, written = dataset._write, []

    def interrupted(*arguments):
        written.append(arguments)
        if len(written) == 3:
            signal.raise_signal(signal.SIGTERM)
        return write(*arguments)

    monkeypatch.setattr(dataset, "_write", interrupted)
    with pytest.raises(SystemExit) as end:
        dataset.main(dataset.Args(env="highway-fast", num_worlds=4, steps=40, device="cpu", out=tmp_path / "set"))
    assert end.value.code == 128 + signal.SIGTERM
    recorded = RecordedData(tmp_path / "set", "cpu")
    assert 0 < recorded.steps < 40
    recorded.collect(recorded.steps)
