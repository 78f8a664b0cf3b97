"""Pre-training: exact continuation, the collapse alarm, and the command around them."""

import json
import signal
from pathlib import Path

import pytest
import torch

from agents import checkpoint
from envs.errors import UserError, exit_on_user_error
from perception import dataset, encoders, lora, pretraining
from perception.augment import Augmentation
from perception.data import DrivingData
from perception.pretraining import Pretraining, Settings
from train import perception as command
from train import perception_report
from train.common import found

SMALL = Settings(steps=4, worlds_per_batch=4, passes=1)


def training(seed: int = 0) -> Pretraining:
    torch.manual_seed(seed)
    data = DrivingData("highway-fast", 8, "cpu", seed=seed)
    encoder = encoders.build("small", *data.image.shape[1:])
    return Pretraining(encoder, "atc", data, Augmentation(seed=seed), SMALL, seed)


def test_goes_on_bit_for_bit():
    """Two iterations, written down as a checkpoint holds them, and two more: the same weights as four in a row."""
    unbroken = training()
    for k in range(4):
        if k == 2:
            saved = {name: value.clone() for name, value in unbroken.state().items()}
        unbroken.iterate(k / 4)
    resumed = training()
    resumed.iterate(0.0)
    resumed.set_state(saved)
    for k in (2, 3):
        resumed.iterate(k / 4)
    assert resumed.frames == unbroken.frames == 4 * 4 * 8
    for name, value in unbroken.objective.state_dict().items():
        assert torch.equal(resumed.objective.state_dict()[name], value), name


def test_adapters_go_on_bit_for_bit():
    """As above, where little learns and the rest is frozen; a copy follows with adapters of its own."""

    def adapted() -> Pretraining:
        torch.manual_seed(0)
        data = DrivingData("highway-fast", 8, "cpu")
        encoder = lora.adapt(encoders.build("small", *data.image_shape), 4)
        return Pretraining(encoder, "atc", data, Augmentation(), SMALL)

    unbroken = adapted()
    unbroken.iterate(0.1)
    saved = {name: value.clone() for name, value in unbroken.state().items()}
    expected = unbroken.iterate(0.5)
    resumed = adapted()
    resumed.set_state(saved)
    assert resumed.iterate(0.5) == expected
    for name, value in unbroken.objective.state_dict().items():
        assert torch.equal(resumed.objective.state_dict()[name], value), name


def test_state_of_another_training_is_refused():
    state = training().state()
    del state["objective.encoder.norm.weight"]
    with pytest.raises(UserError, match="the checkpoint does not fit this training"):
        training().set_state(state)


def test_spread_of_features():
    directions = torch.randn(4000, 256, generator=torch.Generator().manual_seed(0))
    assert pretraining.spread(directions).item() == pytest.approx(256**-0.5, rel=0.02)
    assert pretraining.spread(directions[:1].expand(50, -1)).item() == pytest.approx(0, abs=1e-6)


def test_collapse_and_divergence_raise_the_alarm():
    pretraining.check({"loss": 1.0, "spread": 0.05}, 256)
    with pytest.raises(UserError, match="the features collapsed: their spread is 0.005, about 0.062 is healthy"):
        pretraining.check({"loss": 1.0, "spread": 0.005}, 256)
    with pytest.raises(UserError, match="the training diverged"):
        pretraining.check({"loss": float("nan"), "spread": 0.05}, 256)


def arguments(folder: Path, **changed) -> command.Args:
    return command.Args(env="highway-fast", num_worlds=8, total_frames=256, device="cpu", out=folder, **changed)


@pytest.fixture
def quick(monkeypatch):
    """Short drives and probes."""
    monkeypatch.setattr(command, "Settings", lambda: SMALL)
    monkeypatch.setattr(perception_report, "PROBED", (8, 12))


def test_writes_an_encoder_with_its_card(quick, tmp_path):
    folder = tmp_path / "encoder"
    command.main(arguments(folder))
    encoder = encoders.load(folder)
    card = encoders.read_card(folder)
    assert (encoder.in_channels, encoder.height, encoder.width) == (6, 64, 96)
    assert card["objective"] == "atc" and card["scenario"] == "highway-fast" and card["rig"]["name"] == "surround"
    assert card["images"] == 256 and set(card["probes"]) == {"trained", "random"}
    assert "--total-frames 256" in card["command"]
    json.dumps(card, allow_nan=False)  # strict JSON, whatever was probed
    assert not (folder / checkpoint.NAME).exists() and list(folder.glob("events*"))


