"""Augmented temporal contrast, told the actions and asked for places.

From the features of image t and the actions that follow, predict the image seen `steps` later, well enough to pick it
out among all the times of the same drive (Stooke et al., "Decoupling Representation Learning from Reinforcement
Learning", 2021). Three things differ from that paper, for reasons that a road gives:

- The alternatives come from the same world only. Light, haze, colours and camera pose are constant in an episode: among
  images of other worlds they alone would give the answer away. Within one drive only the traffic and the own lane can.
- The predictor is told the actions (as in Guo et al., 2018): without them a lane change is noise, and what cannot be
  predicted is not learnt.
- Besides the whole image, every cell of the key encoder's last convolution must be picked out (as in Anand et al.,
  "Unsupervised State Representation Learning in Atari", 2019): a whole image is told from its neighbours in time by the
  nearest car alone, a far one is seen in its cell only.
"""

import torch
import torch.nn.functional as F
from torch import nn

from perception.encoders import Encoder, mixed_precision
from perception.objectives.batch import Batch, Objective
from perception.objectives.heads import follow, follower


def contrast(
    queries: torch.Tensor, keys: torch.Tensor, valid: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE over time: each query must match its own key among those of all times of the same world and place.

    Args:
        queries: [Q, W, P, D], for P places in the images of W worlds.
        keys: [T, W, P, D], T >= Q; queries[i] matches keys[i], keys beyond Q are alternatives only.
        valid: bool [Q, W], false where the pair is no pair (an episode ended between).
        temperature: of the softmax over cosines.

    Returns:
        the mean loss, and the share of queries that match best where they should; 0 and 0 if no pair is valid.
    """
    logits = torch.einsum("qwpd,twpd->wpqt", F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)) / temperature
    target = torch.arange(len(queries), device=queries.device).expand(logits.shape[:3])
    loss = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none").view_as(target)
    weight = valid.t()[:, None, :].expand_as(target) / (valid.sum() * queries.shape[2]).clamp(min=1)
    return (loss * weight).sum(), ((logits.argmax(-1) == target) * weight).sum()


class ATC(Objective):
    """The encoder, its slowly following copy, and the predictor between them.

    Args:
        encoder: the encoder to train.
        num_actions: number of meta-actions.
    """

    STEPS = 1  # policy steps ahead: a second, in which a car moves by a few of its lengths at most
    TEMPERATURE = 0.1
    LATENT = 128
    HIDDEN = 512
    FOLLOW = 0.01  # share of the way that the key encoder moves towards the encoder at each update

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        channels, height, width = encoder.map_shape
        self.cells = height * width
        self.predictor = nn.Sequential(nn.Linear(encoder.features + num_actions * self.STEPS, self.HIDDEN), nn.ReLU())
        self.whole = nn.Linear(self.HIDDEN, self.LATENT)
        self.places = nn.Linear(self.HIDDEN, self.cells * channels)
        self.key_encoder = follower(encoder)
        self.key_projection = nn.Linear(encoder.features, self.LATENT)
        self.key_projection_copy = follower(self.key_projection)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        features = self.encoder(batch.augmented.flatten(0, 1))
        loss, figures = self.contrasts(features, batch)
        return loss, figures | {"features": features.detach()}

    def contrasts(self, features: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and figures of the features [T x W, features] of a batch's images."""
        steps, (times, worlds) = self.STEPS, batch.actions.shape
        with torch.no_grad():
            maps = self.key_encoder.maps(batch.plain.flatten(0, 1))
            whole_keys = self.key_projection_copy(self.key_encoder.project(maps)).view(times, worlds, 1, -1)
            place_keys = maps.float().flatten(2).transpose(1, 2).reshape(times, worlds, self.cells, -1)
            place_keys = place_keys - place_keys.mean((0, 1))  # what a cell always shows tells no time
        anchors = features.view(times, worlds, -1)[:-steps]
        acted = [F.one_hot(batch.actions[k : times - steps + k], self.num_actions).float() for k in range(steps)]
        valid = batch.together(steps)
        with mixed_precision(anchors.device):
            hidden = self.predictor(torch.cat([anchors, *acted], -1))
            whole = (self.whole(hidden) + self.key_projection(anchors)).float()
            places = self.places(hidden).float().view(times - steps, worlds, self.cells, -1)
        # Query t matches the key of t + steps.
        whole_loss, whole_right = contrast(whole[:, :, None], whole_keys[steps:], valid, self.TEMPERATURE)
        place_loss, place_right = contrast(places, place_keys[steps:], valid, self.TEMPERATURE)
        return whole_loss + place_loss, {"whole_accuracy": whole_right, "place_accuracy": place_right}

    def update(self) -> None:
        """See `Objective.update`."""
        follow(self.key_encoder, self.encoder, self.FOLLOW)
        follow(self.key_projection_copy, self.key_projection, self.FOLLOW)
