"""Encoders in another scenario and from few labels: what the commands compare, keep and refuse, on made pictures."""

import json
import signal
import sys
import threading
import time

import pytest
import torch
import tyro

from envs.errors import UserError
from evaluation import child, few_labels, kept_seeds, transfer, tuning
from evaluation.probes import benchmark, fits
from evaluation.probes.benchmark import Pictures, Row
from evaluation.probes.recording import Recording
from perception import encoders, lora
from perception.pretraining import Settings
from perception.probes import Label
from train import perception, perception_report

ENCODER = "zoo/highway-small"


def recording(count: int, seed: int) -> Recording:
    """Made pictures, two a world: how bright they are is the lane offset, and the offset's sign the signal."""
    generator = torch.Generator().manual_seed(seed)
    offset = torch.rand(count, generator=generator) * 2 - 1
    noise = torch.randint(0, 20, (count, 6, 64, 96), generator=generator)
    images = (noise + (110 + 90 * offset).long()[:, None, None, None]).to(torch.uint8)
    worlds, always = torch.arange(count) // 2, torch.ones(count, dtype=torch.bool)
    labels = {
        "lane_offset": Label(offset, always, "amount"),
        "signal": Label((offset > 0).float() * 2, always, "class"),
    }
    return Recording(
        images=images,
        labels=labels,
        episodes=torch.stack([torch.full_like(worlds, seed), worlds, torch.zeros_like(worlds)], 1),
        looks=torch.zeros(count, 1),
        maps=torch.zeros(count, dtype=torch.int64),
        dense=torch.arange(count),
        occupancy=torch.zeros(count, 2, 2, dtype=torch.bool),
        segmentation=(offset > 0).to(torch.uint8)[:, None, None].expand(-1, 32, 48).contiguous(),
    )


def made(subject, seed, advance=lambda units: None) -> Pictures:
    train, test = recording(40, 10 * seed), recording(20, 10 * seed + 1)
    return Pictures(train, {"episodes": test}, train.labels, {*train.labels, "segmentation"})


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(benchmark, "pictures", made)
    patch.setattr(fits, "ITERATIONS", 5)
    patch.setattr(tuning, "STEPS", 1)
    patch.setattr(few_labels, "SHARES", (0.1, 1.0))
    for kind in tuning.TASKS.values():
        patch.setattr(kind, "STEPS", 25)


@pytest.fixture
def short(monkeypatch):
    shorten(monkeypatch)


