"""Momentum contrast, third version: no queue, the other images of the batch are what to tell an image from; a predictor
on the encoder's side, and both views ask.

Source: Chen, Xie and He 2021, "An Empirical Study of Training Self-Supervised Vision Transformers".
"""

import torch
import torch.nn.functional as F

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.heads import follow, follower, mlp


def contrast_in_batch(
    queries: torch.Tensor, keys: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each query's own key against the batch's, all l2-normalised here:

        l_i = -2 tau log[ exp(q_i.k_i / tau) / sum over j of exp(q_i.k_j / tau) ]

    Args:
        queries: [N, D]. keys: [N, D], no gradient reaches them.
        temperature: tau; the factor 2 tau keeps the gradient's size whatever tau is.

    Returns:
        the mean, and the share of queries that are closest to their own key.
    """
    logits = F.normalize(queries, dim=1) @ F.normalize(keys.detach(), dim=1).T / temperature
    own = torch.arange(len(queries), device=queries.device)
    return 2 * temperature * F.cross_entropy(logits, own), (logits.argmax(1) == own).float().mean()


class MoCoV3(TwoViews):
    """The encoder with a projection head and a predictor, and a copy of the first two that follows.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    TEMPERATURE = 0.2
    HIDDEN, LATENT = 512, 128
    FOLLOW = 0.01  # share of the way that the copy moves at each update, 1 - m

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.projector = mlp(encoder.features, self.HIDDEN, self.LATENT)
        self.predictor = mlp(self.LATENT, self.HIDDEN, self.LATENT)
        self.key_encoder, self.key_projector = follower(encoder), follower(self.projector)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        features = self.encode(batch)
        queries = [self.predictor(self.projector(view)) for view in features]
        with torch.no_grad():
            keys = [self.key_projector(self.key_encoder(view)) for view in self.views(batch)]
        asked = [contrast_in_batch(queries[i], keys[1 - i], self.TEMPERATURE) for i in range(2)]
        accuracy = (asked[0][1] + asked[1][1]) / 2
        return asked[0][0] + asked[1][0], {"accuracy": accuracy, "features": features[0].detach()}

    def update(self) -> None:
        """See `Objective.update`."""
        follow(self.key_encoder, self.encoder, self.FOLLOW)
        follow(self.key_projector, self.projector, self.FOLLOW)
