"""Probes on features that hold every label, or none: closed forms, other libraries, chance."""

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.sensors.rig import SURROUND
from evaluation.probes import controls, dense, fits, scores
from perception import encoders
from perception.probes import Label, held_out, ridge


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(fits, "STEPS", 300)
    monkeypatch.setattr(dense, "STEPS", 120)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(count: int, shuffled: bool = False) -> tuple[torch.Tensor, dict[str, Label], torch.Tensor]:
    """Features, labels that they hold (or that others hold), and worlds of 20 pictures each."""
    features = torch.randn(count, 24, generator=generator())
    read = features @ torch.randn(24, 6, generator=generator(1)) / 24**0.5
    if shuffled:
        read = read[torch.randperm(count, generator=generator(2))]
    everywhere = torch.ones(count, dtype=torch.bool)
    third = torch.arange(count) % 3 > 0
    labels = {
        "lead_presence": Label((read[:, 0] > 0).float(), everywhere, "presence"),
        "ttc_below_3s": Label((read[:, 1] > 1).float(), third, "presence"),
        "lead_distance": Label((3 + read[:, 2] / 2).exp(), third, "distance"),
        "lane_offset": Label(read[:, 3], everywhere, "amount"),
        "signal": Label(read[:, 3:].argmax(1).float(), third, "class"),
    }
    return features, labels, torch.arange(count) // 20


def cut(found: tuple, rows: slice) -> tuple:
    features, labels, worlds = found
    part = {name: Label(label.value[rows], label.mask[rows], label.kind) for name, label in labels.items()}
    return features[rows], part, worlds[rows]


@pytest.mark.parametrize("probe", fits.PROBES)
def test_what_features_hold_is_read(probe):
    found = drawn(2000)
    read = fits.PROBES[probe](*cut(found, slice(1500)))
    features, labels, _ = cut(found, slice(1500, None))
    figures = scores.figures(read(features), labels)
    guess = scores.figures(fits.constant(*cut(found, slice(1500)))(features), labels)
    good = 0.75 if probe == "knn" else 0.97
    assert figures["lead_presence AUROC"] > good and figures["ttc_below_3s AUROC"] > good
    assert figures["signal macro-F1"] > (0.55 if probe == "knn" else 0.9)
    assert figures["lane_offset MAE"] < guess["lane_offset MAE"] * (0.8 if probe == "knn" else 0.2)
    assert figures["lead_distance 20-40 m"] < 0.3


@pytest.mark.parametrize("probe", fits.PROBES)
def test_shuffled_labels_score_chance(probe):
    found = drawn(3000, shuffled=True)
    read = fits.PROBES[probe](*cut(found, slice(1500)))
    features, labels, _ = cut(found, slice(1500, None))
    figures = scores.figures(read(features), labels)
    guess = scores.figures(fits.constant(*cut(found, slice(1500)))(features), labels)
    assert figures["lead_presence AUROC"] == pytest.approx(0.5, abs=0.06)
    assert figures["ttc_below_3s AUROC"] == pytest.approx(0.5, abs=0.07)
    positives = labels["ttc_below_3s"].value[labels["ttc_below_3s"].mask].mean()
    assert guess["ttc_below_3s AP"] == pytest.approx(float(positives))
    assert figures["ttc_below_3s AP"] == pytest.approx(float(positives), abs=0.07)
    assert figures["lane_offset MAE"] >= guess["lane_offset MAE"] * 0.97
    assert figures["signal macro-F1"] < 0.4


def test_masked_labels_are_neither_learnt_from_nor_scored():
    features, labels, worlds = drawn(400)
    spoilt = {
        name: Label(torch.where(label.mask, label.value, 1e6 if label.kind != "class" else 0), label.mask, label.kind)
        for name, label in labels.items()
    }
    for probe in (fits.linear, fits.knn):
        clean = scores.figures(probe(features, labels, worlds)(features), labels)
        assert scores.figures(probe(features, spoilt, worlds)(features), spoilt) == clean


def test_few_labels_of_few_worlds_can_be_learnt_from():
    for count in (2, 25):
        features, labels, worlds = cut(drawn(100), slice(count))
        known = fits.learnable(labels)
        for probe in fits.PROBES.values():
            said = probe(features, known, worlds)(torch.randn(7, 24))
            assert all(len(value) == 7 and value.isfinite().all() for value in said.values())
    alike = {"lane_offset": Label(torch.zeros(9), torch.ones(9, dtype=torch.bool), "amount")}
    assert not fits.learnable(alike)


def test_settings_are_chosen_on_whole_worlds():
    worlds = torch.tensor([7, 7, 3, 9, 9, 9, 12, 40, 41, 3])
    held = held_out(worlds)
    assert held.any() and not held.all()
    assert not set(worlds[held].tolist()) & set(worlds[~held].tolist())
    assert not held_out(torch.full((5,), 3)).any()


def test_ridge_is_that_of_the_normal_equations():
    x, worlds = torch.randn(60, 4, generator=generator()), torch.zeros(60, dtype=torch.int64)
    y = x @ torch.randn(4, 2, generator=generator()) + torch.randn(60, 2, generator=generator(3)) + 5
    scaled = ((x - x.mean(0)) / x.std(0)).double().numpy()
    # One world: the greatest strength, 10 a sample. The columns are centred, so the constant is the mean.
    target = y.double().numpy()
    weights = np.linalg.solve(scaled.T @ scaled + 10 * 60 * np.eye(4), scaled.T @ (target - target.mean(0)))
    np.testing.assert_allclose(ridge(x, y, worlds)(x), scaled @ weights + target.mean(0), rtol=1e-4, atol=1e-4)


