"""Augmentation: what it may change, and what it must not."""

import pytest
import scipy.ndimage
import torch

from perception.augment import NOISE_BANK, Augmentation, Strength, blurred

NOTHING = {"brightness": 0, "contrast": 0, "bend": 0, "noise": 0, "blur": 0, "occlusion": 0}


def images(count: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, 6, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def only(**strength) -> Augmentation:
    return Augmentation(strength=Strength(**NOTHING | strength))


def test_no_strength_changes_nothing():
    assert torch.equal(only()(images()), images())


def test_everything_on_keeps_shape_and_type_and_changes_every_image():
    changed = Augmentation()(images())
    assert changed.shape == images().shape and changed.dtype == torch.uint8
    assert (changed != images()).flatten(1).any(1).all()


@pytest.mark.parametrize("strength", [{"brightness": 0.2}, {"contrast": 0.3}, {"bend": 0.4}])
def test_photometric_is_one_rising_curve_for_all_colours_and_frames(strength):
    """So a red lamp stays redder than it is green, in both frames of the stack, and grey stays grey."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4, 6, 16, 16)
    changed = only(**strength)(ramp.contiguous())
    assert (changed == changed[:, :1]).all()
    assert (changed[:, 0].flatten(1).int().diff(dim=1) >= 0).all()
    assert not torch.equal(changed, ramp)


def test_noise_has_the_deviation_it_says():
    grey = torch.full((200, 6, 16, 16), 128, dtype=torch.uint8)
    deviation = (only(noise=0.1)(grey).float() - 128).flatten(1).std(1) / 255
    assert deviation.max() < 0.105 and deviation.mean() == pytest.approx(0.05, abs=0.01)


def test_full_blur_is_the_mean_of_three_by_three():
    x = images(2).float()
    expected = scipy.ndimage.uniform_filter(x.numpy(), size=(1, 1, 3, 3), mode="nearest")
    torch.testing.assert_close(blurred(x, torch.full((2,), 1 / 3)), torch.from_numpy(expected), rtol=0, atol=1e-2)


def test_occlusion_is_one_grey_rectangle_in_all_frames():
    changed = only(occlusion=1.0, patch=0.5)(images(32))
    covered = (changed != images(32)).any(1)
    for image, mask in zip(changed, covered, strict=True):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        inside = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert (inside == inside[0, 0, 0]).all()
        assert inside.shape[1] <= 0.5 * 32 + 1 and inside.shape[2] <= 0.5 * 48 + 1


def test_goes_on_from_its_state():
    augmentation = Augmentation(seed=3)
    augmentation(images())
    state = augmentation.state()
    after = augmentation(images())
    again = Augmentation(seed=3)
    again.set_state(state)
    assert torch.equal(again(images()), after)
    assert not torch.equal(augmentation(images()), after)


def test_noise_of_images_larger_than_the_bank():
    grey = torch.full((2, 6, 320, 320), 128, dtype=torch.uint8)
    assert grey[0].numel() > NOISE_BANK
    first, second = only(noise=0.1)(grey).float() - 128
    assert (first.std() / 255).item() <= 0.105 and abs(
        torch.corrcoef(torch.stack([first, second]).flatten(1))[0, 1]
    ) < 0.9


def test_an_image_is_changed_alike_in_any_company():
    """Numbers are drawn for the whole batch, in which images are then changed in small groups."""
    batch = images(40)
    together = only(brightness=0.2, contrast=0.3, blur=0.5, occlusion=0.5, noise=0.05, patch=0.5)(batch)
    strange = torch.cat([255 - batch[:17], batch[17:]])
    assert torch.equal(
        only(brightness=0.2, contrast=0.3, blur=0.5, occlusion=0.5, noise=0.05, patch=0.5)(strange)[17:], together[17:]
    )
