"""Encoders: what they compute, and the folder they are shared in."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from envs.errors import UserError
from envs.sensors.rig import FRONT, SURROUND
from perception import encoders

SHAPE = (6, 64, 96)


def images(count: int, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    encoders.save(
        encoders.build("small", *SHAPE), tmp_path / "zoo", {"encoder": "small", "rig": encoders.describe(SURROUND)}
    )
    return tmp_path / "zoo"


@pytest.mark.parametrize("name", encoders.ENCODERS)
@pytest.mark.parametrize("shape", [SHAPE, (3, 64, 64)])
def test_maps_images_to_features(name, shape):
    encoder = encoders.build(name, *shape)
    features = encoder(images(2, shape))
    assert features.shape == (2, encoder.features) and features.dtype == torch.float32
    assert 256 <= encoder.features <= 512
    assert encoder.maps(images(2, shape)).shape[1:] == encoder.map_shape


def test_small_is_convolutions_of_scaled_pixels(monkeypatch):
    """Against the same layers written out on float pixels, without the byte trick and in float32."""
    monkeypatch.setattr("perception.encoders.base.has_bfloat16", lambda device: False)
    encoder = encoders.build("small", *SHAPE)
    x = (images(3).float() - 128) / 64
    for layer in encoder.convolutions:
        x = F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding).relu()
    x = F.layer_norm(encoder.projection(x.flatten(1)), (encoder.features,))
    torch.testing.assert_close(encoder(images(3)), x, rtol=1e-3, atol=1e-4)


def test_gradients_of_pixels_are_those_of_features(monkeypatch):
    """Floats that ask for gradients give the same features as bytes, and finite differences agree."""
    monkeypatch.setattr("perception.encoders.base.has_bfloat16", lambda device: False)
    encoder = encoders.build("small", *SHAPE).requires_grad_(False)
    pixels = images(1).float().requires_grad_()
    features = encoder(pixels)
    torch.testing.assert_close(features, encoder(images(1)))
    (slope,) = torch.autograd.grad(features[0, 0], pixels)
    step = 0.05 * slope.sign()
    beyond, before = (encoder((pixels + sign * step).detach().requires_grad_())[0, 0] for sign in (1, -1))
    torch.testing.assert_close((beyond - before) / 2, 0.05 * slope.abs().sum(), rtol=0.02, atol=0.0)


def test_bfloat16_changes_features_little(monkeypatch):
    encoder = encoders.build("small", *SHAPE).requires_grad_(False)
    monkeypatch.setattr("perception.encoders.base.has_bfloat16", lambda device: False)
    exact = encoder(images(8))
    monkeypatch.setattr("perception.encoders.base.has_bfloat16", lambda device: True)
    rounded = encoder(images(8))
    assert (rounded - exact).abs().max() < 0.1  # features have unit variance
    with encoders.single_precision():
        assert torch.equal(encoder(images(8)), exact)
    assert torch.equal(encoder(images(8)), rounded)


def test_images_are_encoded_one_by_one():
    """No statistics over the batch: features do not depend on an image's company, nor on how a batch is cut."""
    encoder = encoders.build("small", *SHAPE).requires_grad_(False)
    batch = images(2 * encoders.CHUNK + 3)
    alone = torch.cat([encoder(batch[i : i + 1]) for i in (0, encoders.CHUNK, len(batch) - 1)])
    with torch.no_grad():
        together = encoder(batch)[[0, encoders.CHUNK, len(batch) - 1]]
    torch.testing.assert_close(together, alone, rtol=0, atol=0.03)


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(UserError, match="unknown encoder 'smal'; did you mean 'small'"):
        encoders.build("smal", *SHAPE)


def test_too_small_images():
    with pytest.raises(UserError, match="images of 16x16 pixels are too small"):
        encoders.build("nature", 3, 16, 16)


@pytest.mark.parametrize("wrong", [images(1).float(), images(1, (3, 64, 96)), images(1, (6, 96, 64))])
def test_images_of_another_kind(wrong):
    with pytest.raises(UserError, match=r"the encoder takes uint8 images of \[6, 64, 96\], not"):
        encoders.build("small", *SHAPE)(wrong)


def test_comes_back_as_it_was_saved_and_frozen(tmp_path):
    encoder = encoders.build("small", *SHAPE)
    encoders.save(encoder, tmp_path, {"encoder": "small", "objective": "atc"})
    loaded = encoders.load(tmp_path)
    assert torch.equal(loaded(images(4)), encoder(images(4)))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    card = encoders.read_card(tmp_path)
    assert (card["objective"], card["in_channels"], card["height"], card["width"]) == ("atc", *SHAPE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [encoders.CARD, encoders.WEIGHTS]


def test_other_images_are_refused(folder):
    encoders.load(folder, shape=SHAPE)
    with pytest.raises(UserError, match=r"is for images of \[6, 64, 96\] .*, these are \[3, 64, 96\]"):
        encoders.load(folder, shape=(3, 64, 96))
    with pytest.raises(UserError, match=r"these are \[6, 64, 64\]"):
        encoders.load(folder, shape=(6, 64, 64))


def test_another_rig_is_refused(folder):
    encoders.load(folder, rig=SURROUND)
    with pytest.raises(UserError, match="was trained with camera rig 'surround', this one is 'front'"):
        encoders.load(folder, rig=FRONT)
    turned = dataclasses.replace(
        SURROUND, cameras=(dataclasses.replace(SURROUND.cameras[0], yaw=5.0), SURROUND.cameras[1])
    )
    with pytest.raises(UserError, match="was trained with camera rig 'surround', whose cameras differ"):
        encoders.load(folder, rig=turned)


@pytest.mark.parametrize("name", [encoders.WEIGHTS, encoders.CARD])
def test_a_file_cut_in_half(folder, name):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=name):
        encoders.load(folder)


def test_weights_of_another_card(folder, tmp_path):
    encoders.save(encoders.build("small", *SHAPE), tmp_path / "other", {"encoder": "small"})
    (tmp_path / "other" / encoders.WEIGHTS).rename(folder / encoders.WEIGHTS)
    with pytest.raises(UserError, match="belongs to another encoder.json"):
        encoders.load(folder)


def test_card_that_names_another_architecture(folder):
    card = json.loads((folder / encoders.CARD).read_text())
    (folder / encoders.CARD).write_text(json.dumps(card | {"encoder": "nature"}))
    with pytest.raises(UserError, match="does not hold the weights of encoder 'nature'"):
        encoders.load(folder)


@pytest.mark.parametrize("missing", [encoders.WEIGHTS, encoders.CARD])
def test_a_missing_file(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"no encoder in .*: {missing} is missing"):
        encoders.load(folder)
