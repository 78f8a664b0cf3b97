"""Rotation: by how many quarter turns was the image turned? A baseline.

On a road the sky alone tells: an easy question, from which little need be learnt of the traffic. Images are seldom
square: the square in the middle is turned, and what lies beside it is grey, the same for all answers.

Source: Gidaris, Singh and Komodakis 2018, "Unsupervised Representation Learning by Predicting Image Rotations".
"""

import torch
import torch.nn.functional as F
from torch import nn

from perception.encoders import Encoder
from perception.objectives.batch import Batch, Objective
from perception.objectives.draws import Draws

TURNS = 4
GREY = 128


def turned(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """The middle squares turned by quarters, anticlockwise; grey beside.

    Args:
        images: uint8 [B, C, H, W].
        turns: int64 [B], 0 to 3.

    Returns:
        uint8 [B, C, H, W].
    """
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    rows, columns = slice(top, top + side), slice(left, left + side)
    result = torch.full_like(images, GREY)
    square = images[:, :, rows, columns]
    for k in range(TURNS):
        result[:, :, rows, columns] = torch.where(
            (turns == k).view(-1, 1, 1, 1), square.rot90(k, (2, 3)), result[:, :, rows, columns]
        )
    return result


def which_turn(logits: torch.Tensor, turns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of logits [B, 4] with the true turns int64 [B], and the share of right answers."""
    return F.cross_entropy(logits, turns), (logits.argmax(1) == turns).float().mean()


class Rotation(Objective):
    """The encoder and a linear read-out of the turn.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.turn = nn.Linear(encoder.features, TURNS)
        self.draws = Draws()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        images = batch.augmented.flatten(0, 1)
        turns = self.draws.integers(TURNS, len(images))
        features = self.encoder(turned(images, turns))
        loss, accuracy = which_turn(self.turn(features), turns)
        return loss, {"accuracy": accuracy, "features": features.detach()}
