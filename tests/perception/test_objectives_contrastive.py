"""SimCLR and the two MoCos: their losses against closed forms, and MoCo's queue."""

import math

import pytest
import torch

from perception import encoders, objectives
from perception.objectives.moco import MoCo, contrast_with_queue
from perception.objectives.moco_v3 import contrast_in_batch
from perception.objectives.simclr import nt_xent

N, D, TEMPERATURE = 6, 12, 0.3


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def cross_entropy(right: float, wrong: list[float]) -> float:
    """-log of the right one's share, cosines over the temperature."""
    return math.log(sum(math.exp((c - right) / TEMPERATURE) for c in [right, *wrong]))


def test_nt_xent_of_equal_views_and_orthogonal_images():
    z = torch.eye(N)
    loss, accuracy = nt_xent(z, 3 * z, TEMPERATURE)
    assert loss.item() == pytest.approx(math.log(1 + (2 * N - 2) * math.exp(-1 / TEMPERATURE)), rel=1e-5)
    assert accuracy.item() == 1


def test_nt_xent_written_out():
    views = [*normal(N, D), *normal(N, D, seed=1)]
    losses = []
    for i in range(2 * N):
        other = (i + N) % (2 * N)
        wrong = [cosine(views[i], views[k]) for k in range(2 * N) if k not in (i, other)]
        losses.append(cross_entropy(cosine(views[i], views[other]), wrong))
    loss, _ = nt_xent(torch.stack(views[:N]), torch.stack(views[N:]), TEMPERATURE)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_contrast_with_a_queue_of_orthogonal_keys():
    z = torch.eye(D)[:N]
    loss, accuracy = contrast_with_queue(z, 2 * z, torch.eye(D)[N:], TEMPERATURE)
    assert loss.item() == pytest.approx(math.log(1 + (D - N) * math.exp(-1 / TEMPERATURE)), rel=1e-5)
    assert accuracy.item() == 1


def test_contrast_with_queue_written_out():
    q, k, queue = normal(N, D), normal(N, D, seed=1), normal(9, D, seed=2)
    losses = [cross_entropy(cosine(q[i], k[i]), [cosine(q[i], n) for n in queue]) for i in range(N)]
    assert contrast_with_queue(q, k, queue, TEMPERATURE)[0].item() == pytest.approx(sum(losses) / N, rel=1e-5)


def test_contrast_in_batch_written_out():
    q, k = normal(N, D), normal(N, D, seed=1)
    losses = [
        cross_entropy(cosine(q[i], k[i]), [cosine(q[i], k[j]) for j in range(N) if j != i]) * 2 * TEMPERATURE
        for i in range(N)
    ]
    assert contrast_in_batch(q, k, TEMPERATURE)[0].item() == pytest.approx(sum(losses) / N, rel=1e-5)


@pytest.mark.parametrize(
    "loss", [lambda q, k: contrast_with_queue(q, k, normal(9, D), 0.2), lambda q, k: contrast_in_batch(q, k, 0.2)]
)
def test_no_gradient_reaches_the_keys(loss):
    queries, keys = normal(N, D).requires_grad_(), normal(N, D, seed=1).requires_grad_()
    loss(queries, keys)[0].backward()
    assert queries.grad.any() and keys.grad is None


def test_the_newest_keys_replace_the_oldest():
    torch.manual_seed(0)
    objective = MoCo(encoders.build("small", 6, 32, 48), 5)
    images = torch.randint(0, 256, (3, 2, 6, 32, 48), dtype=torch.uint8)
    numbers = torch.zeros(3, 2, dtype=torch.int64)
    before = objective.queue.clone()
    objective.place.fill_(MoCo.QUEUE - 2)
    objective(objectives.Batch(images, images, numbers, numbers, images))
    assert torch.equal(objective.queue, before)  # asking changes nothing
    keys = objective.newest
    objective.update()
    assert objective.place.item() == 4
    assert torch.equal(torch.cat([objective.queue[-2:], objective.queue[:4]]), keys)
    assert torch.equal(objective.queue[4:-2], before[4:-2])
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(6))
