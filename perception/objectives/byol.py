"""Bootstrap your own latent: predict what a slowly following copy says of the other view. Nothing is told apart.

Source: Grill et al. 2020, "Bootstrap your own latent: A new approach to self-supervised Learning".
"""

import torch
import torch.nn.functional as F

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.heads import follow, follower, mlp


def cosine_error(predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared distance of the l2-normalised vectors, ||p - z||^2 = 2 - 2 cos(p, z).

    Args:
        predictions: [..., D]. targets: [..., D], no gradient reaches them.

    Returns:
        [...], 0 where they point the same way, 4 where they point apart.
    """
    return 2 - 2 * F.cosine_similarity(predictions, targets.detach(), dim=-1)


class BYOL(TwoViews):
    """The encoder with a projection head and a predictor, and a copy of the first two that follows.

    The loss is the mean of `cosine_error`, view 1 predicting view 2 plus view 2 predicting view 1.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    HIDDEN, LATENT = 512, 128
    FOLLOW = 0.01  # share of the way that the copy moves at each update, 1 - tau

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.projector = mlp(encoder.features, self.HIDDEN, self.LATENT)
        self.predictor = mlp(self.LATENT, self.HIDDEN, self.LATENT)
        self.target_encoder, self.target_projector = follower(encoder), follower(self.projector)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        features = self.encode(batch)
        predictions = [self.predictor(self.projector(view)) for view in features]
        with torch.no_grad():
            targets = [self.target_projector(self.target_encoder(view)) for view in self.views(batch)]
        loss = sum(cosine_error(predictions[i], targets[1 - i]).mean() for i in range(2))
        return loss, {"features": features[0].detach()}

    def update(self) -> None:
        """See `Objective.update`."""
        follow(self.target_encoder, self.encoder, self.FOLLOW)
        follow(self.target_projector, self.projector, self.FOLLOW)