def test_overwrites_nothing(quick, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        command.main(arguments(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_sigterm_saves_and_resume_ends_as_if_unbroken(quick, tmp_path, monkeypatch):
    command.main(arguments(tmp_path / "unbroken"))
    iterate, count = Pretraining.iterate, []

    def interrupted(self, progress):
        count.append(progress)
        if len(count) == 3:
            signal.raise_signal(signal.SIGTERM)
        return iterate(self, progress)

    monkeypatch.setattr(Pretraining, "iterate", interrupted)
    with pytest.raises(SystemExit) as end:
        command.main(arguments(tmp_path / "broken"))
    assert end.value.code == 128 + signal.SIGTERM and len(count) == 3
    assert not (tmp_path / "broken" / encoders.CARD).exists()
    command.main(command.Args(resume=tmp_path / "broken"))
    weights = [(tmp_path / name / encoders.WEIGHTS).read_bytes() for name in ("unbroken", "broken")]
    assert weights[0] == weights[1]


def test_what_cannot_be_resumed(tmp_path):
    with pytest.raises(UserError, match="config.json is missing"):
        command.main(command.Args(resume=tmp_path))
    (tmp_path / "config.json").write_text('{"env": "highw')
    with pytest.raises(UserError, match="checkpoint.safetensors is missing"):
        command.main(command.Args(resume=tmp_path))
    (tmp_path / checkpoint.NAME).write_bytes(b"half")
    with pytest.raises(UserError, match="config.json is damaged"):
        command.main(command.Args(resume=tmp_path))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"objective": "atcc"}, "unknown objective 'atcc'"),
        ({"encoder": "smal"}, "unknown encoder 'smal'; did you mean 'small'"),
        ({"minutes": -1.0}, "must be positive"),
        ({"tune": "lorra", "init": "zoo/highway-small"}, "unknown --tune 'lorra'; did you mean 'lora'"),
        ({"tune": "lora"}, "--tune lora needs an encoder to go out from, --init"),
        ({"init": "zoo/highway-smal"}, "no encoder in .*highway-smal"),
        ({"init": "zoo/highway-small", "rig": "front"}, "is for images of .*, these are"),
        ({"data": "nowhere"}, "no data set in 'nowhere'"),
        ({"separate_cameras": True, "encoder": "nature"}, "are too small for this encoder"),
    ],
)
def test_bad_settings_write_nothing(tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        command.main(arguments(tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


def transfer(folder: Path, tune: str) -> dict:
    """The card of an encoder that went from one scenario to another."""
    settings = {"env": "merge", "num_worlds": 8, "total_frames": 96, "device": "cpu", "out": folder}
    command.main(command.Args(init="zoo/highway-small", tune=tune, **settings))
    return encoders.read_card(folder)


def test_from_one_scenario_to_another(quick, tmp_path):
    """Frozen, fine-tuned and by adapters: what is written, and what has changed in it."""
    zoo = encoders.load(found("zoo/highway-small"))
    before = encoders.read_card(found("zoo/highway-small"))
    cards = {tune: transfer(tmp_path / tune, tune) for tune in command.TUNES}
    for tune, card in cards.items():
        assert card["init"] == {"folder": "zoo/highway-small", "sha256": before["sha256"]}
        assert set(card["probes"]) == {"initial", "random"} | ({"trained"} if tune != "none" else set())
        assert f"--env merge --init zoo/highway-small --tune {tune}" in card["command"]
    probes = [card["probes"]["initial"] for card in cards.values()]
    assert probes[0] == probes[1] == probes[2]  # the same worlds, the same encoder
    assert cards["none"]["sha256"] == before["sha256"] and cards["none"]["images"] == 0
    assert {"all": 96, "lora": 96}.items() <= {tune: card["images"] for tune, card in cards.items()}.items()
    ranks = {}
    for tune in ("all", "lora"):
        after = encoders.load(tmp_path / tune)
        change = (after.projection.weight - zoo.projection.weight).double()
        ranks[tune] = int(torch.linalg.matrix_rank(change, rtol=1e-4))
    assert ranks["lora"] == 8 < ranks["all"]
    adapted = lora.load(zoo, tmp_path / "lora" / lora.NAME, before["sha256"])
    images = torch.randint(0, 256, (4, 6, 64, 96), dtype=torch.uint8)
    assert torch.equal(adapted(images), encoders.load(tmp_path / "lora")(images))


def test_learns_from_recorded_drives_what_it_learns_from_worlds(quick, tmp_path):
    drives = dataset.Args(env="highway-fast", num_worlds=8, steps=32, device="cpu", out=tmp_path / "drives")
    dataset.main(drives)
    command.main(arguments(tmp_path / "live"))
    command.main(command.Args(data=str(tmp_path / "drives"), total_frames=256, device="cpu", out=tmp_path / "recorded"))
    weights = [(tmp_path / name / encoders.WEIGHTS).read_bytes() for name in ("live", "recorded")]
    assert weights[0] == weights[1]
    card = encoders.read_card(tmp_path / "recorded")
    assert card["scenario"] == "highway-fast" and card["data"]["folder"] == str(tmp_path / "drives")
    assert "--env" not in card["command"] and "--data" in card["command"]


def test_a_damaged_data_set_ends_the_training_with_one_line(quick, tmp_path, capsys):
    dataset.main(dataset.Args(env="highway-fast", num_worlds=8, steps=32, device="cpu", out=tmp_path / "drives"))
    shard = next((tmp_path / "drives").glob("shard*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    capsys.readouterr()
    args = command.Args(data=str(tmp_path / "drives"), total_frames=256, device="cpu", out=tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        exit_on_user_error(lambda: command.main(args))
    assert end.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "is damaged: its checksum differs" in error[0]
    assert not (tmp_path / "out" / encoders.CARD).exists()


def test_an_encoder_of_separate_cameras_is_trained(quick, tmp_path):
    command.main(arguments(tmp_path / "out", separate_cameras=True))
    encoder = encoders.load(tmp_path / "out")
    assert encoder.cameras == (40, 24) and "--separate-cameras" in encoders.read_card(tmp_path / "out")["command"]
