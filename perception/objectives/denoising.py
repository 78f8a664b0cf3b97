"""Denoising: draw the image that a noisy one was. A baseline.

The encoder sees the augmented image with still more noise, what is to be drawn is the plain one.

Source: Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders".
"""

import torch

from perception.encoders import Encoder
from perception.objectives.batch import Batch, Objective
from perception.objectives.draws import Draws
from perception.objectives.pixels import PatchDecoder, patches, scaled


def pixel_error(drawn: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """mean |d - x|^2 over images, patches and pixels, both [B, P, M]; a scalar."""
    return (drawn - true).square().mean()


def noisy(images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Images uint8 with noise of the same shape added, in grey levels; what leaves 0 to 255 is clipped."""
    return (images + noise).round_().clamp_(0, 255).to(torch.uint8)


class Denoising(Objective):
    """The encoder and a decoder.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    DEVIATION = 0.2 * 255  # of the noise, in grey levels

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.decoder = PatchDecoder(encoder, encoder.features)
        self.draws = Draws()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        images = batch.augmented.flatten(0, 1)
        features = self.encoder(noisy(images, self.DEVIATION * self.draws.normal(*images.shape)))
        loss = pixel_error(self.decoder(features), patches(scaled(batch.plain.flatten(0, 1))))
        return loss, {"features": features.detach()}
