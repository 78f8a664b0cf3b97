"""Metrics are batched: their time grows with the number of places, not with loops over frames, worlds or vehicles."""

from benchmarks.metrics import Args, measure


def test_a_block_of_an_evaluation_takes_seconds():
    measure(Args(frames=20, worlds=4))  # libraries are loaded
    spent, steps = measure(Args(frames=300, worlds=40, block=20))
    assert steps == 12_000
    # A loop over a block's 12,000 x 50 places takes minutes. A core needs 0.1 s, of which tests take what is left.
    assert sum(spent.values()) < 6.0, dict(sorted(spent.items(), key=lambda entry: -entry[1])[:5])
