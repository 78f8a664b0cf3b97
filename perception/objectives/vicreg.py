"""VICReg: variance, invariance, covariance. Two views agree, each direction varies, and no two vary together.

Source: Bardes, Ponce and LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning".
"""

import torch

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.heads import mlp

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0


def centred(z: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """z [N, D] less its mean over the valid rows, 0 in the others; and one less than their number, at least 1."""
    weight = z.new_ones(len(z), 1) if valid is None else valid[:, None].to(z.dtype)
    count = weight.sum()
    return (z - (z * weight).sum(0) / count.clamp(min=1)) * weight, (count - 1).clamp(min=1)


def variance_hinge(z: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """mean_j relu(1 - sqrt(Var z_j + 1e-4)) of z [N, D] over its valid rows (bool [N]; all by default)."""
    z, count = centred(z, valid)
    return (1 - (z.square().sum(0) / count + 1e-4).sqrt()).relu().mean()


def covariance(z: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """sum over i != j of C_ij^2 / D, C the covariance of z [N, D] over its valid rows (bool [N]; all by default)."""
    z, count = centred(z, valid)
    matrix = z.T @ z / count
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]


def vicreg(first: torch.Tensor, second: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """25 mean |a - b|^2 + 25 (v(a) + v(b)) / 2 + c(a) + c(b), v the variance hinge and c the covariance above.

    Args:
        first, second: a and b, [N, D]; row n of both is a pair.
        valid: bool [N], false where the pair is no pair; all are by default.

    Returns:
        a scalar.
    """
    distance = (first - second).square().mean(1)
    invariance = distance.mean() if valid is None else (distance * valid).sum() / valid.sum().clamp(min=1)
    variance = (variance_hinge(first, valid) + variance_hinge(second, valid)) / 2
    covariances = covariance(first, valid) + covariance(second, valid)
    return INVARIANCE * invariance + VARIANCE * variance + COVARIANCE * covariances


class VICReg(TwoViews):
    """The encoder and an expander, where the loss is taken.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    HIDDEN, LATENT = 512, 512

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.expander = mlp(encoder.features, self.HIDDEN, self.HIDDEN, self.LATENT)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        first, second = self.encode(batch)
        return vicreg(self.expander(first), self.expander(second)), {"features": first.detach()}