def test_the_logistic_regression_is_scipys_minimum():
    x = torch.randn(80, 3, generator=generator())
    classes = (x @ torch.randn(3, 3, generator=generator(1)) + torch.randn(80, 3, generator=generator(2))).argmax(1)
    scaled = ((x - x.mean(0)) / x.std(0, unbiased=False)).double().numpy()

    def loss(flat):
        weights, bias = flat[:9].reshape(3, 3), flat[9:]
        z = scaled @ weights + bias
        z -= z.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        return -log_p[np.arange(80), classes].mean() + fits.STRENGTHS[-1] / 2 * (weights**2).sum()

    best = scipy.optimize.minimize(loss, np.zeros(12), method="BFGS").x
    z = scaled @ best[:9].reshape(3, 3) + best[9:]
    expected = torch.from_numpy(z).softmax(1).float()
    found = fits.logistic(x, classes, torch.zeros(80, dtype=torch.int64))(x).softmax(1)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_a_perceptron_reads_what_no_line_divides():
    features = torch.randn(3000, 2, generator=generator())
    label = Label((features[:, 0] * features[:, 1] > 0).float(), torch.ones(3000, dtype=torch.bool), "presence")
    labels, worlds = {"lead_presence": label}, torch.arange(3000) // 20
    figures = {
        name: scores.figures(probe(features, labels, worlds)(features), labels)["lead_presence AUROC"]
        for name, probe in fits.PROBES.items()
    }
    assert figures["linear"] < 0.6 and figures["mlp"] > 0.97 and figures["knn"] > 0.97


# --- scores -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40).filter(
        lambda x: any(p for _, p in x)
    )
)
def test_average_precision_by_counting(pairs):
    values, positive = zip(*pairs, strict=True)
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        taken = [p for v, p in pairs if v >= threshold]
        reached = sum(taken) / sum(positive)
        expected += (reached - recall) * sum(taken) / len(taken)
        recall = reached
    found = scores.average_precision(torch.tensor(values).float(), torch.tensor(positive).float())
    assert found == pytest.approx(expected)


def test_macro_f1_and_unions_by_hand():
    true, said = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 0, 0])
    assert scores.macro_f1(said, true) == pytest.approx((4 / 7 + 2 / 4 + 0) / 3)
    a, b = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    assert scores.iou(a, b) == pytest.approx(1 / 3)
    assert scores.mean_iou(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])) == pytest.approx((1 / 2 + 1 / 3) / 2)


# --- maps and controls ------------------------------------------------------------------------------------------------


def test_decoders_read_what_maps_hold():
    maps = torch.randn(700, 4, 4, 6, generator=generator()).relu()
    worlds = torch.arange(700) // 10
    taken = (maps[:, 0] > 0.8).repeat_interleave(2, 1)
    said = dense.occupancy(maps[:600], taken[:600], worlds[:600])(maps[600:])
    assert scores.iou(said, taken[600:]) > 0.6
    classes = maps[:, :3].argmax(1).repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    said = dense.segmentation(maps[:600], classes[:600])(maps[600:])
    assert said.shape == (100, 16, 24) and scores.mean_iou(said, classes[600:]) > 0.8


def test_maps_of_any_size_are_decoded():
    assert dense.flat(torch.randn(2, 64, 30, 40)).shape[1] <= dense.WIDEST
    assert dense.Patches((5, 4, 8), (32, 48))(torch.randn(2, 5, 4, 8)).shape == (2, 9, 32, 48)


def test_maps_of_several_cameras_are_spaced_like_the_image():
    encoder = encoders.build("small", 6, 64, 96, cameras=(40, 24))
    rows = [encoder.trunks[str(height)].map_shape[1] for height in (40, 24)]
    height = torch.cat(
        [torch.linspace(0, 40, n + 1)[:-1] for n in rows[:1]] + [40 + torch.linspace(0, 24, rows[1] + 1)[:-1]]
    )
    maps = height.view(1, 1, -1, 1).expand(2, 64, -1, 6)
    placed = dense.aligned(encoder, maps)
    assert placed.shape == (2, 64, 8, 6)
    # Row k stands for what begins at pixel 8 k or a little before, and never for the other camera's picture.
    begins = placed[0, 0, :, 0]
    assert (begins <= 8 * torch.arange(8)).all() and (8 * torch.arange(8) - begins < 20).all()
    assert (begins[:5] < 40).all() and (begins[5:] >= 40).all()
    assert dense.aligned(encoders.build("small", 6, 64, 96), maps).shape == maps.shape


def test_each_cameras_picture_is_shifted_by_itself():
    images = torch.randint(0, 256, (6, 6, 64, 96), generator=generator(), dtype=torch.uint8)
    assert torch.equal(controls.shifted(images, SURROUND, 0, generator()), images)
    moved = controls.shifted(images, SURROUND, 2, generator())
    assert moved.shape == images.shape and not torch.equal(moved, images)
    first = 0
    for camera in SURROUND.cameras:
        rows = slice(first, first + camera.height)
        first += camera.height
        for before, after in zip(images[:, :, rows], moved[:, :, rows], strict=True):
            steps = [
                (down, across)
                for down in range(-2, 3)
                for across in range(-2, 3)
                if torch.equal(before.roll((down, across), (1, 2))[:, 2:-2, 2:-2], after[:, 2:-2, 2:-2])
            ]
            assert len(steps) == 1
