"""SimSiam: predict the other view's latent, which is held fixed. BYOL without the copy: the targets are the encoder's.

The loss is BYOL's, `cosine_error`; the paper writes it as -cos / 2, which has the same minimum.

Source: Chen and He 2021, "Exploring Simple Siamese Representation Learning".
"""

import torch
from torch import nn

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.byol import cosine_error
from perception.objectives.heads import mlp


class SimSiam(TwoViews):
    """The encoder with a projection head, batch-normalised at its end, and a predictor with a waist.

    The loss is the mean of 2 - 2 cos(p(z_1), sg z_2), plus the same with the views exchanged; sg stops the gradient.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    HIDDEN, LATENT, WAIST = 512, 512, 128

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        last = nn.BatchNorm1d(self.LATENT, affine=False, track_running_stats=False)
        self.projector = nn.Sequential(mlp(encoder.features, self.HIDDEN, self.HIDDEN, self.LATENT), last)
        self.predictor = mlp(self.LATENT, self.WAIST, self.LATENT)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        features = self.encode(batch)
        latents = [self.projector(view) for view in features]
        loss = sum(cosine_error(self.predictor(latents[i]), latents[1 - i]).mean() for i in range(2))
        return loss, {"features": features[0].detach()}
