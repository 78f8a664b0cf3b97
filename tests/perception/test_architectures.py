"""IMPALA's network, ViT-Ti and pictures each by itself, against what was published and torch's own modules."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from envs.errors import UserError
from perception import encoders, objectives
from perception.encoders import ImpalaEncoder, RigEncoder, VisionTransformer

SHAPE = (6, 64, 96)
PAGE = Path(__file__).parents[2] / "docs" / "perception.md"


def images(count: int, shape: tuple[int, int, int] = SHAPE) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_impala_has_the_layers_and_parameters_of_the_published_one():
    """15 layers, the fully connected one and the LSTM of figure 3 not among the 15 convolutions; with Procgen's 64x64
    images, 15 actions and a value, 626,256 parameters (Trumpp et al. 2025, arXiv:2503.05546).
    """
    encoder = ImpalaEncoder(3, 64, 64, features=256)
    assert sum(isinstance(layer, nn.Conv2d) for layer in encoder.modules()) == 15
    assert count(encoder) - count(encoder.norm) + count(nn.Linear(256, 15)) + count(nn.Linear(256, 1)) == 626_256
    assert encoder.map_shape == (32, 8, 8)


def test_impala_is_what_the_paper_draws():
    """Written out in torch's operations, in float32 and on scaled pixels."""
    encoder = ImpalaEncoder(*SHAPE, features=256)
    x = (images(2).float() - 128) / 64
    for section in encoder.sections:
        x = F.max_pool2d(section.convolution(x), 3, 2, 1)
        for block in section.blocks:
            x = x + block.second(block.first(x.relu()).relu())
    with encoders.single_precision():
        torch.testing.assert_close(encoder.maps(images(2)), x.relu(), rtol=1e-3, atol=1e-3)


def test_an_image_keeps_its_scale_through_impala_at_the_start():
    torch.manual_seed(0)
    maps = ImpalaEncoder(*SHAPE, features=None).maps(images(4)).float()
    assert 0.3 < maps.square().mean().sqrt() < 10


def test_vit_tiny_has_the_parameters_of_the_published_one():
    """5,717,416 with 224x224 pixels, patches of 16 and 1,000 classes, less class token, its position and classifier;
    squeezing and projection are ours.
    """
    vit = VisionTransformer(3, 224, 224, features=None, patch=16)
    published = 5_717_416 - 2 * 192 - count(nn.Linear(192, 1000))
    assert count(vit) - count(vit.squeeze) == published


