"""Barlow Twins: every direction of the latent says the same of both views, and no two directions say the same.

Source: Zbontar et al. 2021, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction".
"""

import torch

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.heads import mlp

LEAST = 1e-5  # added to variances: what hardly varies is not blown up


def cross_correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """C_ij = mean over the batch of a_i b_j, with a and b the two views made mean 0 and variance 1 over the batch.

    Args:
        first, second: [N, D].

    Returns:
        [D, D].
    """
    first, second = ((z - z.mean(0)) * (z.var(0, correction=0) + LEAST).rsqrt() for z in (first, second))
    return first.T @ second / len(first)


def barlow_twins(first: torch.Tensor, second: torch.Tensor, redundancy: float) -> torch.Tensor:
    """sum_i (1 - C_ii)^2 + lambda sum over i != j of C_ij^2, C the cross-correlation of the two views.

    Args:
        first, second: [N, D], row n of both shows image n.
        redundancy: lambda.

    Returns:
        a scalar.
    """
    correlation = cross_correlation(first, second)
    diagonal = correlation.diagonal()
    return (1 - diagonal).square().sum() + redundancy * (correlation.square().sum() - diagonal.square().sum())


class BarlowTwins(TwoViews):
    """The encoder and a projection head.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    REDUNDANCY = 5e-3
    HIDDEN, LATENT = 512, 512

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.projector = mlp(encoder.features, self.HIDDEN, self.HIDDEN, self.LATENT)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        first, second = self.encode(batch)
        loss = barlow_twins(self.projector(first), self.projector(second), self.REDUNDANCY)
        return loss, {"features": first.detach()}
