"""The reward that is learnt from, beside the scenario's own."""

import torch

import envs
from agents.shaping import CrashPenalty


def test_only_the_step_of_a_crash_is_penalised_and_returns_stay_the_scenarios():
    plain = envs.make_vec("highway-fast", 32, device="cpu", observation="state", seed=3)
    shaped = CrashPenalty(envs.make_vec("highway-fast", 32, device="cpu", observation="state", seed=3), 7.0)
    plain.reset()
    shaped.reset()
    crashes = 0
    for _ in range(12):
        faster = torch.full((32,), 3)
        _, reward, _, _, info = plain.step(faster)
        _, lowered, _, _, shaped_info = shaped.step(faster)
        assert torch.equal(reward - 7.0 * info["crashed"].float(), lowered)
        assert torch.equal(info["episode_return"], shaped_info["episode_return"])
        crashes += int(info["crashed"].sum())
    assert crashes > 0
