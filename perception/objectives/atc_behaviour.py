"""Augmented temporal contrast, and what the driver does next.

What is small in an image and changes seldom hardly helps to tell moments apart: a lamp of two pixels is lost among
moving cars. It decides, though, what a driver does. So the features of image t must also say which actions the driver
of that world takes from then on (behaviour cloning, Pomerleau 1989; Bain and Sammut 1995). The actions are part of what
was recorded, no labels. Of a driver who acts at random there is nothing to be said, which costs nothing: the least loss
is the entropy of what it does.
"""

import torch
import torch.nn.functional as F
from torch import nn

from perception.encoders import Encoder
from perception.objectives.atc import ATC
from perception.objectives.batch import Batch


def behaviour(logits: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the actions that were taken, and the share that was the most probable; 0 and 0 of none.

    Args:
        logits: [..., A].
        actions: int64 [...].
        valid: bool [...], false where an action belongs to another episode than the image.
    """
    loss = F.cross_entropy(logits.flatten(0, -2), actions.flatten(), reduction="none").view_as(actions)
    weight = valid / valid.sum().clamp(min=1)
    return (loss * weight).sum(), ((logits.argmax(-1) == actions) * weight).sum()


class ATCBehaviour(ATC):
    """`ATC`, and a head that foretells actions. See `Objective`."""

    AHEAD = 3  # actions that are foretold: this step's and those of the next two
    WEIGHT = 2.0  # of the foretelling beside the contrasts
    UNITS = 256

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.driver = nn.Sequential(
            nn.Linear(encoder.features, self.UNITS), nn.ReLU(), nn.Linear(self.UNITS, self.AHEAD * num_actions)
        )

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        features = self.encoder(batch.augmented.flatten(0, 1))
        loss, figures = self.contrasts(features, batch)
        times, worlds = batch.actions.shape
        foretold = self.driver(features).view(times, worlds, self.AHEAD, self.num_actions)
        losses, right = [], []
        for ahead in range(self.AHEAD):
            told = behaviour(foretold[: times - ahead, :, ahead], batch.actions[ahead:], batch.together(ahead))
            losses.append(told[0])
            right.append(told[1])
        figures |= {"action_accuracy": right[0], "features": features.detach()}
        return loss + self.WEIGHT * torch.stack(losses).mean(), figures
