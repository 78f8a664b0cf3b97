"""What the tests of every package share."""

import os

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
