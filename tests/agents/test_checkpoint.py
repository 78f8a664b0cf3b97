"""Checkpoints: whole or not at all, and exact."""

import random

import numpy as np
import pytest
import safetensors.torch
import torch

from agents import checkpoint
from agents.networks import ActorCritic, VectorExtractor
from agents.ppo import PPO
from envs.errors import UserError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "flag": torch.tensor([True, False]), "half": torch.ones(3).half()}


def model(balance, seed=0):
    kwargs = {"features_extractor_class": VectorExtractor, "net_arch": [32], "optimizer_kwargs": {"fused": True}}
    return PPO(
        ActorCritic, balance(8), n_steps=8, batch_size=32, n_epochs=2, seed=seed, policy_kwargs=kwargs, device="cpu",
        learning_rate=lambda remaining: 1e-2 * remaining,
    )  # fmt: skip


def test_file_round_trip(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, TENSORS, {"kind": "test", "n": 3})
    tensors, header = checkpoint.read(path)
    assert header["kind"] == "test" and header["n"] == 3
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("damage", ["half", "empty", "bit", "missing", "foreign"])
def test_damage_is_one_clear_line(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, TENSORS, {"kind": "test"})
    data = bytearray(path.read_bytes())
    if damage == "half":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "bit":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "missing":
        path.unlink()
    else:
        safetensors.torch.save_file(TENSORS, path)
    expected = {"bit": "SHA-256", "missing": "no file", "foreign": "not written by lanewise"}.get(damage, "damaged")
    with pytest.raises(UserError, match=expected) as error:
        checkpoint.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_the_old_file_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, TENSORS, {"n": 1})

    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(path, TENSORS, {"n": 2})
    monkeypatch.undo()
    assert checkpoint.read(path)[1]["n"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


def test_random_states_go_on_where_they_were():
    def draw():
        return [random.random(), random.gauss(0, 1), np.random.normal(), np.random.rand(), torch.rand(3).tolist()]

    draw()
    random.gauss(0, 1), np.random.normal()  # each leaves its second number waiting
    states = checkpoint.random_states()
    expected = draw()
    checkpoint.set_random_states(states)
    assert draw() == expected


def test_restored_training_goes_on_bit_for_bit(balance, tmp_path):
    path = tmp_path / checkpoint.NAME
    whole = model(balance)
    saves = checkpoint.Checkpoints(lambda: None, every=1)

    def save():  # the state before the fourth rollout
        if saves.rollouts == 3:
            checkpoint.save(path, whole, {"note": "here"})

    saves.save = save
    whole.learn(8 * 8 * 6, saves)

    resumed = model(balance, seed=99)
    more = checkpoint.restore(path, resumed)
    assert more["note"] == "here" and resumed.num_timesteps == 192
    resumed.learn(8 * 8 * 6 - 192, reset_num_timesteps=False)
    assert resumed.num_timesteps == whole.num_timesteps
    assert resumed._n_updates == whole._n_updates
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name]), name
    assert list(resumed.ep_info_buffer) == list(whole.ep_info_buffer)


def test_a_checkpoint_of_other_settings_is_refused(balance, tmp_path):
    path = tmp_path / checkpoint.NAME
    trained = model(balance)
    trained.learn(64, checkpoint.Checkpoints(lambda: checkpoint.save(path, trained), every=1))
    other = PPO("MultiInputPolicy", balance(8), n_steps=8, batch_size=32, device="cpu")
    with pytest.raises(UserError, match="other settings"):
        checkpoint.restore(path, other)


def test_a_request_to_stop_saves_first(balance):
    trained, saved = model(balance), []
    saves = checkpoint.Checkpoints(lambda: saved.append(trained.num_timesteps), every=100)

    class StopAfterTwoRollouts(checkpoint.BaseCallback):
        def _on_step(self):
            saves.stop_requested = self.num_timesteps >= 128
            return True

    with pytest.raises(checkpoint.Interrupted):
        trained.learn(10_000, [StopAfterTwoRollouts(), saves])
    assert saved == [0, 128]
