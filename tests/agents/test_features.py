"""Worlds through a frozen encoder, on the real camera."""

import pytest
import torch

import envs
from agents.features import FeatureWorlds, encode
from perception import encoders


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return encoders.build("small", 6, 64, 96).eval().requires_grad_(False)


def make(num_worlds=6):
    return envs.make_vec("highway-fast", num_worlds=num_worlds, device="cpu", seed=5)


def test_features_are_the_encoders_of_the_same_worlds(encoder):
    """Side by side with the plain worlds, over the ends of episodes."""
    plain, seen = make(), FeatureWorlds(make(), encoder)
    obs, _ = plain.reset(seed=1)
    features, _ = seen.reset(seed=1)
    generator = torch.Generator().manual_seed(0)
    ended = 0
    for _ in range(35):
        torch.testing.assert_close(features["features"], encode(encoder, obs)["features"])
        actions = torch.randint(5, (6,), generator=generator)
        obs, reward, terminated, truncated, info = plain.step(actions)
        features, *rest, feature_info = seen.step(actions)
        for ours, theirs in zip(rest, (reward, terminated, truncated), strict=True):
            assert torch.equal(ours, theirs)
        rows = info["_final_obs"]
        final = encode(encoder, info["final_obs"])["features"]
        torch.testing.assert_close(feature_info["final_obs"]["features"][rows], final[rows])
        assert not feature_info["final_obs"]["features"][~rows].any()
        ended += int(rows.sum())
    assert ended > 0
    assert features["features"].dtype == torch.float16
    assert seen.single_observation_space["features"].shape == features["features"].shape[1:]
    torch.testing.assert_close(features["features"][:, -1:].float(), obs["speed"], atol=1e-3, rtol=0)
    plain.close(), seen.close()


def test_each_frame_is_encoded_once(encoder):
    """A step encodes one image a world, and one more for each episode that ended."""
    images = []

    class Counting(torch.nn.Module):
        features = encoder.features

        def forward(self, camera):
            images.append(len(camera))
            return encoder(camera)

    worlds = FeatureWorlds(make(), Counting())
    worlds.reset(seed=1)
    assert images == [6]
    for _ in range(31):
        images.clear()
        *_, info = worlds.step(torch.ones(6, dtype=torch.int64))
        assert sum(images) == 6 + int(info["_final_obs"].sum())
    worlds.close()


def test_state_goes_on_exactly_with_the_encoder(encoder):
    first = FeatureWorlds(make(), encoder)
    first.reset(seed=3)
    actions = torch.tensor([0, 1, 2, 3, 4, 3])
    for _ in range(4):
        first.step(actions)
    torch.manual_seed(1)
    second = FeatureWorlds(make(), encoders.build("small", 6, 64, 96).eval().requires_grad_(False))
    second.set_state(first.get_state())
    for _ in range(30):
        a, b = first.step(actions), second.step(actions)
        assert torch.equal(a[0]["features"], b[0]["features"])
        assert torch.equal(a[1], b[1])
    first.close(), second.close()