def test_vit_is_torchs_transformer():
    """With the same weights, in float32."""
    torch.manual_seed(0)
    vit = VisionTransformer(*SHAPE, features=None)
    for parameter in vit.parameters():  # no bias is 0, no norm the identity
        parameter.data += 0.02 * torch.randn_like(parameter)
    layer = nn.TransformerEncoderLayer(192, 3, 768, 0.0, "gelu", batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    for block, same in zip(vit.blocks, theirs.layers, strict=True):
        pairs = (block.qkv.weight, same.self_attn.in_proj_weight), (block.qkv.bias, same.self_attn.in_proj_bias)
        for ours, copy in (*pairs, (block.out.weight, same.self_attn.out_proj.weight)):
            copy.data.copy_(ours)
        same.self_attn.out_proj.bias.data.copy_(block.out.bias)
        for name in ("linear1", "linear2", "norm1", "norm2"):
            getattr(same, name).load_state_dict(getattr(block, name).state_dict())
    x = vit.patches((images(2).float() - 128) / 64).flatten(2).transpose(1, 2) + vit.positions
    expected = vit.squeeze(vit.last_norm(theirs(x))).transpose(1, 2).unflatten(2, (8, 12))
    with encoders.single_precision():
        torch.testing.assert_close(vit.maps(images(2)), expected, rtol=1e-3, atol=1e-4)


def test_a_cell_of_vit_stands_where_its_patch_does():
    """Attention off, a patch is seen in its own cell only."""
    vit = VisionTransformer(*SHAPE, features=None).requires_grad_(False)
    for block in vit.blocks:
        block.out.weight.zero_()
    changed = images(1).clone()
    changed[..., 16:24, 40:48] = 255 - changed[..., 16:24, 40:48]
    moved = (vit.maps(changed) != vit.maps(images(1))).any(1)[0]
    assert moved.nonzero().tolist() == [[2, 5]]


def test_images_that_cannot_be_cut_into_patches():
    with pytest.raises(UserError, match="images of 60x96 pixels cannot be cut into patches of 8x8"):
        encoders.build("vit_tiny", 6, 60, 96)


@pytest.mark.parametrize("name", ["small", "impala", "vit_tiny"])
def test_cameras_of_one_size_share_a_trunk(name):
    """Three pictures, two of a size: their maps change places with them, and nobody sees another's."""
    encoder = encoders.build(name, 3, 80, 96, cameras=(32, 16, 32)).requires_grad_(False)
    assert isinstance(encoder, RigEncoder) and list(encoder.trunks) == ["32", "16"]
    first, second, third = images(2, (3, 80, 96)).split((32, 16, 32), 2)
    maps = encoder.maps(torch.cat([first, second, third], 2))
    swapped = encoder.maps(torch.cat([third, second, first], 2))
    rows = [encoder.trunks[key].map_shape[1] for key in ("32", "16", "32")]
    parts, others = maps.split(rows, 2), swapped.split(rows, 2)
    assert torch.equal(parts[0], others[2]) and torch.equal(parts[1], others[1]) and torch.equal(parts[2], others[0])
    assert torch.equal(parts[0], encoder.trunks["32"].maps(first))
    features = encoder(torch.cat([first, second, third], 2))
    assert features.shape == (2, encoder.features) and features.dtype == torch.float32
    assert not torch.equal(features, encoder(torch.cat([third, second, first], 2)))  # which camera it was is known


def test_all_of_a_rigs_encoder_learns():
    encoder = encoders.build("small", *SHAPE, cameras=(40, 24))
    encoder(images(4)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_the_page_says_how_large_each_is(name):
    """Weights and multiply-adds, counted by torch."""
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    maps, weights, multiply_adds = (cell.strip() for cell in row.split("|")[3:6])
    encoder = encoders.build(name, *SHAPE).requires_grad_(False)
    with encoders.single_precision(), FlopCounterMode(display=False) as counter:
        encoder(images(1))
    assert maps == "x".join(map(str, encoder.map_shape))
    unit = {"M": 1e6, "G": 1e9}
    for said, counted in ((weights, count(encoder)), (multiply_adds, counter.get_total_flops() / 2)):
        assert float(said[:-1]) * unit[said[-1]] == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("cameras", [(40, 40), (64, 0)])
def test_pictures_that_do_not_make_up_the_image(cameras):
    with pytest.raises(UserError, match="do not make up an image of 64 rows"):
        encoders.build("small", *SHAPE, cameras=cameras)


def test_a_rigs_encoder_comes_back_from_its_folder(tmp_path):
    encoder = encoders.build("small", *SHAPE, cameras=(40, 24))
    encoders.save(encoder, tmp_path, {"encoder": "small"})
    assert encoders.read_card(tmp_path)["cameras"] == [40, 24]
    assert torch.equal(encoders.load(tmp_path)(images(4)), encoder(images(4)))
    again = encoders.rebuild(encoders.architecture(encoders.read_card(tmp_path)))
    assert again.state_dict().keys() == encoder.state_dict().keys()


@pytest.mark.parametrize("name", ["impala", "vit_tiny"])
def test_places_are_contrasted_in_every_encoders_maps(name):
    torch.manual_seed(0)
    drive = images(6, (3, 32, 32)).view(3, 2, 3, 32, 32)
    actions = torch.zeros(3, 2, dtype=torch.int64)
    objective = objectives.get("atc")(encoders.build(name, 3, 32, 32), 5)
    loss, figures = objective(objectives.Batch(drive, drive, actions, actions))
    loss.backward()
    assert figures["features"].shape == (6, 256)
    assert all(parameter.grad.isfinite().all() for parameter in objective.encoder.parameters())
