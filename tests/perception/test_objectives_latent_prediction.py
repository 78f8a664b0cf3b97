"""Action-conditioned latent prediction: what it predicts from what, and what does not count."""

import math

import pytest
import torch

from perception import encoders, objectives
from perception.objectives.latent_prediction import LatentPrediction, rollout_error, which_action

TIMES, WORLDS, LATENT = 6, 3, 8


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def objective() -> LatentPrediction:
    torch.manual_seed(0)
    return LatentPrediction(encoders.build("small", 6, 32, 48), 5)


def batch() -> objectives.Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (TIMES, WORLDS, 6, 32, 48), dtype=torch.uint8, generator=generator)
    actions = torch.randint(0, 5, (TIMES, WORLDS), generator=generator)
    return objectives.Batch(images, images, actions, torch.zeros(TIMES, WORLDS, dtype=torch.int64))


def test_rollout_error_written_out():
    targets = normal(TIMES, WORLDS, LATENT)
    predictions = [normal(TIMES - k, WORLDS, LATENT, seed=k) for k in (1, 2)]
    valid = [normal(TIMES - k, WORLDS, seed=9 + k) > 0 for k in (1, 2)]
    means = []
    for k in (1, 2):
        errors = [
            2 - 2 * torch.cosine_similarity(predictions[k - 1][t, w], targets[t + k, w], dim=0)
            for t in range(TIMES - k)
            for w in range(WORLDS)
            if valid[k - 1][t, w]
        ]
        means.append(torch.stack(errors).mean())
    torch.testing.assert_close(rollout_error(predictions, targets, valid), (means[0] + means[1]) / 2)


def test_right_predictions_cost_nothing_and_no_pair_is_no_loss():
    targets = normal(TIMES, WORLDS, LATENT)
    predictions = [targets[k:].clone().requires_grad_() for k in (1, 2)]
    valid = [torch.ones(TIMES - k, WORLDS, dtype=torch.bool) for k in (1, 2)]
    assert rollout_error(predictions, targets, valid).item() == pytest.approx(0, abs=1e-6)
    loss = rollout_error([2 * p + 1 for p in predictions], targets, [torch.zeros_like(v) for v in valid])
    loss.backward()
    assert loss.item() == 0 and not predictions[0].grad.any()


def test_no_gradient_reaches_the_targets():
    predictions, targets = normal(TIMES - 1, WORLDS, LATENT).requires_grad_(), normal(TIMES, WORLDS, LATENT)
    targets.requires_grad_()
    rollout_error([predictions], targets, [torch.ones(TIMES - 1, WORLDS, dtype=torch.bool)]).backward()
    assert predictions.grad.any() and targets.grad is None


def test_which_action_counts_valid_rows_only():
    logits, actions = torch.zeros(4, 5), torch.arange(4)
    logits[3, 0] = 100.0  # very wrong, and not valid
    loss, accuracy = which_action(logits, actions, torch.tensor([True, True, True, False]))
    assert loss.item() == pytest.approx(math.log(5)) and accuracy.item() == pytest.approx(1 / 3)
    assert [value.item() for value in which_action(logits, actions, torch.zeros(4, dtype=torch.bool))] == [0, 0]


def test_a_prediction_is_told_the_actions_between():
    """The action taken at time 3 moves the prediction k steps from time t where t <= 3 < t + k, and no other."""
    model, features, actions = objective(), normal(TIMES, WORLDS, 256), torch.zeros(TIMES, WORLDS, dtype=torch.int64)
    before = model.foretell(features, actions, 4)
    actions[3, 1] = 2
    for k, (old, new) in enumerate(zip(before, model.foretell(features, actions, 4), strict=True), start=1):
        assert old.shape == (TIMES - k, WORLDS, LatentPrediction.LATENT)
        moved = (old != new).any(2)
        expected = torch.zeros_like(moved)
        expected[[t for t in range(TIMES - k) if t <= 3 < t + k], 1] = True
        assert torch.equal(moved, expected)


def test_an_action_that_leads_out_of_its_episode_changes_nothing():
    model, drive = objective(), batch()
    drive.episodes[3:, 1] = 1
    loss, _ = model(drive)
    drive.actions[2, 1] = (drive.actions[2, 1] + 1) % 5
    drive.actions[-1] = (drive.actions[-1] + 1) % 5
    assert torch.equal(model(drive)[0], loss)
    drive.actions[1, 1] = (drive.actions[1, 1] + 1) % 5
    assert not torch.equal(model(drive)[0], loss)


def test_a_short_drive_is_looked_ahead_as_far_as_it_goes():
    drive = batch()
    short = objectives.Batch(drive.augmented[:2], drive.plain[:2], drive.actions[:2], drive.episodes[:2])
    assert objective()(short)[0].isfinite()
