"""Batches of worlds that are closed after their test."""

import pytest
import torch
from highway_env.vehicle.behavior import IDMVehicle

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


@pytest.fixture(autouse=True)
def as_highway_env_came():
    """highway-env's intersection changes the class of drivers for the whole process: undo it after every test."""
    names = ("DISTANCE_WANTED", "COMFORT_ACC_MAX", "COMFORT_ACC_MIN")
    before = {name: getattr(IDMVehicle, name) for name in names}
    yield
    for name, value in before.items():
        setattr(IDMVehicle, name, value)
