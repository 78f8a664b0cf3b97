"""Heads learnt from few pictures, on made pictures: their colour is the label, or nothing is."""

import pytest
import torch

from evaluation import few_labels, tuning
from evaluation.tuning import Labelled, SegmentationHead, SignalHead
from perception import encoders, lora

SHAPE = (3, 16, 24)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(tuning, "STEPS", 25)
    for kind in (SignalHead, SegmentationHead):
        monkeypatch.setattr(kind, "STEPS", 100)


def encoder(seed: int = 0) -> encoders.Encoder:
    torch.manual_seed(seed)
    return encoders.build("small", *SHAPE).eval().requires_grad_(False)


def coloured(count: int, seed: int = 0) -> Labelled:
    """Noise with one of three channels brighter by a label; four pictures a world."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randint(0, 100, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    images[torch.arange(count), target] += 60
    return Labelled(images, target, torch.arange(count) // 4)


def halves(count: int, seed: int = 0) -> Labelled:
    """Pictures whose left or right half is bright; bright pixels are of class 4, others of class 1. Every second pixel
    has a label.
    """
    generator = torch.Generator().manual_seed(seed)
    left = torch.randint(0, 2, (count,), generator=generator).bool()
    bright = (torch.arange(SHAPE[2]) < SHAPE[2] // 2) == left[:, None]
    images = torch.randint(0, 60, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    images += 150 * bright[:, None, None].to(torch.uint8)
    target = torch.where(bright, 4, 1)[:, None, ::2].expand(-1, SHAPE[1] // 2, -1).contiguous()
    return Labelled(images, target, torch.arange(count) // 4)


def ways(kind, pictures: Labelled, rows: torch.Tensor, net=None, rank: int = 2) -> dict[str, tuning.Learnt]:
    net = encoder() if net is None else net
    with torch.no_grad():
        given = kind.given(net, pictures.images)
    return dict(tuning.learn(kind, net, pictures, given, rows, rank, 0))


def test_few_labels_suffice_where_features_tell():
    """9 labelled pictures of 600 whose colour the features hold: nearly all others are told, in every way."""
    pictures, test = coloured(600), coloured(300, seed=1)
    for way, net in ways(SignalHead, pictures, few_labels.drawn(pictures, 0.015, 0)).items():
        assert SignalHead.score(net.read(test.images), test.target) > 0.9, way


def test_labels_that_say_nothing_give_chance():
    """Of three colours dealt out at random to the pictures, a third is right, whatever was learnt: 300 of 900, with a
    deviation of 14.
    """
    pictures, test = coloured(300), coloured(900, seed=1)
    dealt = torch.randint(0, 3, (1200,), generator=torch.Generator().manual_seed(2))
    blind = Labelled(pictures.images, dealt[:300], pictures.worlds)
    for way, net in ways(SignalHead, blind, torch.arange(300)).items():
        assert abs(int((net.read(test.images) == dealt[300:]).sum()) - 300) < 5 * 14, way


def test_pixels_are_told_from_few_pictures():
    pictures, test = halves(200), halves(100, seed=1)
    for way, net in ways(SegmentationHead, pictures, torch.arange(0, 200, 20)).items():
        said = net.read(test.images)
        assert said.shape == test.target.shape and SegmentationHead.score(said, test.target) > 0.95, way


def test_each_way_changes_what_it_may_and_nothing_else():
    """The encoder that is gone out from stays; adapters leave its weights; all weights move."""
    pictures, net = coloured(80), encoder()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = ways(SignalHead, pictures, torch.arange(80), net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert found["head"].encoder is net

    adapted = found["lora"].encoder
    originals = {name: value for name, value in adapted.state_dict().items() if not name.endswith((".0.a", ".0.b"))}
    for name, value in originals.items():
        assert torch.equal(value, before[name.replace("parametrizations.weight.original", "weight")]), name
    assert len(originals) == len(before) and any(adapter.b.any() for adapter in lora.adapters(adapted).values())

    for name, value in found["all"].encoder.state_dict().items():
        assert not torch.equal(value, before[name]), name


def test_what_learns_is_counted():
    """Against the sizes written out: 256 features, a hidden layer of 256, 3 colours; rank times (inputs + outputs)."""
    found = ways(SignalHead, coloured(40), torch.arange(40), rank=2)
    head = 256 * 256 + 256 + 256 * 3 + 3
    layers = [(32, 3 * 16), (64, 32 * 9), (64, 64 * 9), (256, 64 * 1 * 2)]
    assert found["head"].count == head
    assert found["lora"].count == head + sum(2 * (outputs + inputs) for outputs, inputs in layers)
    norm = 2 * 256
    assert found["all"].count == head + norm + sum(outputs * (inputs + 1) for outputs, inputs in layers)


def test_held_out_worlds_decide_when_to_stop():
    """Labels that are right in the learnt worlds and wrong in the held-out ones: every step makes it worse there, so
    that what was at the beginning is kept.
    """
    pictures = coloured(100)
    held = tuning.held_out(pictures.worlds)
    assert 0 < held.sum() < 50
    target = torch.where(held, (pictures.target + 1) % 3, pictures.target)
    net = ways(SignalHead, Labelled(pictures.images, target, pictures.worlds), torch.arange(100))["all"]
    before = encoder()
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in net.encoder.state_dict().items())


def test_smaller_shares_are_parts_of_larger_ones():
    pictures = coloured(500)
    rows = [set(few_labels.drawn(pictures, share, 3).tolist()) for share in few_labels.SHARES]
    assert [len(some) for some in rows] == [5, 15, 50, 150, 500]
    assert all(small < large for small, large in zip(rows, rows[1:], strict=False))
    assert len(few_labels.drawn(coloured(20), 0.01, 0)) == 2


def test_two_pictures_of_one_world_can_be_learnt_from():
    pictures = coloured(40)
    assert len(pictures.worlds[:2].unique()) == 1
    for net in ways(SignalHead, pictures, torch.arange(2)).values():
        assert set(net.read(pictures.images[:2]).tolist()) <= set(pictures.target[:2].tolist())
