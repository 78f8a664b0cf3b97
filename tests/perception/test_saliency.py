"""Saliency of a decision, on encoders whose decisions are known."""

import pytest
import torch
from torch import nn

from envs.errors import UserError
from perception import encoders, saliency
from perception.saliency import METHODS, Decision

SHAPE, ROWS = (6, 40, 48), (24, 16)
LOCAL = [method for method in METHODS if method != "gradcam"]


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Noise of which something is left at every scale."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, SHAPE[0], 10, 12, generator=generator)
    fine = torch.rand(count, *SHAPE, generator=generator)
    large = nn.functional.interpolate(coarse, SHAPE[1:], mode="nearest")
    return (255 * (0.7 * large + 0.3 * fine)).to(torch.uint8)


def decision() -> Decision:
    """A decision on random features, which also knows how fast it goes."""
    torch.manual_seed(0)
    encoder = encoders.build("small", *SHAPE).requires_grad_(False)
    head = nn.Sequential(nn.Linear(encoder.features + 1, 32), nn.Tanh(), nn.Linear(32, 1)).requires_grad_(False)
    return Decision(encoder, lambda features, speed: head(torch.cat([features, speed], 1)).squeeze(1), ROWS)


def reading(cell: tuple[int, int]) -> Decision:
    """A decision that is the more sure, the more the last convolution finds in one of its cells."""
    torch.manual_seed(1)
    encoder = encoders.build("small", *SHAPE).requires_grad_(False)
    weight = encoder.projection.weight.view(-1, *encoder.map_shape)
    kept = weight[:, :, cell[0], cell[1]].abs()
    weight.zero_()
    weight[:, :, cell[0], cell[1]] = kept
    encoder.norm = nn.Identity()
    return Decision(encoder, lambda features: features.sum(1), ROWS)


