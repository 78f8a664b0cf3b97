"""Masked autoencoding: three quarters of an image are painted over, draw them.

The encoder is convolutional and sees the whole image, the missing patches as mid-grey. All frames of a stack lose the
same places: else the older one would give the newer away. The encoder sees the augmented image, what is to be drawn is
the plain one; patches are normalised, so that light and contrast of the augmentation do not matter.

Source: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".
"""

import torch

from perception.encoders import Encoder
from perception.objectives.batch import Batch, Objective
from perception.objectives.draws import Draws
from perception.objectives.pixels import PATCH, PatchDecoder, patches, scaled

FLAT = 1e-3  # added to a patch's variance: a deviation of 2 grey levels. An empty sky is not blown up to noise
GREY = 128  # what is painted over a patch: 0 to the encoder


def masked_error(drawn: torch.Tensor, true: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Mean over the masked patches of |d - (x - mean x) / sqrt(var x + FLAT)|^2 / M, each patch normalised by itself.

    Args:
        drawn: d, [B, P, M].
        true: x, [B, P, M].
        masked: bool [B, P].

    Returns:
        a scalar; 0 if nothing is masked.
    """
    variance, mean = torch.var_mean(true, dim=2, keepdim=True, correction=0)
    error = (drawn - (true - mean) * (variance + FLAT).rsqrt()).square().mean(2)
    return (error * masked).sum() / masked.sum().clamp(min=1)


def paint_over(images: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Images uint8 [B, C, H, W] with mid-grey where masked (bool [B, P], patches row by row) is true."""
    batch, _, height, width = images.shape
    grid = masked.view(batch, 1, height // PATCH, width // PATCH)
    return images.masked_fill(grid.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3), GREY)


class MAE(Objective):
    """The encoder and a decoder.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    RATIO = 0.75  # of the patches that are painted over

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.decoder = PatchDecoder(encoder, encoder.features)
        self.draws = Draws()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        true = patches(scaled(batch.plain.flatten(0, 1)))
        images, count = true.shape[:2]
        order = self.draws.uniform(images, count).argsort(1).argsort(1)
        masked = order < round(self.RATIO * count)
        features = self.encoder(paint_over(batch.augmented.flatten(0, 1), masked))
        return masked_error(self.decoder(features), true, masked), {"features": features.detach()}
