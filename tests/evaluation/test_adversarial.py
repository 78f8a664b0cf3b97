"""Attacks on pictures against their definitions, and against random signs of the same size."""

import pytest
import torch
from gymnasium import spaces

from agents import policies
from agents.networks import ActorCritic, policy_kwargs, q_network
from agents.policies import TrainedPolicy, TrainedValues
from envs.errors import UserError
from evaluation import adversarial, backends
from evaluation.adversarial import ATTACKS, BOUND, attack
from evaluation.corruptions import STRENGTHS, Corrupted, corrupt

SPACE = spaces.Dict({"camera": spaces.Box(0, 255, (6, 40, 48), "uint8"), "speed": spaces.Box(0, 1, (1,))})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


HEADER = {"env_options": {}, "observation": {"camera": [6, 40, 48], "speed": [1]}}


def seen(n: int = 12) -> dict[str, torch.Tensor]:
    """Pictures with all values a byte has."""
    pictures = torch.randint(0, 256, (n, 6, 40, 48), generator=seeded(3)).to(torch.uint8)
    return {"camera": pictures, "speed": torch.full((n, 1), 0.6)}


class Linear(torch.nn.Module):
    """Log-probabilities of two actions are linear in the pixels, up to their common normalisation."""

    action_space = spaces.Discrete(2)

    def __init__(self):
        super().__init__()
        self.weights = torch.randn(6 * 40 * 48, 2, generator=seeded(1)) * 1e-5
        self.weights[:1000] = 0.0

    def logits(self, obs):
        return obs["camera"].flatten(1).float() @ self.weights

    def forward(self, obs, deterministic):
        return (self.logits(obs).argmax(1),)

    def evaluate_actions(self, obs, actions):
        return None, self.logits(obs).log_softmax(1).gather(1, actions.unsqueeze(1)).squeeze(1), None


@pytest.fixture(scope="module")
def road():
    """The shipped policy, and what it sees in the fifth step of 16 worlds."""
    policy = policies.load("zoo/highway-ppo")
    worlds = backends.make_worlds("lanewise", "highway-fast", 16, "cpu", policy.env_options)
    obs, _ = worlds.reset(seed=5)
    for _ in range(5):
        obs, *_ = worlds.step(policy.act(obs))
    obs = {name: tensor.clone() for name, tensor in obs.items()}
    worlds.close()
    return policy, obs


def test_one_step_is_the_sign_of_the_slope():
    policy, obs = TrainedPolicy("linear", Linear(), None, HEADER), seen()
    taken = policy.act(obs)
    weights = policy.network.weights.T
    slope = (weights[1 - taken] - weights[taken]).sign().view(-1, 6, 40, 48)  # what raises the other action
    expected = (obs["camera"] + BOUND[2] * slope).clamp(0, 255).to(torch.uint8)
    assert 0 < taken.sum() < len(taken)
    assert torch.equal(attack(policy, obs, "fgsm", 3, seeded()), expected)
    # The slope is the same everywhere, so that several steps end at the same bound.
    steep = (slope != 0).expand_as(expected)
    assert torch.equal(attack(policy, obs, "pgd", 3, seeded())[steep], expected[steep])


@pytest.mark.parametrize(
    ("kind", "strength"), [*(("fgsm", strength) for strength in STRENGTHS), ("pgd", 1), ("pgd", 5)]
)
def test_the_bound_holds_and_the_picture_and_the_policy_are_left_alone(kind, strength, road):
    policy, obs = road
    before = obs["camera"].clone()
    spoilt = attack(policy, obs, kind, strength, seeded())
    away = (spoilt.int() - before.int()).abs()
    assert spoilt.dtype == torch.uint8 and away.max() == BOUND[strength - 1]
    assert torch.equal(obs["camera"], before)
    assert all(p.grad is None for module in (policy.network, policy.encoder) for p in module.parameters())
    assert torch.equal(spoilt, attack(policy, obs, kind, strength, seeded()))


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_does_more_than_random_signs_of_its_size(kind, road):
    policy, obs = road
    taken = policy.act(obs).unsqueeze(1)

    def taken_now(pictures: torch.Tensor) -> torch.Tensor:
        return policy.explain(obs | {"camera": pictures})["probabilities"].gather(1, taken).squeeze(1)

    for strength in (1, 3, 5):
        attacked = taken_now(attack(policy, obs, kind, strength, seeded()))
        noisy = taken_now(corrupt(obs["camera"], "signs", strength, seeded()))
        assert (attacked < noisy).float().mean() > 0.9
        assert noisy.mean() - attacked.mean() > 0.02


@pytest.mark.parametrize("kind", ATTACKS)
def test_margins_of_action_values_shrink(kind):
    options = {"duelling": True, "quantiles": 1, "layer_norm": False}
    torch.manual_seed(0)
    network = q_network(SPACE, spaces.Discrete(4), [16], "small", options).requires_grad_(False)
    policy, obs = TrainedValues("values", network, None, HEADER), seen()
    best, second = policy.explain(obs)["action_values"].topk(2).values.T
    taken = policy.act(obs).unsqueeze(1)
    values = policy.explain(obs | {"camera": attack(policy, obs, kind, 2, seeded())})["action_values"]
    left = values.gather(1, taken).squeeze(1) - values.scatter(1, taken, -torch.inf).amax(1)
    assert (left < best - second).all()


@pytest.mark.parametrize("kind", ATTACKS)
def test_continuous_actions_are_driven_away_from_their_means(kind):
    torch.manual_seed(0)
    space = spaces.Box(-1.0, 1.0, (2,))
    network = ActorCritic(SPACE, space, lambda _: 1e-3, **policy_kwargs([16], "small")).requires_grad_(False)
    network.action_net.weight.mul_(30.0)  # untrained, it hardly cares
    policy, obs = TrainedPolicy("continuous", network, None, HEADER), seen()

    def moved(pictures: torch.Tensor) -> torch.Tensor:
        return (policy.explain(obs | {"camera": pictures})["mean"] - policy.explain(obs)["mean"]).norm(dim=1)

    noisy = moved(corrupt(obs["camera"], "signs", 2, seeded()))
    assert (moved(attack(policy, obs, kind, 2, seeded())) > 2 * noisy).all()


def test_who_gives_no_gradients_is_not_attacked():
    class Foreign:
        name, env_options = "theirs", {"observation": "camera"}

    with pytest.raises(UserError, match="'theirs' gives no gradients"):
        Corrupted(Foreign(), "fgsm", 3)
    with pytest.raises(UserError, match="unknown corruption 'fgms'; did you mean 'fgsm'"):
        Corrupted(Foreign(), "fgms", 3)
    blind = policies.load("random", "highway")
    with pytest.raises(UserError, match="does not look through a camera"):
        Corrupted(blind, "pgd", 3)


def test_the_command_attacks_the_camera(road):
    policy, obs = road
    driving, _ = backends.driver("zoo/highway-ppo", "highway", "cpu", corruption="fgsm:4")
    assert driving.name == "zoo/highway-ppo, fgsm 4"
    spoilt = obs | {"camera": adversarial.attack(policy, obs, "fgsm", 4, seeded())}
    assert torch.equal(driving.act(obs), policy.act(spoilt))
    assert not torch.equal(driving.act(obs), policy.act(obs))
