"""Diagnostics of features, against what they must be by definition."""

import math

import pytest
import torch

from perception.diagnostics import alignment, rankme, uniformity


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 5, 32])
def test_rankme_counts_equal_singular_values(k):
    left, right = torch.linalg.qr(normal(200, k))[0], torch.linalg.qr(normal(32, k, seed=1))[0]
    assert rankme(3 * left @ right.T).item() == pytest.approx(k, rel=1e-3)


def test_rankme_is_the_entropy_of_the_singular_values():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])
    left, right = torch.linalg.qr(normal(50, 4))[0], torch.linalg.qr(normal(4, 4, seed=1))[0]
    # Shares 1/2, 1/4, 1/8, 1/8: 1.75 bits.
    assert rankme(left @ values.diag() @ right.T).item() == pytest.approx(2**1.75, rel=1e-4)


def test_alignment_of_equal_orthogonal_and_opposite_pairs():
    a, b = torch.eye(4)[:2], torch.eye(4)[2:]
    assert alignment(a, 5 * a).item() == 0
    assert alignment(a, b).item() == pytest.approx(2)
    assert alignment(a, -a).item() == pytest.approx(4)


def test_uniformity_is_a_mean_over_pairs_of_different_rows():
    z = normal(7, 5)
    unit = [row / row.norm() for row in z]
    kernel = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(7) for j in range(i)]
    assert uniformity(z).item() == pytest.approx(math.log(sum(kernel) / len(kernel)), rel=1e-4)


def test_uniformity_of_one_point_and_of_two_poles():
    assert uniformity(normal(1, 5).expand(9, -1)).item() == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.tensor([[0.0, 2.0], [0.0, -1.0]])).item() == pytest.approx(-8)
