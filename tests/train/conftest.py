"""What the tests of training share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As commands and processes that are compared have: sums are rounded alike only with equally many threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
