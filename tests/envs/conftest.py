"""Batches of worlds that are closed after their test."""

import pytest
import torch

import envs


@pytest.fixture
def make():
    """`envs.make_vec` on the CPU; the batches are closed when the test ends."""
    opened = []

    def make_vec(*args, **options) -> envs.VecWorlds:
        opened.append(envs.make_vec(*args, device="cpu", **options))
        return opened[-1]

    yield make_vec
    for env in opened:
        env.close()


@pytest.fixture
def actions():
    """`actions(steps, worlds)`: random meta-actions; those of fewer worlds are the first columns of those of more."""

    def draw(steps: int, worlds: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 5, (4096, steps), generator=generator).T[:, :worlds].contiguous()

    return draw
