"""Augmented temporal contrast: the loss against its definition, what it masks, and its key encoder."""

import pytest
import torch

from envs.errors import UserError
from perception import encoders, objectives
from perception.objectives.atc import ATC, contrast

TIMES, WORLDS, PLACES, LATENT = 5, 3, 2, 8


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(times: int = 6, worlds: int = 3, seed: int = 0) -> objectives.Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (times, worlds, 6, 64, 96), dtype=torch.uint8, generator=generator)
    actions = torch.randint(0, 5, (times, worlds), generator=generator)
    return objectives.Batch(images, images, actions, torch.zeros(times, worlds, dtype=torch.int64))


def test_contrast_is_the_cross_entropy_of_cosines_written_out():
    queries, keys = normal(4, WORLDS, PLACES, LATENT), normal(TIMES, WORLDS, PLACES, LATENT, seed=1)
    valid = torch.ones(4, WORLDS, dtype=torch.bool)
    valid[1, 2] = valid[3, 0] = False
    losses, right = [], []
    for t in range(4):
        for w in range(WORLDS):
            for p in range(PLACES):
                if valid[t, w]:
                    cosines = torch.cosine_similarity(queries[t, w, p][None], keys[:, w, p]) / 0.2
                    losses.append(cosines.logsumexp(0) - cosines[t])
                    right.append((cosines.argmax() == t).float())
    loss, accuracy = contrast(queries, keys, valid, 0.2)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    torch.testing.assert_close(accuracy, torch.stack(right).mean())


def test_contrast_of_equal_keys_is_chance():
    keys = normal(1, WORLDS, PLACES, LATENT).expand(TIMES, -1, -1, -1)
    queries = normal(TIMES, WORLDS, PLACES, LATENT)
    loss, _ = contrast(queries, keys, torch.ones(TIMES, WORLDS, dtype=torch.bool), 0.1)
    assert loss.item() == pytest.approx(torch.tensor(float(TIMES)).log().item(), rel=1e-4)


def test_no_valid_pair_is_no_loss():
    queries = normal(TIMES, WORLDS, PLACES, LATENT).requires_grad_()
    loss, accuracy = contrast(queries, queries, torch.zeros(TIMES, WORLDS, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == 0 and accuracy.item() == 0 and not queries.grad.any()


def test_pairs_across_the_end_of_an_episode_do_not_count():
    episodes = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 1]])
    drive = objectives.Batch(torch.empty(4, 2), torch.empty(4, 2), torch.zeros(4, 2), episodes)
    assert drive.together(1).tolist() == [[True, False], [False, True], [True, True]]
    assert drive.together(2).tolist() == [[False, False], [False, True]]


def test_an_action_that_leads_out_of_its_episode_changes_nothing():
    torch.manual_seed(0)
    objective = ATC(encoders.build("small", 6, 64, 96), 5)
    drive = batch()
    drive.episodes[3:, 1] = 1
    loss, _ = objective(drive)
    drive.actions[2, 1] = (drive.actions[2, 1] + 1) % 5
    assert torch.equal(objective(drive)[0], loss)
    drive.actions[1, 1] = (drive.actions[1, 1] + 1) % 5
    assert not torch.equal(objective(drive)[0], loss)


def test_the_key_encoder_follows_slowly_and_without_gradients():
    torch.manual_seed(0)
    objective = ATC(encoders.build("small", 6, 64, 96), 5)
    loss, _ = objective(batch())
    loss.backward()
    slow, fast = objective.key_encoder.projection.weight, objective.encoder.projection.weight
    assert slow.grad is None and fast.grad.any()
    before = slow.clone()
    with torch.no_grad():
        fast += 1
    objective.update()
    torch.testing.assert_close(slow, before + ATC.FOLLOW * (fast - before))


def test_unknown_objective_names_the_nearest():
    with pytest.raises(UserError, match="unknown objective 'act'; did you mean 'atc'"):
        objectives.get("act")
