"""VICReg between an image and the one a policy step later: what lasts is kept, and every direction still varies.

The loss is `vicreg`, the pairs come from the drive and need no second augmentation; a pair that spans two episodes does
not count. What lasts longest in a drive are its light and its camera, which tell nothing of the traffic, and the spread
over many worlds that the variance asks for can be had from these alone: compare with what is told the actions.

Sources: Bardes et al. 2022 (see vicreg.py); Sobal et al. 2022, "Joint Embedding Predictive Architectures Focus on Slow
Features".
"""

import torch

from perception.objectives.batch import Batch
from perception.objectives.vicreg import VICReg, vicreg


class VICRegTemporal(VICReg):
    """VICReg whose two views are two times."""

    VIEWS = 1
    STEPS = 1  # policy steps between the two

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        features = self.encoder(batch.augmented.flatten(0, 1))
        latents = self.expander(features).view(*batch.actions.shape, -1)
        before, after = latents[: -self.STEPS].flatten(0, 1), latents[self.STEPS :].flatten(0, 1)
        loss = vicreg(before, after, batch.together(self.STEPS).flatten())
        return loss, {"features": features.detach()}
