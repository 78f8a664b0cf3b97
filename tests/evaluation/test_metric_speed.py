"""Metrics are batched: their time grows with the number of places, not with loops over frames, worlds or vehicles."""

import pytest
import torch

from benchmarks.metrics import Args, measure


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads wait for each other where another program has a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_block_of_an_evaluation_takes_seconds():
    measure(Args(frames=20, worlds=4))  # libraries are loaded
    spent, steps = measure(Args(frames=300, worlds=40, block=20))
    assert steps == 12_000
    # A loop over a block's 12,000 x 50 places takes minutes. A core needs 0.1 s, of which tests take what is left.
    assert sum(spent.values()) < 6.0, dict(sorted(spent.items(), key=lambda entry: -entry[1])[:5])
