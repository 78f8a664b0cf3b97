"""Telling the unfamiliar from the familiar: the statistics against brute force, the commands as a user runs them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import familiarity
from envs.errors import UserError
from evaluation import ood, ood_drives, ood_report
from evaluation.ood_drives import MATCHED, OWN, Setting, pixels, planned, spoilt
from evaluation.statistics.separation import separation
from perception import ood as scores_of
from train import familiarity as fitting


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=30),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=30),
)
def test_auroc_counts_pairs(negatives, positives):
    low, high = (np.array(side, dtype=float).T for side in (negatives, positives))
    found = separation(low[0], low[1].astype(int), high[0], high[1].astype(int))
    wins = (high[0][:, None] > low[0]).mean() + 0.5 * (high[0][:, None] == low[0]).mean()
    assert found.auroc == pytest.approx(wins)
    assert 0 <= found.low <= found.high <= 1


def test_the_interval_is_over_worlds():
    """Frames that repeat one number a world say no more than one: their interval is that of the worlds alone."""
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 20), rng.normal(1, 1, 20)
    worlds, many = np.arange(20), np.repeat(np.arange(20), 50)
    alone = separation(low, worlds, high, worlds)
    repeated = separation(low.repeat(50), many, high.repeat(50), many)
    assert repeated[:3] == pytest.approx(alone[:3])
    many = np.arange(600)
    independent = separation(rng.normal(0, 1, 600), many, rng.normal(1, 1, 600), many)
    assert alone.high - alone.low > 3 * (independent.high - independent.low)


def test_fpr95_of_two_normal_distributions():
    """Of N(2, 1) the share below the 95th percentile of N(0, 1), 1.645, is Phi(-0.355) = 0.361; AUROC = Phi(sqrt 2)."""
    rng = np.random.default_rng(0)
    count = 1000
    found = separation(rng.normal(0, 1, count), np.arange(count), rng.normal(2, 1, count), np.arange(count))
    assert found.fpr95 == pytest.approx(0.361, abs=0.06) and found.auroc == pytest.approx(0.921, abs=0.02)
    assert found.low < 0.921 < found.high


SETTING = Setting("surround", 2, 8, 10, 0, "cpu")


def test_what_is_planned():
    found = planned("highway", "crossing,merge", SETTING)
    assert [(test.name, test.kind, test.rate) for test in found] == [
        ("crossing", "unfamiliar", 5),
        ("merge", "unfamiliar", 1),
        ("highway at 5 Hz", "rate", 5),
        ("highway, clear day", "clear", 1),
    ]
    with pytest.raises(UserError, match="'highway-fast' is of the family 'highway', which is familiar"):
        planned("highway", "highway-fast", SETTING)
    with pytest.raises(UserError, match="did you mean 'crossing'"):
        planned("highway", "crosing", SETTING)


def test_pixels_are_means_and_deviations_of_cells():
    images = torch.randint(0, 256, (3, 6, 64, 96), dtype=torch.uint8)
    found, _ = pixels(images)
    cell = images[1, 2, 16:32, 80:96].double() / 255
    cells = found.view(3, 12, 4, 6)[1, :, 1, 5]
    assert float(cells[2]) == pytest.approx(float(cell.mean()), abs=1e-5)
    assert float(cells[8]) == pytest.approx(float(cell.std(correction=0)), abs=1e-4)


def test_dirt_stays_in_its_place_and_noise_does_not():
    images = torch.full((2, 6, 64, 96), 128, dtype=torch.uint8)
    for kind, lasts in (("occlusion", True), ("fog", True), ("noise", False)):
        look = spoilt(lambda seen: (seen.float(), seen), kind, 3, 0, "cpu")
        assert torch.equal(look(images)[1], look(images)[1]) == lasts


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(scores_of, "STEPS", 20)
    monkeypatch.setattr(scores_of, "RANK", 64)
    for module in (ood_drives, ood_report):
        monkeypatch.setattr(module, "KINDS", ("noise",))
        monkeypatch.setattr(module, "STRENGTHS", (5,))


def test_the_commands(small, tmp_path, capsys):
    file = tmp_path / familiarity.NAME
    fitting.main(fitting.Args(env="highway-fast", out=file, worlds=16, steps=30, device="cpu"))
    encoder, _ = familiarity.frozen_encoder(familiarity.folder_of("zoo/highway-small"))
    known, header = familiarity.read(file, encoder)
    assert header["scenario"] == "highway-fast" and header["encoder"] == familiarity.fingerprint(encoder)
    assert known.subspace.shape == (64, 1536)
    args = {"familiarity": file, "unfamiliar": "intersection", "worlds": 8, "seconds": 10, "device": "cpu"}
    ood.main(ood.Args(out=tmp_path / "out", **args))
    content = json.loads((tmp_path / "out" / "ood.json").read_bytes())
    rows = content["figures"]
    found = {(row["test"], row["spacing"], row["features"], row["score"]) for row in rows}
    for features in ("encoder", "random", "pixels"):
        for score in scores_of.SCORES:
            assert {("intersection", OWN, features, score), ("intersection", MATCHED, features, score)} <= found
            assert ("noise 5", OWN, features, score) in found
    assert all(0 <= row["low"] <= row["auroc"] <= row["high"] <= 1 for row in rows)
    assert (tmp_path / "out" / "ood.png").stat().st_size > 10_000
    assert "intersection: AUROC" in capsys.readouterr().out
    # The same families, other encoders, files that are no such file.
    with pytest.raises(UserError, match="which is familiar"):
        ood.main(ood.Args(**args | {"unfamiliar": "highway"}))
    encoder.norm.bias.data += 1
    with pytest.raises(UserError, match="belongs to another encoder"):
        familiarity.read(file, encoder)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        ood.main(ood.Args(**args))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (fitting.Args(encoder="zoo/highway-smal"), "did you mean 'zoo/highway-small'"),
        (fitting.Args(worlds=2), "at least 16 worlds"),
        (fitting.Args(out="/nowhere/x.safetensors"), "in a directory that exists"),
        (fitting.Args(env="highwy"), "did you mean 'highway'"),
    ],
)
def test_bad_input_is_refused(args, message, tmp_path):
    if isinstance(args.out, str):
        args = fitting.Args(out=tmp_path / "nowhere" / "x.safetensors")
    elif args.out is None:
        args = fitting.Args(encoder=args.encoder, env=args.env, worlds=args.worlds, out=tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=message):
        fitting.main(args)
    assert not any(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing.safetensors is missing; python -m train.familiarity makes it"):
        ood.main(ood.Args(familiarity=tmp_path / "nothing.safetensors", device="cpu"))
