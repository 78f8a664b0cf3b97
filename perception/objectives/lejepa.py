"""LeJEPA: views agree with their mean, and the latents of a batch are spread like an isotropic Gaussian.

Whether they are is asked of random projections, one dimension at a time (SIGReg, sketched isotropic Gaussian
regularisation): there the sample's characteristic function is compared with the Gaussian's. No copy that follows, no
stopped gradient, no queue.

Source: Balestriero and LeCun 2025, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics".
"""

import torch

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.draws import Draws
from perception.objectives.heads import mlp

KNOTS, REACH = 17, 3.0  # where the characteristic function is looked at: so many places on [0, REACH]


def sigreg(z: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Epps and Pulley's test (1983) of each projection x = z u against N(0, 1), averaged over the directions u:

        N integral of |1/N sum_n exp(i t x_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt

    by the trapezoidal rule on [0, REACH], doubled since the integrand is even. On average
    sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.06 for a Gaussian sample of any size; grows with N for any other.

    Args:
        z: [N, D].
        directions: [D, S], of any length.

    Returns:
        a scalar.
    """
    t = torch.linspace(0, REACH, KNOTS, device=z.device)
    gaussian = (-t.square() / 2).exp()
    angles = (z @ (directions / directions.norm(dim=0)))[:, :, None] * t  # [N, S, KNOTS]
    difference = (angles.cos().mean(0) - gaussian).square() + angles.sin().mean(0).square()
    return 2 * len(z) * torch.trapezoid(difference * gaussian, t).mean()


def lejepa(views: torch.Tensor, directions: torch.Tensor, weight: float) -> torch.Tensor:
    """(1 - lambda) mean over views of ||z_v - mean of the views||^2 / D + lambda mean over views of SIGReg(z_v).

    Args:
        views: [V, N, D], the latents of V views of N images.
        directions: [D, S], see `sigreg`.
        weight: lambda.

    Returns:
        a scalar.
    """
    distance = (views - views.mean(0)).square().mean()
    return (1 - weight) * distance + weight * torch.stack([sigreg(view, directions) for view in views]).mean()


class LeJEPA(TwoViews):
    """The encoder and a projection head, where the loss is taken.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    WEIGHT = 0.05  # lambda
    SLICES = 256  # directions, drawn anew for each batch
    HIDDEN, LATENT = 512, 64

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.projector = mlp(encoder.features, self.HIDDEN, self.LATENT)
        self.draws = Draws()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        first, second = self.encode(batch)
        latents = torch.stack([self.projector(first), self.projector(second)])
        loss = lejepa(latents, self.draws.normal(self.LATENT, self.SLICES), self.WEIGHT)
        return loss, {"features": first.detach()}
