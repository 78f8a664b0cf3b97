"""What the tests of every package share."""

import os

# Of several processes with several threads each, every thread would wait for the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

# No window opens: highway-env and the viewer draw with pygame.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

# The same examples in every run, and no clocks: the first one compiles kernels.
settings.register_profile("lanewise", derandomize=True, deadline=None)
settings.load_profile("lanewise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU, and say so, where torch sees none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no NVIDIA GPU here"))
