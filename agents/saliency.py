"""Where a policy looked when it decided: `perception.saliency` for the policies that see pictures.

look = Saliency(policies.load("zoo/highway-ppo"))
maps = look(obs)  # (N, H, W), from 0 to 1
maps = look.shares(obs)  # from -1, what speaks against the action, to 1, what speaks for it
"""

import copy

import torch
from gymnasium import spaces
from torch import Tensor, nn

from agents.networks import CameraExtractor
from agents.policies import Policy, Tensors, TrainedPolicy, TrainedValues
from envs.errors import UserError, unknown
from envs.sensors import rig
from perception import saliency

TARGETS = ("action", "value")


class Saliency:
    """Where in their pictures the decisions of a policy come from.

    It works on a copy of the policy, so that it may be asked on another thread than the one that drives.

    Args:
        policy: a trained one that sees pictures, through a frozen encoder or one that learnt with it.
        method: one of `perception.saliency.METHODS`.
        target: the number that is explained. "action": of meta-actions the log-probability of the one that was taken,
            with action values its value, of continuous actions their mean's component along the one that was taken (the
            log-density would not do: at its mode it has no slope). "value": the return that is expected, of the state
            or of that action.

    Attributes:
        policy, method, target: as above.
        device: where observations must be.
        decision: what is explained, as a function of pixels (N, C, H, W), what is told beside them (N, K) and actions.

    Raises:
        UserError: the policy sees no pictures, or an unknown method or target.
    """

    def __init__(self, policy: Policy, method: str = saliency.DEFAULT, target: str = "action"):
        if method not in saliency.METHODS:
            raise unknown("saliency method", method, saliency.METHODS)
        if target not in TARGETS:
            raise unknown("target of a saliency", target, TARGETS)
        if not sees_pictures(policy):
            raise UserError(
                f"'{policy.name}' sees no pictures through an encoder of ours, or remembers earlier ones: there is no "
                "saliency to be shown"
            )
        self.policy, self.method, self.target = policy, method, target
        network, self._frozen = copy.deepcopy(policy.network), policy.encoder is not None
        encoder = copy.deepcopy(policy.encoder)
        if encoder is None:  # features are handed to the network in the place of pictures
            encoder, network.features_extractor.encoder = network.features_extractor.encoder, nn.Identity()
        self._network = network
        self.device = next(network.parameters()).device
        cameras = rig.get(policy.env_options.get("rig", "surround")).cameras
        rows = [camera.height for camera in cameras]
        self.decision = saliency.Decision(
            encoder, self._decide, rows if sum(rows) == encoder.height else [encoder.height]
        )

    def shares(self, obs: Tensors, actions: Tensor | None = None) -> Tensor:
        """What speaks for and against N decisions, see `perception.saliency.shares`. Shape: (N, H, W), from -1 to 1.

        Args:
            obs: "camera" uint8 (N, C, H, W) and what is told beside it, as the policy was shown them.
            actions: that are asked about; by default those that the policy takes. Shape: as its actions.
        """
        actions = self.policy.act(obs) if actions is None else actions
        beside = torch.cat([obs[name] for name in self.policy.told], dim=1)
        return saliency.shares(self.decision, obs["camera"], beside, actions, method=self.method)

    def __call__(self, obs: Tensors, actions: Tensor | None = None) -> Tensor:
        """The saliency of N decisions: `shares` without signs. Shape: (N, H, W), from 0 to 1."""
        return self.shares(obs, actions).abs()

    def _decide(self, features: Tensor, beside: Tensor, actions: Tensor) -> Tensor:
        """The decisions of features (B, F)."""
        if self._frozen:
            seen = {"features": torch.cat([features, beside], dim=1)}
        else:
            shapes = self.policy.header["observation"]
            parts = beside.split([shapes[name][0] for name in self.policy.told], dim=1)
            seen = {"camera": features, **dict(zip(self.policy.told, parts, strict=True))}
        if isinstance(self.policy, TrainedValues):
            outputs = self._network(seen)
        else:
            values, outputs = self._network.values_and_distributions(seen)
            if self.target == "value":
                return values.squeeze(1)
            if not isinstance(self._network.action_space, spaces.Discrete):
                return (outputs[:, 0] * nn.functional.normalize(actions.float(), dim=1)).sum(1)
        return outputs.gather(1, actions.long().reshape(-1, 1)).squeeze(1)


def sees_pictures(policy: object) -> bool:
    """Whether a policy is a trained one that sees its camera's pictures by an encoder, frozen or not, and decides from
    nothing but what it sees at that moment."""
    if not isinstance(policy, TrainedPolicy) or policy.remembers:
        return False
    extractor = policy.network.features_extractor
    return policy.encoder is not None or (isinstance(extractor, CameraExtractor) and extractor.image == "camera")
