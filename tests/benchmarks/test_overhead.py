"""The bare loop does the work that it is compared with."""

import pytest
import torch
from stable_baselines3.common.logger import Logger

from benchmarks import overhead
from train import ppo


def test_the_bare_loop_learns_what_ours_learns():
    """Two rollouts and updates from the same seed: the same weights, but for the order of additions."""
    settings = ppo.Args(env="highway-fast", observation="state", num_worlds=16, rollout_steps=40, device="cpu")
    ours, _ = ppo.build(settings)
    ours.set_logger(Logger(None, []))
    bare = overhead.BareLoop(ppo.build(settings)[0])
    before = [weight.detach().clone() for weight in bare.policy.parameters()]
    ours.lr_schedule = lambda remaining: settings.learning_rate  # the bare loop's does not fall
    for learn in (lambda: ours.learn(2 * 40 * 16), lambda: bare.run(2)):
        torch.manual_seed(0)
        learn()
    learnt = list(zip(ours.policy.parameters(), bare.policy.parameters(), strict=True))
    for own, other in learnt:
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)
    assert any(not torch.allclose(other, old, atol=1e-3) for (_, other), old in zip(learnt, before, strict=True))


@pytest.mark.parametrize("observation", ["state", "camera"])
def test_a_turn_of_each(observation):
    speeds = overhead.measure(overhead.Args(num_worlds=16, rollouts=1, rounds=2, device="cpu"), observation)
    assert set(speeds) == {"ours", "bare loop"}
    assert all(len(turns) == 2 and min(turns) > 0 for turns in speeds.values())
