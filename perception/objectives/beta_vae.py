"""beta-VAE: say an image in few independent numbers, of which it can be drawn again. A baseline.

The encoder sees the augmented image, what is to be drawn is the plain one.

Sources: Kingma and Welling 2014, "Auto-Encoding Variational Bayes"; Higgins et al. 2017, "beta-VAE: Learning Basic
Visual Concepts with a Constrained Variational Framework".
"""

import torch
from torch import nn

from perception.encoders import Encoder
from perception.objectives.batch import Batch, Objective
from perception.objectives.draws import Draws
from perception.objectives.pixels import PatchDecoder, patches, scaled


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2, summed over [B, D] -> [B]; in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def beta_vae(
    drawn: torch.Tensor, true: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, beta: float
) -> torch.Tensor:
    """(|d - x|^2 / 2 + beta KL) / M: minus the evidence bound of a Gaussian image of deviation 1, beta before the KL.

    Args:
        drawn: d, [B, M]. true: x, [B, M], M numbers an image.
        mean, log_variance: of the latent, [B, D].
        beta: 1 is the bound itself.

    Returns:
        the mean over the images.
    """
    error = (drawn - true).square().sum(1) / 2
    return ((error + beta * divergence(mean, log_variance)) / true.shape[1]).mean()


class BetaVAE(Objective):
    """The encoder, the latent's mean and deviation, and a decoder.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    BETA = 4.0
    LATENT = 64

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.latent = nn.Linear(encoder.features, 2 * self.LATENT)
        self.decoder = PatchDecoder(encoder, self.LATENT)
        self.draws = Draws()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        true = patches(scaled(batch.plain.flatten(0, 1)))
        features = self.encoder(batch.augmented.flatten(0, 1))
        mean, log_variance = self.latent(features).chunk(2, 1)
        latent = mean + (log_variance / 2).exp() * self.draws.normal(*mean.shape)
        loss = beta_vae(self.decoder(latent).flatten(1), true.flatten(1), mean, log_variance, self.BETA)
        return loss, {"divergence": divergence(mean, log_variance).mean(), "features": features.detach()}
