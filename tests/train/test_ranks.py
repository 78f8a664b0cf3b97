"""Two processes against one: the same training, saved and stopped together, and nobody waits for who has died.

The processes are forked from a server that has imported everything, and told what torchrun would tell them.
"""

import dataclasses
import datetime
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents import checkpoint, policies, ranks
from envs.errors import UserError
from train import common, ppo

SMALL = ppo.Args(
    env="highway-fast",
    observation="state",
    total_steps=512,
    num_worlds=8,
    rollout_steps=8,
    minibatches=2,
    epochs=3,
    learning_rate=1e-2,
    target_kl=1e-5,  # so small that some updates end early
    hidden=(16, 16),
    checkpoint_every=2,
    device="cpu",
)
# Between one process and two, after eight rollouts: sums are added up in another order.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def line(args: ppo.Args) -> list[str]:
    """Settings as a command line."""
    given = {name: value for name, value in vars(args).items() if value != getattr(ppo.Args(), name)}
    return [
        word
        for name, value in given.items()
        for word in (common.option(name), *map(str, value if isinstance(value, tuple) else [value]))
    ]


def train(arguments: list[str]) -> None:
    """`python -m train.ppo`."""
    sys.argv = ["train.ppo", *arguments]
    common.run(ppo.COMMAND, ppo.train)


def wait_in_vain(arguments: list[str]) -> None:
    """Rank 1 hangs; rank 0 waits for it, as long as it is to."""
    ranks.TIMEOUT = datetime.timedelta(seconds=2)
    with ranks.together():
        if ranks.first():
            ranks.barrier()
        time.sleep(60)


def one_rank(rank: int, port: int, log: Path, does: Callable[[list[str]], None], arguments: list[str]) -> None:
    """One of two processes."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    told |= {"MASTER_ADDR": "localhost", "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ |= {name: str(value) for name, value in told.items()}
    torch.set_num_threads(1)
    with open(f"{log}-{rank}", "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    does(arguments)


class Two:
    """Two processes, started."""

    def __init__(self, log: Path, arguments: list[str], does: Callable[[list[str]], None] = train):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["train.ppo", "torch._dynamo"])  # which optimisers import when they are made
        # As torchrun does, in which it outlives every rank.
        self.store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        self.log = log
        self.ranks = [
            context.Process(target=one_rank, args=(rank, self.store.port, log, does, arguments), daemon=True)
            for rank in range(2)
        ]
        for process in self.ranks:
            process.start()

    def ended(self) -> list[int]:
        """Wait for the end. Returns the exit codes."""
        for process in self.ranks:
            process.join(60)
        return [process.exitcode for process in self.ranks]

    def said(self) -> str:
        """What both have printed."""
        return "".join(Path(f"{self.log}-{rank}").read_text() for rank in range(2))


def rows(run: Path) -> list[dict]:
    return [
        {name: value for name, value in json.loads(line).items() if name != "charts/SPS"}
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]


def trained_by_two(run: Path, args: ppo.Args) -> Path:
    two = Two(run.with_suffix(".log"), line(dataclasses.replace(args, out=run)))
    assert two.ended() == [0, 0], two.said()
    assert two.said().count(f"policy       {run / policies.NAME}") == 1
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of eight rollouts in two processes that nothing disturbed."""
    return trained_by_two(tmp_path_factory.mktemp("two") / "whole", SMALL)


def assert_close(run: Path, other: Path):
    """Both have learnt the same, but for rounding, from the same episodes."""
    (ours, _), (theirs, _) = (checkpoint.read(each / policies.NAME) for each in (run, other))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
    assert len(rows(run)) == len(rows(other))
    for row, expected in zip(rows(run), rows(other), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-4)
        for name in ("step", "charts/episodic_return", "charts/episodic_length", "rollout/collision_rate"):
            assert row.get(name) == expected.get(name), name


def updates(run: Path) -> int:
    """Passes over a rollout that the whole run has made."""
    return checkpoint.read(run / checkpoint.NAME)[1]["state"]["counters"]["_n_updates"]


def test_two_processes_learn_what_one_does(whole, tmp_path):
    alone = ppo.train(dataclasses.replace(SMALL, out=tmp_path / "alone"))
    assert_close(whole, alone)
    assert updates(whole) == updates(alone) < 8 * SMALL.epochs
    assert json.loads((whole / "config.json").read_text())["args"]["num_worlds"] == 8


def test_continuous_actions_too(tmp_path):
    """And minibatches of which a process may have no step, and no other."""
    args = dataclasses.replace(SMALL, env="parking", total_steps=96, num_worlds=4, minibatches=8)
    assert_close(trained_by_two(tmp_path / "two", args), ppo.train(dataclasses.replace(args, out=tmp_path / "one")))