@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_a_decision_is_made_on_the_encoders_features(name, monkeypatch):
    monkeypatch.setattr("perception.encoders.base.has_bfloat16", lambda device: False)
    torch.manual_seed(0)
    encoder = encoders.build(name, *SHAPE)
    found = Decision(encoder, lambda features: features, ROWS)(images(3).float())
    torch.testing.assert_close(found, encoder(images(3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_shape_and_normalisation(method):
    eye, speed = decision(), torch.rand(2, 1)
    found = saliency.saliency(eye, images(2), speed, method=method)
    assert found.shape == (2, *SHAPE[1:]) and found.dtype == torch.float32 and not found.requires_grad
    assert found.min() >= 0 and found.amax((1, 2)).tolist() == pytest.approx([1.0, 1.0])
    signed = saliency.shares(eye, images(2), speed, method=method)
    assert torch.equal(signed.abs(), found)
    # What speaks for a decision speaks against its opposite.
    against = Decision(eye.encoder, lambda *seen: -eye.head(*seen), ROWS)
    if method != "gradcam":  # which keeps one side of it
        torch.testing.assert_close(saliency.shares(against, images(2), speed, method=method), -signed)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_worlds(method, monkeypatch):
    monkeypatch.setattr(saliency, "CHUNK", 7)  # cuts both worlds and patches
    eye, speed = decision(), torch.rand(9, 1)
    together = saliency.saliency(eye, images(9), speed, method=method)
    alone = [saliency.saliency(eye, images(9)[k : k + 1], speed[k : k + 1], method=method) for k in (0, 6, 8)]
    torch.testing.assert_close(together[[0, 6, 8]], torch.cat(alone), rtol=0, atol=2e-4)


def test_integrated_gradients_are_complete(monkeypatch):
    """They add up to what the decision differs by from that on the blurred picture, the better the finer the path."""
    eye, pixels, speed = decision(), images(4).float(), torch.rand(4, 1)
    soft = saliency.blurred(pixels, ROWS)
    difference = eye(pixels, speed) - eye(soft, speed)
    errors = []
    for steps in (4, 256):
        monkeypatch.setattr(saliency, "STEPS", steps)
        shares = saliency.path_attributions(eye, pixels, speed)
        assert shares.shape == pixels.shape
        errors.append((shares.sum((1, 2, 3)) - difference).abs().max() / difference.abs().max())
    assert errors[1] < 0.01 and errors[1] < errors[0] / 4


def test_integrated_gradients_of_a_linear_decision_are_its_weights_times_the_change():
    """In closed form: the head sees nothing but a weighted sum of pixels."""

    class Linear(Decision):
        def forward(self, pixels, *beside):
            return (pixels * self.weights).sum((1, 2, 3))

    eye, pixels = Linear(encoders.build("small", *SHAPE), lambda features: features, ROWS), images(2).float()
    eye.weights = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    expected = eye.weights * (pixels - saliency.blurred(pixels, ROWS))
    torch.testing.assert_close(saliency.path_attributions(eye, pixels), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", LOCAL)
@pytest.mark.parametrize("cell", [(1, 1), (1, 2), (2, 0)])
def test_saliency_is_where_the_decision_reads(method, cell):
    """Whatever else is in the picture. A cell of "small" sees 28 px around 16 px times its index, 1.5 px further."""
    found = saliency.saliency(reading(cell), images(3), method=method)
    beyond = 2 * round(saliency.PATCH)  # patches are soft
    top, left = (16 * index - 12 - beyond for index in cell)
    seen = torch.zeros(SHAPE[1:], dtype=torch.bool)
    seen[max(0, top) : top + 28 + 2 * beyond, max(0, left) : left + 28 + 2 * beyond] = True
    inside = (found * seen).sum((1, 2)) / found.sum((1, 2))
    assert inside.min() > 0.9
    assert seen.flatten()[found.flatten(1).argmax(1)].all()


@pytest.mark.parametrize(("name", "cameras"), [*((name, None) for name in encoders.ENCODERS), ("small", (72, 24))])
def test_a_map_is_drawn_where_its_cells_look(name, cameras):
    """What dots on a grey picture change in the map is drawn around the dots, in the mean over many of them."""
    off = []
    for seed in range(4):  # kernels drawn at random are askew, each in its own way
        torch.manual_seed(seed)
        encoder = encoders.build(name, 3, 96, 96, cameras).requires_grad_(False)
        rows, columns = torch.randint(40, 56, (2, 10))  # far from the edges, where maps end
        pixels = torch.zeros(11, 3, 96, 96)
        pixels[torch.arange(10), :, rows, columns] = 100.0
        maps = encoder.convolve(pixels)
        changes = (maps[:-1] - maps[-1:]).square().sum(1, keepdim=True)
        drawn = saliency._enlarged(changes**2, encoder)  # attention changes something everywhere
        assert drawn.shape == (10, 96, 96)
        down, right = drawn.sum(2) @ torch.arange(96.0), drawn.sum(1) @ torch.arange(96.0)
        off.append(torch.stack([down, right]) / drawn.sum((1, 2)) - torch.stack([rows, columns]))
    assert torch.cat(off, 1).mean(1).abs().max() < 2


@pytest.mark.parametrize("method", LOCAL)
def test_a_rig_seen_picture_by_picture(method):
    torch.manual_seed(0)
    encoder = encoders.build("small", *SHAPE, ROWS).requires_grad_(False)
    along = torch.randn(encoder.features)
    encoder.projection.weight.view(-1, *encoder.map_shape)[:, :, 2:] = 0.0  # what the lower camera finds
    found = saliency.saliency(Decision(encoder, lambda features: features @ along, ROWS), images(2), method=method)
    assert encoder.map_shape[1] == 3 and found.shape == (2, *SHAPE[1:])
    assert found[:, :24].amax((1, 2)).tolist() == pytest.approx([1.0, 1.0])
    assert found[:, 24:].max() < 1e-5


def test_grad_cam_may_point_where_nothing_is_read():
    """It takes a channel's mean gradient for that of each place, which is why it is not the default."""
    found = saliency.saliency(reading((0, 0)), images(3), method="gradcam")
    assert found[:, 28:, 28:].amax((1, 2)).max() > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_who_looks_at_nothing_has_no_saliency(method):
    eye = decision()
    eye.head = lambda features, speed: 3 * speed.squeeze(1) + 0 * features.sum(1)
    assert saliency.saliency(eye, images(2), torch.rand(2, 1), method=method).eq(0).all()


def test_blur_keeps_what_is_flat_and_the_cameras_apart():
    pixels = torch.zeros(1, 3, *SHAPE[1:])
    pixels[:, :, 24:] = 200.0
    assert torch.allclose(saliency.blurred(pixels, ROWS), pixels, atol=1e-3)
    assert saliency.blurred(pixels, (40,))[0, 0, 23, 0] > 50


def test_patches_cover_each_camera_and_no_other():
    first, second = saliency.patches(ROWS, 48)
    assert first.shape == (6, 12, 40, 48) and second.shape == (4, 12, 40, 48)
    assert first[..., 24:, :].max() == 0 and second[..., :24, :].max() == 0
    assert first.amax((0, 1))[:24].min() > 0.7 and first.max() <= 1


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UserError, match="unknown saliency method 'grad-cam'; did you mean 'gradcam'"):
        saliency.saliency(decision(), images(1), torch.rand(1, 1), method="grad-cam")
