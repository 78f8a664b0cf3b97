"""Scores of what is unfamiliar: closed forms, known distributions, and drives that are filmed two ways."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception import ood
from perception.data import DrivingData
from perception.transitions import Transitions, places, record

BASIS = torch.linalg.qr(torch.randn(12, 3, generator=torch.Generator().manual_seed(9))).Q.T  # of what is at places


def moving(count: int, seed: int, turn: float = 0.5, width: int = 6, worlds: int = 20) -> Transitions:
    """Features that turn by an angle a step, the other way round after action 1, with little noise."""
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(count, width, generator=generator)
    actions = torch.randint(2, (count,), generator=generator)
    angle = turn * (1.0 - 2.0 * actions)
    x, y = before[:, 0].clone(), before[:, 1].clone()
    after = before.clone()
    after[:, 0], after[:, 1] = x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
    after += 0.05 * torch.randn(count, width, generator=generator)
    spanned = torch.randn(count, 3, generator=generator) @ BASIS + 0.1 * torch.randn(count, 12, generator=generator)
    return Transitions(before, after, spanned.half(), actions, torch.arange(count) % worlds)


@pytest.fixture(scope="module")
def known() -> ood.Familiarity:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HIDDEN", 64), ("MEMBERS", 3), ("STEPS", 500), ("BATCH", 128)):
            patch.setattr(ood, name, value)
        return ood.fit(moving(3000, 0), moving(2000, 1), num_actions=2)


def mean(known: ood.Familiarity, steps: Transitions, name: str) -> float:
    return float(ood.scores(known, steps)[name].mean())


def test_distances_are_those_of_the_gaussian():
    """Squared Mahalanobis distances of d normal dimensions have mean d and variance 2 d, whatever the covariance."""
    torch.manual_seed(0)
    mix = torch.eye(5) + 0.3 * torch.randn(5, 5)
    features = torch.randn(20_000, 5) @ mix
    centred = features - features.mean(0)
    white = centred @ ood.whitening(centred, torch.arange(20_000) % 50)
    assert torch.allclose(white.T @ white / 20_000, torch.eye(5), atol=0.02)
    squares = white.square().sum(1)
    assert float(squares.mean()) == pytest.approx(5, rel=0.01) and float(squares.var()) == pytest.approx(10, rel=0.06)


def test_few_worlds_shrink_the_covariance():
    """With hardly more samples than dimensions the inverse of the bare covariance is useless; the shrunk one is not."""
    torch.manual_seed(0)
    few, many = torch.randn(60, 40), torch.randn(4000, 40)
    white = many @ ood.whitening(few - few.mean(0), torch.arange(60) % 20)
    bare = torch.linalg.inv((few - few.mean(0)).T @ (few - few.mean(0)) / 60)
    assert float(white.square().sum(1).mean()) < 70 < float(torch.einsum("ni,ij,nj->n", many, bare, many).mean())


def test_the_familiar_subspace_is_found(known):
    """What is at places spans three directions but for noise; a residual is what least squares leaves."""
    steps = moving(500, 3)
    scaled = (steps.places.float() - known.place_mean) / known.place_scale
    assert known.subspace.shape == (4, 12) and torch.allclose(
        known.subspace @ known.subspace.T, torch.eye(4), atol=1e-5
    )
    fitted = known.subspace.T @ torch.linalg.lstsq(known.subspace.T, scaled.T).solution
    expected = (scaled.T - fitted).square().sum(0) / scaled.square().sum(1)
    assert torch.allclose(ood.residual(known, steps.places), expected, atol=1e-5)
    beyond = torch.randn(500, 12, generator=torch.Generator().manual_seed(1))
    assert float(expected.mean()) < 0.1 < 0.4 < float(ood.residual(known, beyond).mean())


def test_places_have_no_contrast():
    """Maps of any gain and offset of all channels of a place are the same, but for the rounding of half precision."""
    maps = torch.rand(2, 16, 3, 4)
    found = places(maps)
    assert found.shape == (2, 192) and torch.allclose(found.float(), places(0.2 * maps + 7.0).float(), atol=0.01)
    assert torch.allclose(found.view(2, 12, 16).float().var(2, correction=0), torch.ones(2, 12), atol=0.01)


def test_other_features_and_other_steps_are_unfamiliar(known):
    same = moving(2000, 5)
    noise = torch.randn(same.places.shape, generator=torch.Generator().manual_seed(1))
    far = replace(same, before=same.before + 4, after=same.after + 4, places=noise.half())
    other_way = moving(2000, 6, turn=-0.5)  # the features are the same, what an action does is not
    for name in ood.SCORES:
        assert abs(mean(known, same, name) - mean(known, moving(2000, 1), name)) < 0.15
        assert mean(known, far, name) > mean(known, same, name) + 0.3
    for name in ("residual", "mahalanobis", "disagreement"):
        assert mean(known, other_way, name) == pytest.approx(mean(known, same, name), abs=0.15)
    assert mean(known, other_way, "error") > mean(known, same, "error") + 2


def test_the_predictors_know_what_an_action_does(known):
    """Their error is the noise, of which features have 0.05, and is measured in units of it."""
    steps = moving(2000, 7)
    assert math.exp(mean(known, steps, "error")) < 1.2
    swapped = replace(steps, actions=1 - steps.actions)
    assert mean(known, swapped, "error") > mean(known, steps, "error") + 2


def test_what_is_shown_is_the_share_that_scores_lower(known):
    """Of other familiar transitions the shown values are spread evenly from 0 to 1."""
    steps = moving(4000, 8)
    for name in ood.SCORES:
        shown = ood.calibrated(known, ood.scores(known, steps)[name], name)
        for share in (0.1, 0.5, 0.9, 0.99):
            assert float((shown <= share).float().mean()) == pytest.approx(share, abs=0.04)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20))
def test_calibration_is_monotone_and_bounded(known, values):
    scores = torch.tensor(sorted(values))
    for name in ood.SCORES:
        shown = ood.calibrated(known, scores, name)
        assert bool((shown.diff() >= 0).all()) and 0 <= float(shown.min()) and float(shown.max()) <= 1
        table = known.quantiles[ood.SCORES.index(name)].numpy()
        expected = np.interp(scores.numpy(), table, np.linspace(0, 1, len(table)))
        assert np.allclose(shown.numpy(), expected, atol=1e-3)


def test_a_feature_that_never_changes_does_no_harm(monkeypatch):
    monkeypatch.setattr(ood, "STEPS", 20)
    steps = moving(500, 0)
    constant = torch.ones(500, 1)
    before, after = (torch.cat([end, constant], 1) for end in (steps.before, steps.after))
    flat = replace(steps, before=before, after=after, places=torch.cat([steps.places, constant.half()], 1))
    known = ood.fit(flat, flat, num_actions=2)
    assert all(bool(score.isfinite().all()) for score in ood.scores(known, flat).values())


def pictures(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images.flatten(1).float(), images[:, :1].flatten(1).half()


def test_stacks_are_those_of_the_camera_and_leave_out_the_start_of_an_episode():
    """Single frames, stacked here, are the stacked frames that the worlds themselves would show."""
    single, double = (DrivingData("highway-fast", 4, "cpu", frames=frames, seed=3) for frames in (1, 2))
    steps = record(single, {"picture": pictures}, 34, 2)[1]["picture"]
    drive = double.collect(34)
    for data in (single, double):
        data.close()
    wanted = [
        (t, world)
        for t in range(2, 34)
        for world in range(4)
        if drive.episodes[t, world] == drive.episodes[t - 2, world]
    ]
    assert len(steps) == len(wanted) and int(drive.episodes.max()) > 0
    for row, (t, world) in enumerate(wanted):
        assert torch.equal(steps.after[row], drive.images[t, world].flatten().float())
        assert torch.equal(steps.places[row], drive.images[t, world, 0].flatten().half())
        assert torch.equal(steps.before[row], drive.images[t - 1, world].flatten().float())
        assert steps.actions[row] == drive.actions[t - 1, world] and steps.worlds[row] == world


def test_frames_farther_apart():
    data = DrivingData("highway-fast", 4, "cpu", frames=1, seed=3)
    found = record(data, {"picture": pictures}, 13, 2, apart=(1, 3), every=3)
    data.close()
    again = DrivingData("highway-fast", 4, "cpu", frames=1, seed=3)
    drive = again.collect(13)
    again.close()
    rows = [
        (t, world)
        for t in range(6, 13, 3)
        for world in range(4)
        if drive.episodes[t, world] == drive.episodes[t - 6, world]
    ]
    assert len(rows) == len(found[3]["picture"]) < len(found[1]["picture"])
    for row, (t, world) in enumerate(rows):
        frames = [drive.images[k, world].flatten().float() for k in (t - 6, t - 3, t)]
        assert torch.equal(found[3]["picture"].before[row], torch.cat(frames[:2]))
        assert torch.equal(found[3]["picture"].after[row], torch.cat(frames[1:]))
        assert found[3]["picture"].actions[row] in drive.actions[t - 3 : t, world]
