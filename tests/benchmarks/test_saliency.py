"""The figures that say how far saliency can be believed."""

import numpy as np
import pytest
import scipy.stats
import torch

from agents import policies
from agents.saliency import Saliency
from benchmarks.saliency import lost, rank_correlations, shuffled
from perception.saliency import blurred


@pytest.fixture(scope="module")
def policy():
    return policies.load("zoo/highway-ppo")


def test_rank_correlations_are_spearmans():
    a, b = torch.rand(3, 5, 7), torch.rand(3, 5, 7)
    expected = [scipy.stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, a + b, strict=True)]
    assert np.allclose(rank_correlations(a, a + b), expected)


def test_shuffling_keeps_the_weights_of_a_layer_and_the_policy(policy):
    torn = shuffled(policy, 3)
    before, after = (dict(each.encoder.named_parameters()) for each in (policy, torn))
    for name, weight in before.items():
        assert not torch.equal(weight, after[name])
        assert torch.equal(weight.flatten().sort().values, after[name].flatten().sort().values)
    again = dict(shuffled(policy, 3).network.named_parameters())
    for name, weight in torn.network.named_parameters():
        assert torch.equal(weight, again[name])


def test_what_is_lost_is_measured_on_the_blurred_places(policy):
    look, generator = Saliency(policy), torch.Generator().manual_seed(0)
    camera = torch.randint(0, 256, (2, 6, 64, 96), dtype=torch.uint8, generator=generator)
    obs, actions = {"camera": camera, "speed": torch.rand(2, 1)}, torch.tensor([1, 3])
    shares = torch.zeros(2, 64, 96)
    assert lost(look, obs, actions, shares).tolist() == [0.0, 0.0]
    shares[:, 10:20, 30:60] = 1.0
    pixels = camera.float()
    pixels[:, :, 10:20, 30:60] = blurred(pixels, (40, 24))[:, :, 10:20, 30:60]
    expected = look.decision(camera.float(), obs["speed"], actions) - look.decision(pixels, obs["speed"], actions)
    torch.testing.assert_close(lost(look, obs, actions, shares), expected)
