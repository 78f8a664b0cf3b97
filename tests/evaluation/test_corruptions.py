"""Corruptions of pictures against their definitions."""

import pytest
import torch

from envs.errors import UserError
from evaluation import backends
from evaluation.adversarial import BOUND
from evaluation.corruptions import CORRUPTIONS, FOG, FOG_GREY, GAIN, NOISE, PATCH, PATCH_GREY, Corrupted, corrupt


def pictures(value: int | None = None, n: int = 3) -> torch.Tensor:
    """Two stacked frames of one value, or of random values."""
    if value is not None:
        return torch.full((n, 6, 40, 48), value, dtype=torch.uint8)
    return torch.randint(0, 256, (n, 6, 40, 48), generator=torch.Generator().manual_seed(3)).to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_seed_gives_the_same_pictures_and_the_first_are_left_alone(kind):
    before = pictures()
    kept = before.clone()
    one, two = (corrupt(before, kind, 3, seeded()) for _ in range(2))
    assert one.dtype == torch.uint8 and one.shape == before.shape
    assert torch.equal(one, two) and torch.equal(before, kept)
    assert kind == "blur" or not torch.equal(one, corrupt(before, kind, 3, seeded(1)))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_stronger_is_farther_from_the_picture(kind):
    before = pictures()
    away = [(corrupt(before, kind, s, seeded()).float() - before).square().mean() for s in (1, 2, 3, 4, 5)]
    assert all(a < b for a, b in zip(away, away[1:], strict=False))


def test_noise_has_its_standard_deviation():
    found = corrupt(pictures(128, n=40), "noise", 2, seeded()).float()
    assert found.std() == pytest.approx(NOISE[1], rel=0.02) and found.mean() == pytest.approx(128, abs=0.2)


def test_blur_spreads_a_line_over_its_width_and_no_row_into_another():
    before = pictures(0, n=1)
    before[:, :, 7, 20] = 210
    found = corrupt(before, "blur", 2, seeded())
    assert (found[:, :, 7, 18:23] == 42).all() and found.sum() == before.sum()  # 210 over 5 px


def test_fog_takes_contrast_away():
    black, white = (corrupt(pictures(v, n=200), "fog", 3, seeded()).float().mean() for v in (0, 255))
    assert (white - black) / 255 == pytest.approx(1 - FOG[2], abs=0.01)
    assert black == pytest.approx(FOG[2] * FOG_GREY, abs=2)


def test_low_light_is_darker_by_its_gain():
    assert corrupt(pictures(200, n=20), "low-light", 4, seeded()).float().mean() == pytest.approx(
        200 * GAIN[3], abs=0.2
    )


def test_a_patch_covers_its_share_of_every_frame_alike():
    found = corrupt(pictures(255, n=50), "occlusion", 4, seeded())
    covered = found == PATCH_GREY
    assert covered.float().mean() == pytest.approx(PATCH[3], rel=0.05)
    assert torch.equal(covered, covered[:, :1].expand_as(covered))
    assert len(covered[:, 0].flatten(1).unique(dim=0)) > 40  # every world its own


def test_signs_are_one_bound_away_within_the_range_of_a_byte():
    middle, black = (corrupt(pictures(value, n=20), "signs", 4, seeded()).int() for value in (128, 3))
    assert set(middle.unique().tolist()) == {128 - BOUND[3], 128 + BOUND[3]}
    assert (middle > 128).float().mean() == pytest.approx(0.5, abs=0.01)
    assert set(black.unique().tolist()) == {0, 3 + BOUND[3]}


class Watching:
    """Keeps what it saw."""

    name, env_options = "watching", {"observation": "camera"}

    def __init__(self):
        self.seen = []

    def act(self, obs):
        self.seen.append(obs["camera"])
        return torch.zeros(len(obs["camera"]))

    def reset(self, done=None):
        self.seen.append("forgot" if done is None else "one forgot")


@pytest.mark.parametrize(("kind", "lasts"), [("noise", False), ("occlusion", True)])
def test_a_corrupted_policy_is_spoilt_alike_in_every_evaluation(kind, lasts):
    policy = Watching()
    corrupted = Corrupted(policy, kind, 3, seed=5)
    assert corrupted.name == f"watching, {kind} 3" and corrupted.env_options is policy.env_options
    obs = {"camera": pictures(), "speed": torch.ones(3, 1)}
    for _ in range(2):
        corrupted.reset(None)
        corrupted.act(obs)
        corrupted.reset(torch.tensor([True, False, False]))
        corrupted.act(obs)
    _, first, told, second, _, again, _, last = policy.seen
    assert told == "one forgot" and torch.equal(first, again) and torch.equal(second, last)
    assert torch.equal(first, second) == lasts
    assert torch.equal(obs["camera"], pictures())


def test_bad_input():
    with pytest.raises(UserError, match="unknown corruption 'smog'"):
        corrupt(pictures(), "smog", 3, seeded())
    with pytest.raises(UserError, match="1, 2, 3, 4 or 5, not 6"):
        Corrupted(Watching(), "fog", 6)
    blind = Watching()
    blind.env_options = {"observation": "state"}
    with pytest.raises(UserError, match="does not look through a camera"):
        Corrupted(blind, "fog", 3)


def test_the_command_spoils_the_camera():
    driving, _ = backends.driver("zoo/highway-ppo", "highway", "cpu", corruption="fog:3")
    assert isinstance(driving, Corrupted) and (driving.kind, driving.strength) == ("fog", 3)
    assert driving.name == "zoo/highway-ppo, fog 3"
    with pytest.raises(UserError, match="as fog:3, not 'fog'"):
        backends.driver("zoo/highway-ppo", "highway", "cpu", corruption="fog")
    with pytest.raises(UserError, match="camera"):
        backends.driver("idm", "highway", "cpu", corruption="fog:3")
