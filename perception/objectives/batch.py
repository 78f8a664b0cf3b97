"""What every objective is given, and what it must be able to do."""

from dataclasses import dataclass

import torch
from torch import nn

from perception.encoders import Encoder


@dataclass(frozen=True)
class Batch:
    """Stretches of driving: T consecutive policy steps of each of W worlds.

    augmented: uint8 [T, W, C, H, W], an augmentation of what the camera saw.
    plain: uint8 [T, W, C, H, W], what it saw; worlds with randomised cameras differ enough as they are.
    actions: int64 [T, W], the meta-action taken after seeing the image; the last row leads out of the batch.
    episodes: int64 [T, W], which episode of its world each image belongs to: what spans two episodes is not one drive.
    second: uint8 [T, W, C, H, W], another augmentation of the same images, for objectives of two views; else None.
    """

    augmented: torch.Tensor
    plain: torch.Tensor
    actions: torch.Tensor
    episodes: torch.Tensor
    second: torch.Tensor | None = None

    def together(self, steps: int) -> torch.Tensor:
        """Whether image t and image t + steps belong to one episode; bool [T - steps, W]."""
        return self.episodes[steps:] == self.episodes[: len(self.episodes) - steps]


class Objective(nn.Module):
    """Base of all objectives. All that changes as it trains is in its `state_dict`.

    Args:
        encoder: the encoder to train; its weights are among the module's parameters.
        num_actions: number of meta-actions.
    """

    VIEWS = 1  # augmentations of each image that it is to be given

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__()
        self.encoder = encoder
        self.num_actions = num_actions

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and figures to log: scalars, and "features" [N, features], the encoder's detached output that the
        collapse alarm reads.
        """
        raise NotImplementedError

    def update(self) -> None:
        """Called after each optimiser step, for what follows the encoder without gradients."""


class TwoViews(Objective):
    """Base of the objectives that compare two augmentations of each image."""

    VIEWS = 2

    def views(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, C, H, W] each: the two augmentations of the N = T x W images of a batch."""
        return batch.augmented.flatten(0, 1), batch.second.flatten(0, 1)

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, features] of the two views."""
        first, second = self.encoder(torch.cat(self.views(batch))).chunk(2)
        return first, second
