"""The search for the likeliest failure, on failure regions whose nearest point to the middle is known."""

import numpy as np
import pytest

from evaluation.likeliest import BATCH, Search


def best_of(score, most: np.ndarray, seed: int, episodes: int) -> tuple[float, Search]:
    """The greatest log-likelihood of a failure that a search finds."""
    search = Search(most, np.random.default_rng(seed))
    for _ in range(episodes // BATCH):
        points = search.ask()
        search.tell(points, score(points))
    failures = search.points[search.failures()]
    return -0.5 * float((failures[0] ** 2).sum()) if len(failures) else -np.inf, search


@pytest.mark.parametrize(("dimension", "distance"), [(10, 3.0), (20, 2.0), (20, 5.0)])
def test_the_nearest_point_of_a_half_space_is_found(dimension, distance):
    found = []
    for seed in range(5):
        normal = np.random.default_rng(100 + seed).standard_normal(dimension)
        normal /= np.linalg.norm(normal)
        most = np.full(dimension, 8.0)
        found.append(best_of(lambda points, w=normal: distance - points @ w, most, seed, 1000)[0])
    truth = -0.5 * distance**2
    assert max(found) <= truth + 1e-9
    assert np.median(found) >= 1.15 * truth


def test_of_two_regions_the_nearer_one_is_found_though_misses_lead_to_the_other():
    # Misses shrink three times as fast towards the farther region.
    def score(points):
        return np.minimum(3.0 - points[:, 0], 3.0 * (4.0 + points[:, 1]))

    found = [best_of(score, np.full(10, 8.0), seed, 1000)[0] for seed in range(8)]
    assert sum(each > -0.5 * 4.0**2 for each in found) >= 6
    assert max(found) <= -4.5


def test_a_space_without_failures_has_none():
    likelihood, search = best_of(lambda points: np.full(len(points), 2.0), np.full(4, 3.0), 0, 200)
    assert likelihood == -np.inf and len(search.points) == 200 and len(search.failures()) == 0


def test_points_stay_within_bounds_and_the_first_is_the_middle():
    most = np.array([0.5, 2.0, 8.0])
    _, search = best_of(lambda points: 10.0 - points.sum(1), most, 0, 500)
    assert (search.points[0] == 0.0).all()
    assert (np.abs(search.points) <= most).all() and np.abs(search.points[:, 0]).max() == 0.5


def test_the_seed_decides():
    one, two, other = (best_of(lambda p: 2.0 - p[:, 0], np.full(3, 8.0), seed, 300)[1].points for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_failures_come_with_the_likeliest_first():
    search = Search(np.full(2, 8.0), np.random.default_rng(0))
    search.tell(np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.5, 0.0]]), np.array([-1.0, 0.0, 2.0, -5.0]))
    assert search.failures().tolist() == [3, 1, 0]
