"""What the study of killed runs compares, and that runs pass it which are stopped between two rows of the log."""

import dataclasses

import pytest
import torch

from agents import checkpoint
from agents.checkpoint import Checkpoints, Interrupted
from benchmarks import resume
from train import ppo, pqn

SMALL = {"env": "highway-fast", "observation": "state", "num_worlds": 4, "rollout_steps": 4, "total_steps": 128}
SMALL |= {"minibatches": 2, "epochs": 1, "hidden": (8,), "log_every": 3, "device": "cpu"}


def test_tensors_are_compared_bit_for_bit(tmp_path):
    one = {
        "same": torch.tensor([1.0, float("nan")]),
        "zero": torch.zeros(2),
        "type": torch.zeros(2),
        "lost": torch.ones(1),
    }
    two = {"same": torch.tensor([1.0, float("nan")]), "zero": -torch.zeros(2), "type": torch.zeros(2).int()}
    for name, tensors in (("one", one), ("two", two)):
        checkpoint.write(tmp_path / name, tensors, {"kind": "test"})
    assert resume.differing(tmp_path / "one", tmp_path / "two") == (4, 3)
    assert resume.differing(tmp_path / "one", tmp_path / "one") == (4, 0)


def test_rows_without_times_and_without_a_row_that_is_cut_off(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 64, "charts/SPS": 7, "losses/loss": 0.5}\n{"step": 12')
    assert resume.rows(tmp_path) == [{"step": 64, "losses/loss": 0.5}] and resume.reached(tmp_path) == 64
    assert resume.reached(tmp_path / "nothing") == 0


@pytest.mark.parametrize("algorithm", [ppo, pqn], ids=["ppo", "pqn"])
def test_stopped_between_two_rows_of_the_log(tmp_path, monkeypatch, algorithm):
    args = algorithm.Args(**SMALL)
    whole = algorithm.train(dataclasses.replace(args, out=tmp_path / "whole"))
    begin = Checkpoints._on_rollout_start

    def stop(self: Checkpoints) -> None:
        self.stop_requested |= self.rollouts == 4
        begin(self)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Checkpoints, "_on_rollout_start", stop)
        algorithm.train(dataclasses.replace(args, out=tmp_path / "run"))
    run = algorithm.train(algorithm.Args(resume=tmp_path / "run"))
    assert [row["step"] for row in resume.rows(run)] == [48, 96]
    assert resume.rows(run) == resume.rows(whole)
    assert resume.differing(run / checkpoint.NAME, whole / checkpoint.NAME)[1] == 0