def called(monkeypatch, command, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    command.main()


# --- another scenario -------------------------------------------------------------------------------------------------


def in_process(module: str, arguments: list[str]) -> int:
    """A training as the command runs it, but here and as short as can be."""
    perception.main(tyro.cli(perception.Args, args=arguments))
    return 0


@pytest.fixture
def quick(short, monkeypatch):
    monkeypatch.setattr(child, "run", in_process)
    monkeypatch.setattr(perception, "Settings", lambda: Settings(steps=4, worlds_per_batch=4, passes=1))
    monkeypatch.setattr(perception_report, "PROBED", (8, 2))


def test_an_encoder_goes_to_another_scenario(quick, monkeypatch, tmp_path, capsys):
    """Trained for a moment in real worlds. The encoders are what their names say, and their figures go with them; they
    are trained once only.
    """
    arguments = ("--encoder", ENCODER, "--env", "merge", "--seeds", "1", "--total-frames", "32", "--num-worlds", "8")
    arguments += ("--rank", "4", "--device", "cpu", "--out", str(tmp_path))
    called(monkeypatch, transfer, *arguments)
    found = json.loads((tmp_path / "transfer.json").read_text())
    assert found["objective"] == "atc" and found["scenario"] == "merge" and found["trained_on"] == "highway"
    zoo = encoders.load(transfer.probes.ZOO / "highway-small")
    whole = sum(value.numel() for value in zoo.state_dict().values())
    folders = {path.name.split("-")[0]: path for path in (tmp_path / "encoders").iterdir()}
    assert set(folders) == set(transfer.TRAINED)
    with lora.safetensors.safe_open(folders["lora"] / lora.NAME, framework="pt") as file:
        adapters = sum(file.get_tensor(name).numel() for name in file.keys())
    assert found["learnt_numbers"] == {"frozen": 0, "all": whole, "lora": adapters, "scratch": whole, "random": 0}

    cards = {way: encoders.read_card(folder) for way, folder in folders.items()}
    assert {way: "init" in card for way, card in cards.items()} == {"all": True, "lora": True, "scratch": False}
    assert all(card["scenario"] == "merge" and card["images"] == 32 for card in cards.values())
    means = {row["way"]: row for row in found["skills"] if row["label"] == "mean"}
    assert set(means) == set(transfer.WAYS) and means["frozen"]["above_frozen"]["value"] == 0
    for way, row in means.items():
        assert row["skill"]["value"] == pytest.approx(means["frozen"]["skill"]["value"] + row["above_frozen"]["value"])
        assert row["skill"]["value"] > 0.5, way  # brightness is easy
    assert f"{adapters:,}" in capsys.readouterr().out and not (tmp_path / kept_seeds.DONE).exists()

    monkeypatch.setattr(child, "run", lambda module, arguments: pytest.fail("trained again"))
    called(monkeypatch, transfer, *arguments)
    again = json.loads((tmp_path / "transfer.json").read_text())
    assert again["figures"] == found["figures"]


def test_skill_is_error_saved():
    """Against numbers worked out by hand: MAE 0.3 for a guess of 0.4; AUROC 0.9 and AP 0.6 for 0.5 and 0.2."""
    rows = [
        Row("lane_offset MAE", "episodes", transfer.GUESS, "", 1.0, 0.4),
        Row("lane_offset MAE", "episodes", "frozen", "linear", 1.0, 0.3),
        Row("lane_offset MAE", "episodes", "random", "linear", 1.0, 1.2),
        Row("ttc_below_3s AUROC", "episodes", transfer.GUESS, "", 1.0, 0.5),
        Row("ttc_below_3s AP", "episodes", transfer.GUESS, "", 1.0, 0.2),
        Row("ttc_below_3s AUROC", "episodes", "frozen", "linear", 1.0, 0.9),
        Row("ttc_below_3s AP", "episodes", "frozen", "linear", 1.0, 0.6),
    ]
    found = transfer.skills(rows)
    assert found["episodes", "frozen", "lane_offset"] == pytest.approx(0.25)
    assert found["episodes", "frozen", "ttc_below_3s"] == pytest.approx((0.8 + 0.5) / 2)
    assert found["episodes", "frozen", "mean"] == pytest.approx((0.25 + 0.65) / 2)
    assert found["episodes", "random", "lane_offset"] == -1.0


def test_gains_are_paired_by_seed():
    """Seeds differ by much, ways by 0.1 in each: the gain is 0.1 without any doubt."""

    def seed(error: float) -> list[Row]:
        errors = {transfer.GUESS: 1.0, "frozen": error, "all": error - 0.1}
        return [Row("lane_offset MAE", "episodes", way, "", 1.0, value) for way, value in errors.items()]

    found = {row["way"]: row for row in transfer.compared([seed(error) for error in (0.2, 0.5, 0.8)])}
    gain, skill = found["all"]["above_frozen"], found["all"]["skill"]
    assert gain["low"] == pytest.approx(0.1) and gain["value"] == pytest.approx(0.1) == gain["high"]
    assert skill["value"] == pytest.approx(0.6) and skill["low"] < 0.45 and skill["high"] > 0.75


@pytest.mark.timeout(30)
def test_a_training_that_is_interrupted_saves_itself_and_is_gone_on_with(monkeypatch, tmp_path):
    """The program that is run notes that it was asked to end, takes its time, and is asked once."""
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n"
        f"trap 'sleep 0.2; echo saved >> {tmp_path}/saved; exit 143' TERM\n"
        f"touch {tmp_path}/up\nwhile :; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def interrupt() -> None:
        while not (tmp_path / "up").exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        kept_seeds.going_on(lambda: child.run("train.perception", ["--env", "merge"]))
    thread.join()
    assert ended.value.code == 128 + signal.SIGTERM and (tmp_path / "saved").read_text() == "saved\n"


def study(out, **changed) -> transfer.Study:
    return transfer.prepared(transfer.Args(ENCODER, "merge", out=out, device="cpu", **changed))


def test_what_is_there_is_gone_on_with(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(child, "run", lambda module, arguments: calls.append(arguments) or 0)
    work = study(tmp_path)
    folder = work.folder("all", 0)
    transfer.train(work, "all", 0)
    assert calls.pop() == work.told("all", 0)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")  # ended before its first checkpoint
    transfer.train(work, "all", 0)
    assert calls.pop() == work.told("all", 0) and not folder.exists()
    folder.mkdir()
    (folder / "checkpoint.safetensors").touch()
    transfer.train(work, "all", 0)
    assert calls.pop() == ["--resume", str(folder)]
    (folder / encoders.CARD).touch()
    transfer.train(work, "all", 0)
    assert not calls
    others = [study(tmp_path, total_frames=5), study(tmp_path, rank=2), study(tmp_path, objective="simsiam")]
    assert len({one.folder("all", 0) for one in (work, *others)}) == 4


def test_a_training_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(child, "run", lambda module, arguments: 2)
    with pytest.raises(UserError, match=r"python -m train\.perception --env merge .*--tune lora.* exit code 2"):
        transfer.train(study(tmp_path), "lora", 0)


# --- few labels -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Of one seed, as short as can be."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        args = few_labels.probes.Args(ENCODER, "merge", device="cpu")
        return few_labels.measure(few_labels.probes.prepared(args)[0], (), 2, 0, lambda units: None)


def test_every_start_way_and_share_is_measured(rows):
    for kind in tuning.TASKS.values():
        found = {row[1:5]: row.value for row in rows if row.figure == kind.FIGURE}
        cells = {("episodes", start, way, s) for start in few_labels.STARTS for way in tuning.WAYS for s in (0.1, 1.0)}
        assert set(found) == cells | {("episodes", "constant", "", 1.0)}
        guess = found["episodes", "constant", "", 1.0]
        assert all(found["episodes", start, "all", 1.0] > guess + 0.2 for start in few_labels.STARTS)


def test_an_interrupted_study_of_few_labels_ends_like_one_that_was_not(rows, short, monkeypatch, tmp_path, capsys):
    arguments = ("--encoder", ENCODER, "--env", "merge", "--seeds", "3", "--device", "cpu", "--out", str(tmp_path))
    seeds = []

    def measure(subject, tasks, rank, seed, advance):
        seeds.append(seed)
        if len(seeds) == 2:
            signal.raise_signal(signal.SIGTERM)
        return [row._replace(value=row.value - seed / 100) for row in rows]

    monkeypatch.setattr(few_labels, "measure", measure)
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, few_labels, *arguments)
    assert ended.value.code == 128 + signal.SIGTERM and not (tmp_path / "few_labels.json").exists()
    called(monkeypatch, few_labels, *arguments)
    assert seeds == [0, 1, 1, 2]
    found = json.loads((tmp_path / "few_labels.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few_labels.json", "few_labels.png"]
    assert len(found["figures"]) == len(rows)
    for row, mean in zip(rows, found["figures"], strict=True):
        assert mean["seeds"] == pytest.approx([row.value, row.value - 0.01, row.value - 0.02])
        assert mean["low"] <= mean["value"] == pytest.approx(row.value - 0.01) and mean["value"] <= mean["high"]
    assert "signal macro-F1 on other" in capsys.readouterr().out


def test_a_scenario_without_signals_is_named(short, monkeypatch, tmp_path):
    def without(subject, seed, advance):
        found = made(subject, seed, advance)
        return found._replace(asked=found.asked - {"signal"})

    monkeypatch.setattr(benchmark, "pictures", without)
    with pytest.raises(UserError, match=r"'merge' has no label 'signal' to learn \(it has: segmentation\)"):
        called(
            monkeypatch, few_labels, "--encoder", ENCODER, "--env", "merge", "--tasks", "signal", "--out", str(tmp_path)
        )


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (transfer, ["--encoder", ENCODER, "--env", "merg"], "unknown scenario 'merg'; did you mean 'merge'?"),
        (transfer, ["--encoder", "zoo/highway-smal", "--env", "merge"], "did you mean 'zoo/highway-small'?"),
        (transfer, ["--encoder", ENCODER, "--env", "merge", "--objective", "atk"], "did you mean 'atc'?"),
        (transfer, ["--encoder", ENCODER, "--env", "merge", "--total-frames", "0"], "must be at least 1"),
        (few_labels, ["--encoder", ENCODER, "--env", "merge", "--tasks", "signl"], "did you mean 'signal'?"),
        (few_labels, ["--encoder", ENCODER, "--env", "merge", "--rank", "0"], "must be at least 1, not 0"),
        (few_labels, ["--encoder", ENCODER, "--env", "merge", "--seeds", "0"], "a seed or more"),
        (few_labels, ["--encoder", ENCODER, "--env", "merge", "--out", __file__], "must be a directory"),
    ],
)
def test_bad_input_is_named(monkeypatch, command, arguments, message):
    with pytest.raises(UserError) as error:
        called(monkeypatch, command, *arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
