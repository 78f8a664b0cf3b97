"""The objectives without negatives: BYOL, SimSiam, Barlow Twins, VICReg and LeJEPA, against closed forms."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from perception.objectives.barlow_twins import barlow_twins, cross_correlation
from perception.objectives.byol import cosine_error
from perception.objectives.lejepa import lejepa, sigreg
from perception.objectives.vicreg import covariance, variance_hinge, vicreg


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decorrelated(rows: int, columns: int) -> torch.Tensor:
    """Columns of +-1, each of mean 0 and no two correlated."""
    return torch.from_numpy(scipy.linalg.hadamard(rows)[:, 1 : columns + 1]).float()


def test_cosine_error_of_equal_orthogonal_and_opposite_vectors():
    a, b = torch.eye(4)[:2], torch.eye(4)[2:]
    assert cosine_error(a, 7 * a).tolist() == pytest.approx([0, 0])
    assert cosine_error(a, b).tolist() == pytest.approx([2, 2])
    assert cosine_error(a, -a).tolist() == pytest.approx([4, 4])


def test_cosine_error_is_the_squared_distance_on_the_sphere():
    a, b = normal(5, 8), normal(5, 8, seed=1)
    unit = a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)
    torch.testing.assert_close(cosine_error(a, b), unit.square().sum(1))


def test_no_gradient_reaches_the_target():
    a, b = normal(5, 8).requires_grad_(), normal(5, 8, seed=1).requires_grad_()
    cosine_error(a, b).sum().backward()
    assert a.grad.any() and b.grad is None


def test_barlow_twins_of_uncorrelated_directions_is_zero():
    z = decorrelated(16, 5)
    torch.testing.assert_close(cross_correlation(z, 3 * z + 1), torch.eye(5), atol=1e-4, rtol=0)
    assert barlow_twins(z, 3 * z + 1, 5e-3).item() == pytest.approx(0, abs=1e-6)


def test_barlow_twins_of_one_direction_said_often_and_of_opposite_views():
    same = decorrelated(16, 1).expand(-1, 6)
    assert barlow_twins(same, same, 0.01).item() == pytest.approx(0.01 * 6 * 5, rel=1e-4)
    z = decorrelated(16, 5)
    assert barlow_twins(z, -z, 0.01).item() == pytest.approx(5 * 2**2, rel=1e-4)


def test_cross_correlation_against_numpy():
    a, b = normal(40, 3), normal(40, 4, seed=1)[:, :3] + normal(40, 3)
    expected = np.corrcoef(a.numpy().T, b.numpy().T)[:3, 3:]
    np.testing.assert_allclose(cross_correlation(a, b).numpy(), expected, atol=1e-4)


def test_variance_hinge_of_known_deviations():
    """Columns +-s over 16 rows: the unbiased variance is s^2 16 / 15. What varies enough costs nothing."""
    scale = torch.tensor([0.0, 0.3, 0.5, 2.0])
    costs = [1 - math.sqrt(float(s) ** 2 * 16 / 15 + 1e-4) for s in scale[:3]] + [0]
    assert variance_hinge(decorrelated(16, 4) * scale + 9).item() == pytest.approx(sum(costs) / 4, rel=1e-5)


def test_covariance_against_numpy():
    z = normal(30, 5) @ normal(5, 5, seed=1)
    matrix = np.cov(z.numpy().T)
    off = matrix[~np.eye(5, dtype=bool)]
    assert covariance(z).item() == pytest.approx((off**2).sum() / 5, rel=1e-4)
    assert covariance(3 * decorrelated(16, 5)).item() == pytest.approx(0, abs=1e-9)


def test_vicreg_is_25_25_1():
    z = 2 * decorrelated(16, 5)
    assert vicreg(z, z).item() == pytest.approx(0, abs=1e-6)
    assert vicreg(z, z + 2).item() == pytest.approx(25 * 4)
    still = torch.zeros(16, 5)
    assert vicreg(still, still).item() == pytest.approx(25 * (1 - 0.01))
    same = 2 * decorrelated(16, 1).expand(-1, 5)  # all covariances 4 * 16 / 15
    assert vicreg(same, same).item() == pytest.approx(2 * 20 * (64 / 15) ** 2 / 5)


def test_vicreg_of_valid_rows_only():
    a, b = normal(20, 6), normal(20, 6, seed=1)
    valid = normal(20, seed=2) > 0
    torch.testing.assert_close(vicreg(a, b, valid), vicreg(a[valid], b[valid]))
    torch.testing.assert_close(vicreg(a, b, torch.ones(20, dtype=torch.bool)), vicreg(a, b))
    assert vicreg(a, b, torch.zeros(20, dtype=torch.bool)).isfinite()


def test_sigreg_is_epps_and_pulleys_statistic():
    """In one dimension the integral over all t has a closed form; beyond 3 there is next to nothing."""
    x = 0.7 * normal(60, 1) + 0.4
    n = len(x)
    pairs = math.sqrt(2 * math.pi) / n * (-(x - x.T).square() / 2).exp().sum()
    expected = pairs - 2 * math.sqrt(math.pi) * (-x.square() / 4).exp().sum() + n * math.sqrt(2 * math.pi / 3)
    assert sigreg(x, torch.tensor([[5.0]])).item() == pytest.approx(float(expected), rel=0.01)


def test_sigreg_of_a_gaussian_and_of_a_point():
    directions = normal(16, 128, seed=9)
    gaussian = torch.stack([sigreg(normal(500, 16, seed=k), directions) for k in range(8)]).mean().item()
    assert gaussian == pytest.approx(math.sqrt(2 * math.pi) * (1 - 3**-0.5), rel=0.1)
    point = sigreg(torch.zeros(500, 16), directions).item()
    assert point == pytest.approx(500 * math.sqrt(2 * math.pi) * (1 - 2**0.5 + 3**-0.5), rel=0.02)
    assert sigreg(3 * normal(500, 16), directions).item() > 20 * gaussian


def test_lejepa_is_the_views_distance_to_their_mean_and_sigreg():
    views, directions = normal(2, 40, 8), normal(8, 16, seed=1)
    distance = (views[0] - views[1]).square().mean() / 4
    regular = (sigreg(views[0], directions) + sigreg(views[1], directions)) / 2
    torch.testing.assert_close(lejepa(views, directions, 0.1), 0.9 * distance + 0.1 * regular)
    torch.testing.assert_close(lejepa(views[:1].expand(2, -1, -1), directions, 0.0), torch.tensor(0.0))
