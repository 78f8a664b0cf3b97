"""The objectives that rebuild or turn images: masked autoencoding, beta-VAE, denoising, rotation."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from envs.errors import UserError
from perception import encoders
from perception.objectives.beta_vae import beta_vae, divergence
from perception.objectives.denoising import noisy, pixel_error
from perception.objectives.mae import FLAT, GREY, masked_error, paint_over
from perception.objectives.pixels import PATCH, PatchDecoder, patches, scaled
from perception.objectives.rotation import turned, which_turn


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def images(count: int = 4, height: int = 16, width: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_patches_are_cut_row_by_row():
    x = images()
    cut = patches(x)
    assert cut.shape == (4, 2 * 3, 3 * PATCH**2)
    for row in range(2):
        for column in range(3):
            square = x[:, :, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
            assert torch.equal(cut[:, 3 * row + column], square.flatten(1))


def test_images_that_are_no_whole_number_of_patches():
    with pytest.raises(UserError, match="images of 16x20 pixels cannot be cut into patches of 8x8"):
        patches(images(width=20))


def test_the_decoder_draws_as_many_patches_as_the_image_has():
    encoder = encoders.build("small", 6, 32, 48)
    assert PatchDecoder(encoder, 10)(normal(3, 10)).shape == patches(torch.zeros(3, 6, 32, 48)).shape


def test_images_are_scaled_as_for_the_encoder():
    assert scaled(torch.tensor([0, 128, 192], dtype=torch.uint8)).tolist() == [-2, 0, 1]


def test_masked_error_of_normalised_patches():
    true = normal(2, 6, 12) * 3 + 5
    exact = (true - true.mean(2, keepdim=True)) / (true.var(2, keepdim=True, correction=0) + FLAT).sqrt()
    masked = torch.zeros(2, 6, dtype=torch.bool)
    masked[0, 1] = masked[1, 4] = True
    drawn = exact + 100  # wrong by far, except where it counts
    drawn[masked] = exact[masked] + 0.5
    assert masked_error(drawn, true, masked).item() == pytest.approx(0.25, rel=1e-4)
    assert masked_error(exact, true, masked).item() == pytest.approx(0, abs=1e-9)
    assert masked_error(drawn, true, torch.zeros_like(masked)).item() == 0


def test_light_and_contrast_do_not_change_what_is_to_be_drawn():
    true, drawn, all_masked = normal(2, 6, 192), normal(2, 6, 192, seed=1), torch.ones(2, 6, dtype=torch.bool)
    brighter = masked_error(drawn, 2 * true + 1, all_masked)
    torch.testing.assert_close(brighter, masked_error(drawn, true, all_masked), rtol=1e-2, atol=0)


def test_all_channels_lose_the_same_patches():
    masked = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    painted = patches(paint_over(images(), masked))
    assert (painted[masked] == GREY).all()
    assert torch.equal(painted[~masked], patches(images())[~masked])


def test_divergence_against_torch():
    mean, log_variance = normal(5, 7), normal(5, 7, seed=1)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_beta_vae_is_minus_the_evidence_bound_for_beta_one():
    drawn, true, mean, log_variance = normal(5, 30), normal(5, 30, seed=1), normal(5, 7), normal(5, 7, seed=2)
    likelihood = Normal(drawn, 1.0).log_prob(true).sum(1) + 30 * math.log(2 * math.pi) / 2
    bound = likelihood - divergence(mean, log_variance)
    torch.testing.assert_close(beta_vae(drawn, true, mean, log_variance, 1.0), -bound.mean() / 30)
    extra = beta_vae(drawn, true, mean, log_variance, 4.0) - beta_vae(drawn, true, mean, log_variance, 1.0)
    torch.testing.assert_close(extra, 3 * divergence(mean, log_variance).mean() / 30)
    nothing = torch.zeros(5, 7)
    assert beta_vae(true, true, nothing, nothing, 4.0).item() == 0


def test_noise_is_added_and_clipped():
    x = torch.tensor([10, 128, 250], dtype=torch.uint8)
    assert noisy(x, torch.tensor([-20.0, 2.6, 20.0])).tolist() == [0, 131, 255]
    assert torch.equal(noisy(images(), torch.zeros(images().shape)), images())
    assert pixel_error(torch.ones(2, 3, 4), torch.full((2, 3, 4), 3.0)).item() == 4


def test_the_middle_square_is_turned_as_numpy_turns():
    x, turns = images(), torch.arange(4)
    result = turned(x, turns)
    for k in range(4):
        assert np.array_equal(result[k, :, :, 4:20], np.rot90(x[k, :, :, 4:20], k, (1, 2)))
    assert (result[..., :4] == 128).all() and (result[..., 20:] == 128).all()
    assert torch.equal(turned(images(height=16, width=16), torch.zeros(4, dtype=torch.int64)), images(4, 16, 16))


def test_guessing_the_turn_costs_log_4():
    loss, _ = which_turn(torch.zeros(8, 4), torch.arange(8) % 4)
    assert loss.item() == pytest.approx(math.log(4))
    assert which_turn(9 * torch.eye(4), torch.arange(4))[1].item() == 1
