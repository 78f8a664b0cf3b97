"""Adapters: what they change, what they leave, and the file they are shared in."""

import pytest
import torch
from torch import nn

from envs.errors import UserError
from perception import encoders, lora, objectives
from perception.encoders import Encoder

SHAPE = (6, 32, 48)
NAMES = ("small", "impala", "vit_tiny")


def images(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def build(name: str = "small", **options) -> Encoder:
    torch.manual_seed(0)
    return encoders.build(name, *SHAPE, **options)


def adapted(name: str = "small", rank: int = 4, **options) -> Encoder:
    """With adapters that do something."""
    encoder = lora.adapt(build(name, **options), rank)
    for adapter in lora.adapters(encoder).values():
        nn.init.normal_(adapter.b, std=0.1)
    return encoder


@pytest.mark.parametrize("name", NAMES)
def test_a_new_adapter_changes_nothing(name):
    assert torch.equal(lora.adapt(build(name), 4)(images()), build(name)(images()))


@pytest.mark.parametrize("name", NAMES)
def test_merged_equals_unmerged_to_the_bit_and_is_a_plain_encoder(name):
    encoder = adapted(name)
    expected = encoder(images())
    assert not torch.equal(expected, build(name)(images()))
    plain = lora.merge(encoder, build(name))
    assert torch.equal(plain(images()), expected) and torch.equal(encoder(images()), expected)
    assert plain.state_dict().keys() == build(name).state_dict().keys() and not lora.adapters(plain)


def test_what_is_added_is_of_low_rank():
    """Against the matrices written out, a convolution's as outputs by inputs times kernel."""
    before, encoder = build().state_dict(), adapted(rank=3)
    found = lora.adapters(encoder)
    assert set(found) == {"convolutions.0", "convolutions.1", "convolutions.2", "projection"}
    parts = {name: (adapter.b.detach(), adapter.a.detach()) for name, adapter in found.items()}
    after = lora.merge(encoder, build()).state_dict()
    for name, (b, a) in parts.items():
        added = (after[f"{name}.weight"] - before[f"{name}.weight"]).flatten(1)
        torch.testing.assert_close(added, b @ a, rtol=1e-4, atol=1e-6)
        assert torch.linalg.matrix_rank(added, rtol=1e-3) == 3
        assert torch.equal(after[f"{name}.bias"], before[f"{name}.bias"])


@pytest.mark.parametrize("name", NAMES)
def test_only_adapters_learn_and_they_are_few(name):
    encoder = adapted(name, rank=2)
    encoder(images()).square().sum().backward()
    learning = {key for key, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert learning == {key for key, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert learning and all(key.endswith((".0.a", ".0.b")) for key in learning)
    few = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
    assert few < 0.06 * sum(parameter.numel() for parameter in build(name).parameters())


def test_a_rank_above_the_matrixs_own_is_the_matrixs_own():
    ranks = {name: len(adapter.a) for name, adapter in lora.adapters(adapted(rank=1000)).items()}
    assert ranks["convolutions.0"] == 32 and ranks["projection"] == 256


def test_a_rank_that_is_none():
    with pytest.raises(UserError, match="must be at least 1, not 0"):
        lora.adapt(build(), 0)


def test_an_objective_trains_adapters_and_its_copy_follows():
    torch.manual_seed(0)
    encoder = adapted(cameras=(16, 16))
    frozen = {name: value.clone() for name, value in encoder.state_dict().items() if name.endswith("original")}
    objective = objectives.get("atc")(encoder, 5)
    drive, zeros = images(6).view(3, 2, *SHAPE), torch.zeros(3, 2, dtype=torch.int64)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(15):
        loss, _ = objective(objectives.Batch(drive, drive, zeros, zeros))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.update()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(encoder.state_dict()[name], value) for name, value in frozen.items())
    leader, follower = lora.adapters(encoder), lora.adapters(objective.key_encoder)
    assert leader.keys() == follower.keys() and not any(p.requires_grad for p in objective.key_encoder.parameters())


def test_the_file_brings_them_back(tmp_path):
    encoder, path = adapted(), tmp_path / lora.NAME
    lora.save(encoder, path, "abc")
    again = lora.load(build(), path, "abc")
    assert torch.equal(again(images()), encoder(images()))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert path.stat().st_size < 60_000 and [file.name for file in tmp_path.iterdir()] == [lora.NAME]


def test_files_that_are_refused(tmp_path):
    path = tmp_path / lora.NAME
    with pytest.raises(UserError, match="no adapters at"):
        lora.load(build(), path, "abc")
    lora.save(adapted(), path, "abc")
    with pytest.raises(UserError, match="belongs to another encoder: to the one of checksum abc, not xyz"):
        lora.load(build(), path, "xyz")
    with pytest.raises(UserError, match="does not fit the encoder"):
        lora.load(encoders.build("nature", 6, 64, 96), path, "abc")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(UserError, match="is damaged: its checksum differs"):
        lora.load(build(), path, "abc")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged, or holds no adapters"):
        lora.load(build(), path, "abc")
