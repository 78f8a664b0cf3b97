"""Action-conditioned latent prediction, with inverse dynamics and decorrelation.

From the features of image t and the actions that follow, roll the features on, and let each of the next few images'
latents, as a slowly following copy says them, be predicted. Two more terms keep what prediction alone may drop: which
action led from one image to the next must be readable, and the features of a batch must vary in all directions and not
together.

Sources: Schwarzer et al. 2021, "Data-Efficient Reinforcement Learning with Self-Predictive Representations" (SPR: the
roll-out); Schwarzer et al. 2021, "Pretraining Representations for Data-Efficient Reinforcement Learning" (SGI: inverse
dynamics beside it); Bardes et al. 2022 (VICReg: the decorrelation).
"""

import torch
import torch.nn.functional as F
from torch import nn

from perception.encoders import Encoder
from perception.objectives.batch import Batch, Objective
from perception.objectives.byol import cosine_error
from perception.objectives.heads import follow, follower, mlp
from perception.objectives.vicreg import covariance, variance_hinge


def rollout_error(predictions: list[torch.Tensor], targets: torch.Tensor, valid: list[torch.Tensor]) -> torch.Tensor:
    """1/K sum over k of the mean over valid (t, w) of 2 - 2 cos(p_k[t, w], y[t + k, w]).

    Args:
        predictions: p_k for k = 1 to K, each [T - k, W, D].
        targets: y, [T, W, D]; no gradient reaches them.
        valid: for each k bool [T - k, W], false where an episode ended on the way.

    Returns:
        a scalar; a k without any valid pair adds 0.
    """
    total = targets.new_zeros(())
    for k, (predicted, counts) in enumerate(zip(predictions, valid, strict=True), start=1):
        total = total + (cosine_error(predicted, targets[k:]) * counts).sum() / counts.sum().clamp(min=1)
    return total / len(predictions)


def which_action(logits: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of logits [N, A] with the actions int64 [N] where valid (bool [N]), and the share of right answers;
    0 and 0 if nothing is valid.
    """
    loss = F.cross_entropy(logits, actions, reduction="none")
    right = logits.argmax(1) == actions
    count = valid.sum().clamp(min=1)
    return (loss * valid).sum() / count, (right & valid).sum() / count


class LatentPrediction(Objective):
    """The encoder, a transition, a projection with its following copy, a predictor and a reader of actions.

    The loss is `rollout_error` + `which_action` + DECORRELATION (v + c / 25), v and c the features' variance hinge and
    covariance, in VICReg's proportion.

    Args:
        encoder: the encoder to train.
        num_actions: number of meta-actions.
    """

    STEPS = 5  # policy steps ahead, or as many as the drive has
    DECORRELATION = 1.0
    HIDDEN, LATENT = 512, 128
    FOLLOW = 0.01  # share of the way that the copy moves at each update

    def __init__(self, encoder: Encoder, num_actions: int):
        super().__init__(encoder, num_actions)
        self.transition = mlp(encoder.features + num_actions, self.HIDDEN, encoder.features, normalized=False)
        self.projection = nn.Linear(encoder.features, self.LATENT)
        self.predictor = nn.Linear(self.LATENT, self.LATENT)
        self.reader = mlp(2 * encoder.features, self.HIDDEN, num_actions, normalized=False)
        self.target_encoder, self.target_projection = follower(encoder), follower(self.projection)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Objective.forward`."""
        times, worlds = batch.actions.shape
        features = self.encoder(batch.augmented.flatten(0, 1))
        with torch.no_grad():
            targets = self.target_projection(self.target_encoder(batch.plain.flatten(0, 1))).view(times, worlds, -1)
        images = features.view(times, worlds, -1)
        steps = min(self.STEPS, times - 1)
        valid = [batch.together(k) for k in range(1, steps + 1)]
        predicted = rollout_error(self.foretell(images, batch.actions, steps), targets, valid)
        pairs = torch.cat([images[:-1], images[1:]], 2).flatten(0, 1)
        read, accuracy = which_action(self.reader(pairs), batch.actions[:-1].flatten(), valid[0].flatten())
        decorrelated = variance_hinge(features) + covariance(features) / 25
        figures = {"prediction_error": predicted, "action_accuracy": accuracy, "features": features.detach()}
        return predicted + read + self.DECORRELATION * decorrelated, figures

    def foretell(self, images: torch.Tensor, actions: torch.Tensor, steps: int) -> list[torch.Tensor]:
        """Predicted latents of 1 to `steps` steps ahead, [T - k, W, LATENT] each, from features [T, W, features] and
        actions [T, W].
        """
        told = F.one_hot(actions, self.num_actions).float()
        state, result = images, []
        for k in range(1, steps + 1):
            state = state[:-1]  # the last image has nothing so far ahead
            change = self.transition(torch.cat([state, told[k - 1 : k - 1 + len(state)]], 2))
            state = F.layer_norm(state + change, state.shape[2:])  # as the encoder's own features are
            result.append(self.predictor(self.projection(state)))
        return result

    def update(self) -> None:
        """See `Objective.update`."""
        follow(self.target_encoder, self.encoder, self.FOLLOW)
        follow(self.target_projection, self.projection, self.FOLLOW)