def wait_for_rows(run: Path, number: int, two: Two):
    deadline = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < number:
        assert time.monotonic() < deadline and all(process.is_alive() for process in two.ranks), two.said()
        time.sleep(0.002)


def test_one_process_that_is_stopped_or_killed_ends_both_and_both_go_on(whole, tmp_path):
    run = tmp_path / "run"
    again = f"go on with: torchrun --nproc-per-node 2 -m train.ppo --resume {run}"

    two = Two(tmp_path / "stopped", line(dataclasses.replace(SMALL, out=run)))
    wait_for_rows(run, 1, two)
    two.ranks[1].terminate()
    assert two.ended() == [128 + signal.SIGTERM] * 2, two.said()
    assert two.said().count("stopped and saved at") == two.said().count(again) == 1
    with pytest.raises(UserError, match="is of 2 processes, and goes on only in as many"):
        ppo.train(ppo.Args(resume=run))

    two = Two(tmp_path / "killed", ["--resume", str(run)])
    wait_for_rows(run, 4, two)
    two.ranks[1].kill()
    begun = time.monotonic()
    assert two.ended() == [1, -signal.SIGKILL], two.said()
    assert time.monotonic() - begun < 30
    assert two.said().count("another process of this run has died") == two.said().count(again) == 1

    two = Two(tmp_path / "finished", ["--resume", str(run)])
    assert two.ended() == [0, 0], two.said()
    (ours, _), (theirs, _) = (checkpoint.read(each / policies.NAME) for each in (run, whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert rows(run) == rows(whole)


def test_a_process_that_hangs_is_not_waited_for(tmp_path):
    two = Two(tmp_path / "log", [], wait_in_vain)
    two.ranks[0].join(30)
    two.ranks[1].kill()
    assert two.ended() == [1, -signal.SIGKILL]
    assert "error: another process of this run has died, or does not answer\n" in two.said()


def test_worlds_that_cannot_be_shared_are_refused_once(tmp_path):
    two = Two(tmp_path / "log", line(dataclasses.replace(SMALL, num_worlds=9, minibatches=3, out=tmp_path / "run")))
    assert two.ended() == [2, 2]
    assert two.said() == "error: --num-worlds 9 cannot be shared equally by 2 processes\n"
    assert not (tmp_path / "run").exists()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 40))
def test_ranks_share_out_every_minibatch(size, worlds, steps, batch):
    """Each step of a minibatch is one rank's; its index there names the same step of the same world."""
    total = worlds * size
    order = torch.randperm(steps * total)
    numbers = torch.arange(steps * total).reshape(steps, total)
    minibatches = [[] for _ in order.split(batch)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "count", lambda: size)
        for rank in range(size):
            patch.setattr(ranks, "rank", lambda rank=rank: rank)
            rollout = numbers[:, rank * worlds :][:, :worlds].flatten()
            for minibatch, own in zip(minibatches, ranks.own_steps(order, worlds, batch), strict=True):
                minibatch += rollout[own].tolist()
    assert [sorted(minibatch) for minibatch in minibatches] == [sorted(part.tolist()) for part in order.split(batch)]


def test_a_world_explores_alike_in_any_number_of_processes(monkeypatch):
    def draws(size: int) -> torch.Tensor:
        parts = []
        monkeypatch.setattr(ranks, "count", lambda: size)
        for rank in range(size):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            torch.manual_seed(5)
            parts.append([ranks.drawn(torch.zeros(12 // size, 3), torch.Tensor.exponential_) for _ in range(2)])
        return torch.stack([torch.cat(step) for step in zip(*parts, strict=True)])

    assert torch.equal(draws(1), draws(2)) and torch.equal(draws(1), draws(4))


def test_moments_of_unequal_parts(monkeypatch):
    """As NumPy finds them over all rows."""
    parts = [torch.randn(rows, 3) * 4 + 7 for rows in (5, 1, 30)]
    sent = []
    monkeypatch.setattr(ranks, "count", lambda: 3)
    monkeypatch.setattr(ranks, "joined", lambda own, worlds: sent.append(own) or own)
    for part in parts:
        ranks.moments(part)
    monkeypatch.setattr(ranks, "joined", lambda own, worlds: torch.cat(sent, worlds))
    count, mean, variance = ranks.moments(parts[0])
    every = torch.cat(parts).double().numpy()
    assert count == 36
    torch.testing.assert_close(mean.double(), torch.from_numpy(every.mean(0)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance.double(), torch.from_numpy(every.var(0)), rtol=1e-5, atol=1e-5)
