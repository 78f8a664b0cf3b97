"""The ways into the actor-critic."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.networks import ActorCritic, CameraExtractor, VectorExtractor, load_weights, policy_kwargs, weights

VECTOR = spaces.Dict({"a": spaces.Box(-1, 1, (2, 3)), "b": spaces.Box(-1, 1, (1,))})
CAMERA = spaces.Dict({"camera": spaces.Box(0, 255, (6, 32, 48), np.uint8), "speed": spaces.Box(0, 1, (1,))})


def network(space, encoder=None):
    return ActorCritic(space, spaces.Discrete(5), lambda _: 1e-3, **policy_kwargs([16, 16], encoder))


def test_running_statistics_are_those_of_everything_seen():
    rng = np.random.default_rng(0)
    extractor = VectorExtractor(VECTOR)
    seen = []
    for size in (10, 1000, 37):
        rows = rng.normal([5.0, -3.0, 0.1, 0.0, 1.0, 2.0, 30.0], [1.0, 2.0, 0.01, 1.0, 1.0, 1.0, 9.0], (size, 7))
        rows = rows.astype(np.float32)
        extractor.update({"a": torch.tensor(rows[:, :6]).reshape(-1, 2, 3), "b": torch.tensor(rows[:, 6:])})
        seen.append(rows)
    seen = np.concatenate(seen)
    np.testing.assert_allclose(extractor.mean, seen.mean(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(extractor.variance, seen.var(0), rtol=1e-3)
    out = extractor({"a": torch.tensor(seen[:, :6]).reshape(-1, 2, 3), "b": torch.tensor(seen[:, 6:])})
    np.testing.assert_allclose(out.mean(0), np.zeros(7), atol=1e-3)
    np.testing.assert_allclose(out.std(0), np.ones(7), atol=1e-2)


def test_parts_are_laid_out_in_the_order_of_the_space():
    extractor = VectorExtractor(VECTOR)
    a, b = torch.rand(2, 2, 3), torch.rand(2, 1)
    assert torch.equal(extractor({"a": a, "b": b}), extractor({"other": b, "b": b, "a": a}))


def test_half_precision_vectors_come_out_in_single():
    space = spaces.Box(-np.inf, np.inf, (4,), np.float16)
    assert VectorExtractor(space)(torch.ones(3, 4, dtype=torch.float16)).dtype == torch.float32


def test_pixels_reach_the_encoder_unscaled_and_gradients_its_weights():
    net = network(CAMERA, encoder="small")
    assert isinstance(net.features_extractor, CameraExtractor)
    obs = {"camera": torch.randint(0, 256, (8, 6, 32, 48), dtype=torch.uint8), "speed": torch.rand(8, 1)}
    features = net.extract_features(obs)
    encoded = net.features_extractor.encoder(obs["camera"])
    torch.testing.assert_close(features, torch.cat([encoded, obs["speed"]], 1))
    values, log_prob, entropy = net.evaluate_actions(obs, torch.zeros(8, dtype=torch.int64))
    (values.sum() + log_prob.sum() + entropy.sum()).backward()
    assert all(weight.grad is not None for weight in net.features_extractor.encoder.parameters())
    actions, _ = net.predict({key: value.numpy() for key, value in obs.items()}, deterministic=True)
    assert actions.tolist() == net.values_and_log_probabilities(obs)[1].argmax(1).tolist()


def test_weights_round_trip_and_refuse_another_shape():
    first, second = network(VECTOR), network(VECTOR)
    first.features_extractor.update({"a": torch.rand(9, 2, 3), "b": torch.rand(9, 1)})
    assert "vf_features_extractor.mean" in first.state_dict() and "vf_features_extractor.mean" not in weights(first)
    load_weights(second, weights(first))
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    wider = ActorCritic(VECTOR, spaces.Discrete(5), lambda _: 1e-3, **policy_kwargs([16, 32], None))
    with pytest.raises(ValueError, match="action_net.weight"):
        load_weights(wider, weights(first))
