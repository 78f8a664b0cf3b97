"""Images as patches, and a decoder that draws them: what the objectives that rebuild images share."""

import torch
from torch import nn

from envs.errors import UserError
from perception.encoders import Encoder

PATCH = 8  # pixels: the side of a patch
WIDTH = 64  # numbers that describe a patch before it is drawn


def scaled(images: torch.Tensor) -> torch.Tensor:
    """Images uint8 -> float32, as encoders scale them: about -2 to 2, mid-grey is 0."""
    return (images.float() - 128) / 64


def patches(images: torch.Tensor) -> torch.Tensor:
    """Images [B, C, H, W] cut into P = H W / PATCH^2 patches, row by row: [B, P, C PATCH^2].

    Raises:
        UserError: the images are no whole number of patches high and wide.
    """
    batch, channels, height, width = images.shape
    if height % PATCH or width % PATCH:
        raise UserError(f"images of {height}x{width} pixels cannot be cut into patches of {PATCH}x{PATCH}")
    x = images.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class PatchDecoder(nn.Module):
    """Draws an image from one vector: a description of each patch, then the same drawing of each description.

    Small on purpose: what it cannot know by itself the encoder must. Its inputs are first standardised over the batch.
    Else, while the mean of all images is learnt, which takes no look at any of them, features all become one.

    Args:
        encoder: tells the size of its images.
        inputs: size of the vector.
    """

    def __init__(self, encoder: Encoder, inputs: int):
        super().__init__()
        self.count = (encoder.height // PATCH) * (encoder.width // PATCH)
        self.standardize = nn.BatchNorm1d(inputs, affine=False, track_running_stats=False)
        self.describe = nn.Linear(inputs, self.count * WIDTH)
        self.draw = nn.Linear(WIDTH, encoder.in_channels * PATCH**2)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors [B, inputs] -> patches [B, P, C PATCH^2], ordered as by `patches`."""
        return self.draw(self.describe(self.standardize(vectors)).view(len(vectors), self.count, WIDTH).relu())
