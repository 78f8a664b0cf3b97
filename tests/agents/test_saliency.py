"""Where policies look: of every kind that sees pictures, against what they say of themselves."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

import envs
from agents import policies
from agents.features import space as feature_space
from agents.networks import ActorCritic, policy_kwargs, q_network
from agents.policies import TrainedPolicy, TrainedValues
from agents.saliency import Saliency
from envs.errors import UserError
from perception import encoders, saliency
from perception.saliency import METHODS

SHAPE = (6, 64, 96)
CAMERA = spaces.Dict({"camera": spaces.Box(0, 255, SHAPE, "uint8"), "speed": spaces.Box(-2, 2, (1,))})
HEADER = {"env_options": {"observation": "camera", "frames": 2}, "observation": {"camera": list(SHAPE), "speed": [1]}}


def made(frozen: bool, actions: spaces.Space, values: bool = False) -> TrainedPolicy:
    """An untrained policy."""
    torch.manual_seed(0)
    encoder = encoders.build("small", *SHAPE) if frozen else None
    seen, learned = (feature_space(encoder, 1), None) if frozen else (CAMERA, "small")
    if values:
        options = {"duelling": True, "quantiles": 3, "layer_norm": True}
        kind, network = TrainedValues, q_network(seen, actions, [16, 16], learned, options)
    else:
        kind = TrainedPolicy
        network = ActorCritic(seen, actions, lambda _: 1e-3, **policy_kwargs([16, 16], learned))
        torch.nn.init.normal_(network.action_net.weight, std=0.5)
    for module in (network, encoder):
        if module is not None:
            module.eval().requires_grad_(False)
    return kind("untrained", network, encoder, HEADER)


KINDS = {
    "PPO, frozen encoder": made(True, spaces.Discrete(5)),
    "PPO, end to end": made(False, spaces.Discrete(5)),
    "PPO, continuous": made(False, spaces.Box(-1.0, 1.0, (2,))),
    "DQN and PQN, frozen encoder": made(True, spaces.Discrete(5), values=True),
    "DQN and PQN, end to end": made(False, spaces.Discrete(5), values=True),
}


@pytest.fixture(autouse=True)
def short_path(monkeypatch):
    """Integrated gradients are coarse here: their sum is tested with the methods."""
    monkeypatch.setattr(saliency, "STEPS", 12)


@pytest.fixture(scope="module")
def obs():
    """What the shipped policy saw in 8 worlds of the highway, 3 s from the start."""
    policy = policies.load("zoo/highway-ppo")
    worlds = envs.make_vec("highway", 8, device="cpu", **policy.env_options)
    seen, _ = worlds.reset(seed=1_000_000)
    for _ in range(3):
        seen, *_ = worlds.step(policy.act(seen))
    seen = {name: tensor.clone() for name, tensor in seen.items()}
    worlds.close()
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_explained_is_what_the_policy_says(kind, obs, monkeypatch):
    monkeypatch.setattr("perception.encoders.base.has_bfloat16", lambda device: False)
    policy, pixels = KINDS[kind], obs["camera"].float()
    said, taken = policy.explain(obs), policy.act(obs)
    if "continuous" in kind:
        taken = said["mean"] * 3  # its direction is what counts
        expected = said["mean"].norm(dim=1)
    elif "action_values" in said:
        expected = said["action_values"].amax(1)
    else:
        expected = said["probabilities"].amax(1).log()
    found = Saliency(policy).decision(pixels, obs["speed"], taken)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    value = Saliency(policy, target="value").decision(pixels, obs["speed"], taken)
    torch.testing.assert_close(value, said["value"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "perturbation"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_has_saliency(kind, method, obs):
    policy = KINDS[kind]
    before = {name: tensor.clone() for name, tensor in policy.network.state_dict().items()}
    few = {name: tensor[:2] for name, tensor in obs.items()}
    look = Saliency(policy, method)
    found = look(few)
    assert found.shape == (2, 64, 96) and found.amax((1, 2)).tolist() == pytest.approx([1.0, 1.0])
    assert torch.equal(look.shares(few).abs(), found)
    # Another action has other reasons; the policy itself is as it was.
    others = torch.tensor([[1.0, -1.0]] * 2) if "continuous" in kind else (policy.act(few) + 1) % 5
    assert not torch.allclose(look.shares(few, others), look.shares(few), atol=0.01)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.network.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_saliency_fades_as_the_weights_are_lost(method, obs):
    """The cascading randomisation of Adebayo et al. 2018, from the decision down to the first convolution."""
    policy = policies.load("zoo/highway-ppo")
    few = {name: tensor[: 3 if method == "perturbation" else 8] for name, tensor in obs.items()}
    taken = policy.act(few)
    before, torn = Saliency(policy, method).shares(few, taken), copy.copy(policy)
    torn.network, torn.encoder = copy.deepcopy(policy.network), copy.deepcopy(policy.encoder)
    alike = []
    layers = [torn.network.action_net, torn.network.mlp_extractor, torn.encoder.projection, torn.encoder.convolutions]
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        for weight in layer.parameters():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=generator)].view_as(weight))
        after = Saliency(torn, method).shares(few, taken)
        alike.append(np.mean([spearman(a, b) for a, b in zip(before, after, strict=True)]))
    assert np.abs(alike).max() < 0.5


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Rank correlation of two maps."""
    ranks = [x.flatten().argsort().argsort().double().numpy() for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_who_sees_no_pictures_has_no_saliency():
    blind = made(True, spaces.Discrete(5))
    blind.encoder = None  # a network on vectors
    for policy in (policies.load("idm"), policies.load("random"), blind):
        with pytest.raises(UserError, match=f"'{policy.name}' sees no pictures"):
            Saliency(policy)


def test_names_are_checked():
    with pytest.raises(UserError, match="unknown saliency method 'lime'"):
        Saliency(KINDS["PPO, end to end"], "lime")
    with pytest.raises(UserError, match="unknown target of a saliency 'reward'"):
        Saliency(KINDS["PPO, end to end"], target="reward")
