"""Momentum contrast, second version: of a queue of past images, find the one that is the same under another
augmentation; what is in the queue was encoded by a slowly following copy.

Sources: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning"; Chen et al. 2020,
"Improved Baselines with Momentum Contrastive Learning" (the head, the temperature). There are no batch statistics here
that a shuffling of the batch would have to hide.
"""

import torch
import torch.nn.functional as F

from perception.encoders import Encoder
from perception.objectives.batch import Batch, TwoViews
from perception.objectives.heads import follow, follower, mlp


def contrast_with_queue(
    queries: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each query's own key against the queue, all l2-normalised here:

        l_i = -log[ exp(q_i.k_i / tau) / (exp(q_i.k_i / tau) + sum over the queue of exp(q_i.n / tau)) ]

    Args:
        queries: [N, D]. keys: [N, D], no gradient reaches them. queue: [Q, D].
        temperature: tau.

    Returns:
        the mean, and the share of queries that are closest to their own key.
    """
    q, k, n = (F.normalize(z, dim=1) for z in (queries, keys.detach(), queue))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / temperature
    own = torch.zeros(len(q), dtype=torch.int64, device=q.device)
    return F.cross_entropy(logits, own), (logits.argmax(1) == own).float().mean()


class MoCo(TwoViews):
    """The encoder with a projection head, a copy of both that follows, and the queue.

    Args:
        encoder: the encoder to train.
        num_actions: not used.
    """

    TEMPERATURE = 0.2
    HIDDEN, LATENT = 512, 128
    QUEUE = 1024  # keys: well under one drive's images, so that few of them show the query's own image
    FOLLOW = 0.01  # share of the way that the copy moves at each update, 1 - m

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.projector = mlp(encoder.features, self.HIDDEN, self.LATENT, normalized=False)
        self.key_encoder, self.key_projector = follower(encoder), follower(self.projector)
        self.register_buffer("queue", F.normalize(torch.randn(self.QUEUE, self.LATENT), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))  # in the queue, of the oldest key
        self.newest: torch.Tensor | None = None  # the last batch's keys, queued by `update`

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        first, second = self.views(batch)
        features = self.encoder(first)
        with torch.no_grad():
            keys = F.normalize(self.key_projector(self.key_encoder(second)), dim=1)
        self.newest = keys[-self.QUEUE :]
        loss, accuracy = contrast_with_queue(self.projector(features), keys, self.queue, self.TEMPERATURE)
        return loss, {"accuracy": accuracy, "features": features.detach()}

    @torch.no_grad()
    def update(self) -> None:
        """See `Objective.update`."""
        follow(self.key_encoder, self.encoder, self.FOLLOW)
        follow(self.key_projector, self.projector, self.FOLLOW)
        places = (self.place + torch.arange(len(self.newest), device=self.queue.device)) % self.QUEUE
        self.queue[places] = self.newest
        self.place.add_(len(self.newest)).remainder_(self.QUEUE)
