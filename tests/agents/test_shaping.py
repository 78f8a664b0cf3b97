"""The reward that is learnt from, beside the scenario's own."""

import dataclasses
import signal

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize

import envs
from agents import checkpoint
from agents.ppo import PPO
from agents.shaping import CrashPenalty, NormalisedReward, RedLightPenalty
from agents.stepping import HostStepper
from train import ppo


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


def test_the_step_in_which_a_red_light_is_run_is_penalised_once():
    """The scenario's own reward takes 2 off in that step."""
    plain = envs.make_vec("intersection-signals", 32, device="cpu", observation="state", seed=3)
    shaped = RedLightPenalty(envs.make_vec("intersection-signals", 32, device="cpu", observation="state", seed=3), 7.0)
    plain.reset(), shaped.reset()
    faster = torch.full((32,), plain.action_names.index("FASTER"))
    runs = 0
    for _ in range(14):
        _, reward, terminated, truncated, info = plain.step(faster)
        _, lowered, *_ = shaped.step(faster)
        goes_on = ~(terminated | truncated)
        # At full speed nothing but a crash and a red light costs more than 1, and a crash ends the episode.
        torch.testing.assert_close((reward - lowered)[goes_on], 7.0 * (reward < -1)[goes_on].float())
        runs += int((reward < -1)[goes_on].sum())
    assert runs > 5


def test_rewards_are_normalised_as_stable_baselines3_does(balance):
    ours = NormalisedReward(balance(6).worlds, 0.9)
    theirs = VecNormalize(balance(6), norm_obs=False, gamma=0.9, clip_reward=10.0)
    host = HostStepper(theirs, torch.device("cpu"))
    ours.reset(), theirs.reset()
    draw, ends = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        actions = torch.randint(2, (6,), generator=draw)
        _, reward, terminated, truncated, _ = ours.step(actions)
        _, expected, *_ = host.step(actions)
        torch.testing.assert_close(reward, torch.as_tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-6)
        ends += int((terminated | truncated).sum())
    np.testing.assert_allclose(ours.variance.item(), theirs.ret_rms.var, rtol=1e-6)
    assert ends > 10


def test_a_run_with_normalised_rewards_goes_on_exactly(tmp_path, monkeypatch):
    small = {"env": "highway-fast", "observation": "state", "num_worlds": 8, "rollout_steps": 8, "hidden": (16,)}
    args = ppo.Args(**small, minibatches=2, epochs=2, normalise_reward=True, total_steps=256, device="cpu")
    ppo.train(dataclasses.replace(args, out=tmp_path / "whole"))
    collect = PPO.collect_rollouts

    def collected(model, *others, **named):
        done = collect(model, *others, **named)
        if model.num_timesteps == 128:
            signal.raise_signal(signal.SIGTERM)
        return done

    monkeypatch.setattr(PPO, "collect_rollouts", collected)
    with pytest.raises(checkpoint.Interrupted):
        ppo.train(dataclasses.replace(args, out=tmp_path / "stopped"))
    monkeypatch.undo()
    ppo.train(ppo.Args(resume=tmp_path / "stopped"))
    ours, theirs = (checkpoint.read(tmp_path / run / checkpoint.NAME)[0] for run in ("stopped", "whole"))
    assert ours.keys() == theirs.keys() and ours["worlds.variance"] != 1.0
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
