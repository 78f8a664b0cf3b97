"""SimCLR: of all images in the batch, find the one that is the same under another augmentation.

Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations".
"""

import torch
import torch.nn.functional as F

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.heads import mlp


def nt_xent(first: torch.Tensor, second: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised cross-entropy over 2 N views, s the cosine:

        l_i = -log[ exp(s(z_i, z_j) / tau) / sum over k != i of exp(s(z_i, z_k) / tau) ],   j the other view of i

    Args:
        first, second: [N, D], row i of both shows image i.
        temperature: tau.

    Returns:
        the mean over all 2 N views, and the share of views whose nearest other is the right one.
    """
    z = F.normalize(torch.cat([first, second]), dim=1)
    count = len(first)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=z.device), -torch.inf)
    other = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(logits, other), (logits.argmax(1) == other).float().mean()


class SimCLR(TwoViews):
    """The encoder and a projection head.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    TEMPERATURE = 0.2
    HIDDEN, LATENT = 512, 128

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.projector = mlp(encoder.features, self.HIDDEN, self.LATENT, normalized=False)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        first, second = self.encode(batch)
        loss, accuracy = nt_xent(self.projector(first), self.projector(second), self.TEMPERATURE)
        return loss, {"accuracy": accuracy, "features": first.detach()}
