"""What holds for every objective: it learns, gradients go only where they should, and it goes on exactly."""

import pytest
import torch
import torch.nn.functional as F

from agents import checkpoint
from perception import encoders, objectives
from perception.augment import Augmentation
from perception.data import DrivingData
from perception.objectives.heads import follow, mlp
from perception.pretraining import Pretraining, Settings

TIMES, WORLDS = 5, 4
SMALL = Settings(steps=4, worlds_per_batch=4, passes=1)
# Of the first loss, what is left after a few steps by heart. Twenty images cannot fill VICReg's and Barlow Twins' 512
# directions; MoCo is here kept from moving its keys.
LEFT = {"vicreg": 0.95, "vicreg_temporal": 0.9, "barlow_twins": 0.9, "moco": 1.0, "mae": 0.7, "beta_vae": 0.7}
# What the actions, the order of the images or another view cannot make worse: nothing is paired.
UNPAIRED = {"rotation"}
FOLLOWERS = ("key_encoder", "key_projector", "key_projection_copy", "target_encoder", "target_proj")


def batch() -> objectives.Batch:
    """Images of a few large blocks, each seen a second time in another light."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 2, (TIMES * WORLDS, 6, 2, 3), generator=generator) * 255.0
    images = F.interpolate(blocks, size=(32, 48)).to(torch.uint8).view(TIMES, WORLDS, 6, 32, 48)
    actions = torch.randint(0, 5, (TIMES, WORLDS), generator=generator)
    second = (images * 0.8 + 20).to(torch.uint8)
    return objectives.Batch(images, images, actions, torch.zeros_like(actions), second)


def shuffled(drive: objectives.Batch) -> objectives.Batch:
    """Every pair torn apart: over time, between views, and between what was seen and what it shows."""
    moved = torch.stack([images.roll(t, 0) for t, images in enumerate(drive.augmented)])
    plain, second = drive.plain.roll(1, 0).roll(1, 1), drive.second.roll(1, 0)
    return objectives.Batch(moved, plain, drive.actions, drive.episodes, second)


def build(name: str, seed: int = 0) -> objectives.Objective:
    torch.manual_seed(seed)
    return objectives.get(name)(encoders.build("small", 6, 32, 48), 5)


def learn(objective: objectives.Objective, steps: int, update: bool = True) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(steps):
        loss, _ = objective(batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update:
            objective.update()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_learns_a_batch_by_heart_and_torn_pairs_are_worse(name):
    objective = build(name)
    # With its queue filled over and over with the very images it is asked for, MoCo could not tell them apart.
    first, *_ = learn(objective, 40, update=name != "moco")
    loss, figures = objective(batch())
    assert loss.item() < LEFT.get(name, 0.5) * first
    assert figures["features"].shape == (TIMES * WORLDS, 256) and not figures["features"].requires_grad
    if name not in UNPAIRED:
        assert objective(shuffled(batch()))[0].item() > 1.1 * loss.item()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_gradients_reach_all_that_is_trained_and_nothing_that_follows(name):
    objective = build(name)
    objective(batch())[0].backward()
    for parameter_name, parameter in objective.named_parameters():
        follows = parameter_name.startswith(FOLLOWERS)
        assert parameter.requires_grad != follows, parameter_name
        assert (parameter.grad is None) == follows, parameter_name
        assert follows or parameter.grad.isfinite().all(), parameter_name
    assert objective.encoder.convolutions[0].weight.grad.any()


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_goes_on_exactly_from_its_state(name):
    objective = build(name)
    learn(objective, 2)
    resumed = build(name, seed=1)
    resumed.load_state_dict({key: value.clone() for key, value in objective.state_dict().items()})
    for _ in range(2):
        assert torch.equal(resumed(batch())[0], objective(batch())[0])
        resumed.update()
        objective.update()


@pytest.mark.parametrize("name", [name for name in objectives.OBJECTIVES if hasattr(objectives.get(name), "FOLLOW")])
def test_followers_move_by_their_share(name):
    objective = build(name)
    objective(batch())
    leaders = dict(objective.encoder.named_parameters())
    follower = objective.key_encoder if hasattr(objective, "key_encoder") else objective.target_encoder
    before = {key: value.clone() for key, value in follower.named_parameters()}
    with torch.no_grad():
        for leader in leaders.values():
            leader += 1
    objective.update()
    for key, value in follower.named_parameters():
        torch.testing.assert_close(value, before[key] + objective.FOLLOW * (leaders[key] - before[key]))


def test_vicreg_over_time_does_not_pair_two_episodes():
    """The last image of one world is alone in its episode: what it shows changes nothing."""
    objective, drive = build("vicreg_temporal"), batch()
    objective.expander = mlp(256, 64, normalized=False)  # batch normalisation would let every image touch every other
    drive.episodes[-1, 2] = 1
    loss, _ = objective(drive)
    other = drive.augmented.clone()
    other[-1, 2] = 255 - other[-1, 2]
    changed = objectives.Batch(other, other, drive.actions, drive.episodes)
    torch.testing.assert_close(objective(changed)[0], loss)
    drive.episodes[-1, 2] = 0
    assert not torch.isclose(objective(drive)[0], objective(changed)[0])


def test_follow_is_a_weighted_mean():
    slow, fast = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = 0.75 * slow.weight + 0.25 * fast.weight
    follow(slow, fast, 0.25)
    torch.testing.assert_close(slow.weight, expected)


@pytest.fixture(scope="module")
def data() -> DrivingData:
    return DrivingData("highway-fast", 8, "cpu")


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_the_trainer_goes_on_exactly_from_a_checkpoint(name, data, tmp_path):
    """One iteration, written to a file, and one more: the same figures and weights as of other weights and random
    numbers that were replaced by the file's.
    """

    def training(seed: int) -> Pretraining:
        torch.manual_seed(seed)
        encoder = encoders.build("small", *data.image.shape[1:])
        return Pretraining(encoder, name, data, Augmentation(), SMALL, seed)

    unbroken = training(0)
    started = unbroken.iterate(0.1)
    checkpoint.write(tmp_path / checkpoint.NAME, unbroken.state(), {})
    expected = unbroken.iterate(0.5)
    resumed = training(1)
    resumed.set_state(checkpoint.read(tmp_path / checkpoint.NAME)[0])
    assert resumed.iterate(0.5) == expected
    for key, value in unbroken.objective.state_dict().items():
        assert torch.equal(resumed.objective.state_dict()[key], value), key
    assert {"loss", "spread", "rankme", "uniformity", "alignment"} <= set(started)
    assert 1 <= started["rankme"] <= 32 and not {"rankme"} & set(expected)
