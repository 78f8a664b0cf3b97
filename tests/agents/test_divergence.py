"""What is said of a training that diverges: what broke first, not what broke last."""

import re

import pytest
import torch

from agents.dagger import DAgger
from agents.divergence import Diverged, Watch, check_weights, not_finite
from agents.dqn import DQN
from agents.networks import ActorCritic, VectorExtractor
from agents.ppo import PPO
from agents.pqn import PQN

ROLLOUTS = {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "seed": 3, "device": "cpu"}
VECTORS = {"features_extractor_class": VectorExtractor, "net_arch": [16]}
KINDS = {
    "ppo": (PPO, ROLLOUTS),
    "pqn": (PQN, ROLLOUTS),
    "dqn": (DQN, {"learning_starts": 32, "train_freq": 2, "buffer_size": 800, "seed": 3, "device": "cpu"}),
    "distill": (DAgger, ROLLOUTS | {"dataset_size": 200, "teacher_fraction": 0.5}),
}


def made(kind: str, env, **settings):
    """A model of balance worlds; the teacher, where there is one, always pushes right."""
    algorithm, usual = KINDS[kind]
    policy = ActorCritic if kind in ("ppo", "distill") else "MultiInputPolicy"
    if kind == "distill":
        env.worlds.advise = lambda: torch.tensor([[0.0, 1.0]]).expand(env.num_envs, 2)
    return algorithm(policy, env, policy_kwargs=VECTORS, **(usual | settings))


def spoilt(env, name: str) -> None:
    """From the fifth step on, observations or rewards are not numbers."""
    step, steps = env.worlds.step, []

    def spoiling(actions):
        obs, reward, *rest = step(actions)
        steps.append(1)
        if len(steps) >= 20:
            if name == "reward":
                reward = torch.full_like(reward, float("inf"))
            else:
                obs = {"state": torch.full_like(obs["state"], float("nan"))}
        return obs, reward, *rest

    env.worlds.step = spoiling


@pytest.mark.parametrize("name", ["observation", "reward"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_came_in_is_named_before_what_came_of_it(balance, kind, name):
    env = balance(4)
    model = made(kind, env)
    spoilt(env, name)
    with pytest.raises(Diverged) as error:
        model.learn(400, log_interval=1)
    what = r"an observation of the \w+ \('state'\)" if name == "observation" else r"a reward of the \w+"
    assert re.match(rf"{what} is not finite at step \d+$", str(error.value)), error.value


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("ppo", {"vf_coef": 1e39}, "the sum of the losses"),  # infinite in float32
        ("ppo", {"ent_coef": 1e30, "max_grad_norm": float("inf")}, "the gradient"),  # its square is infinite
        ("pqn", {"learning_rate": 1e30, "max_grad_norm": 1e9}, "the loss"),
        ("distill", {"vf_coef": 1e30, "max_grad_norm": float("inf")}, "the gradient"),
    ],
)
def test_the_term_that_blew_up_is_named(balance, kind, settings, named):
    with pytest.raises(Diverged, match=f"^{named} became (inf|nan) .*a lower learning rate usually helps"):
        made(kind, balance(4), **settings).learn(400)


@pytest.mark.parametrize("kind", ["dqn", "pqn", "distill"])
def test_a_broken_gradient_is_named_though_all_is_broken_after_it(balance, kind):
    model = made(kind, balance(4))
    parameter = next(model.policy.parameters())
    parameter.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    with pytest.raises(Diverged, match="^the gradient became nan before step"):
        model.learn(400, log_interval=1)


def test_an_update_that_broke_is_not_saved(balance):
    """The log that would tell of it is written later."""
    model = made("dqn", balance(4))
    model.learn(64, log_interval=None)
    assert model.get_state()["updates"]["count"] > 0
    next(model.q_net.parameters()).register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    model.learn(32, log_interval=None, reset_num_timesteps=False)
    with pytest.raises(Diverged, match="the gradient became nan"):
        model.get_state()


def test_the_first_broken_numbers_stay():
    watch, names = Watch(), ("the loss", "the gradient")
    watch.check(names, 0, {})
    for numbers in ([1.0, 2.0], [3.0, float("inf")], [float("nan"), 1.0], [4.0, 5.0]):
        watch.add(torch.tensor(numbers))
    with pytest.raises(Diverged, match="^the gradient became inf before step 7; a lower learning rate"):
        watch.check(names, 7, {"a thing": torch.arange(3), "another": {"part": torch.ones(2)}})
    with pytest.raises(Diverged, match=r"^another \('part'\) is not finite at step 7$"):
        watch.check(names, 7, {"a thing": torch.arange(3), "another": {"part": torch.tensor([1.0, float("nan")])}})


def test_weights_that_are_not_finite_are_named():
    network = torch.nn.Linear(2, 2)
    check_weights(network, 5)
    network.bias.data[0] = float("inf")
    with pytest.raises(Diverged, match="the weight bias is not finite at step 5"):
        check_weights(network, 5)
    assert not_finite({"whole": torch.tensor([2])}) is None
