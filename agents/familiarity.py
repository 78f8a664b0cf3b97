"""What is familiar to a frozen encoder, as a file beside it; and how unfamiliar what a policy sees through it is.

watch = Watch(policy, read(path, policy.encoder), worlds.action_names)
share = watch(obs, fresh)  # of familiar frames that score lower, 0 to 1
watch.acted(actions)
"""

import hashlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from agents import checkpoint, policies
from agents.networks import weights
from agents.policies import Policy, Tensors, TrainedPolicy
from envs.errors import UserError, unknown
from envs.physics.actions import META_ACTIONS
from perception import encoders, ood
from perception.encoders import Encoder
from perception.ood import Familiarity
from perception.transitions import Transitions, through

NAME = "familiarity.safetensors"


def fingerprint(encoder: Encoder) -> str:
    """SHA-256 of the weights; that in the encoder's card, too."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in weights(encoder).items()}
    return hashlib.sha256(safetensors.torch.save(kept)).hexdigest()


def write(path: Path, known: Familiarity, encoder: Encoder, about: dict[str, Any]) -> None:
    """Write what is familiar to an encoder.

    Args:
        path: the file; its folder exists.
        known: of `perception.ood.fit`.
        encoder: whose features those are.
        about: for readers, in JSON's types.

    Raises:
        OSError: the file could not be written; the old one is as it was.
    """
    checkpoint.write(path, known.tensors(), {"kind": "familiarity", "encoder": fingerprint(encoder), **about})


def read(path: Path, encoder: Encoder, device: torch.device | str = "cpu") -> tuple[Familiarity, dict[str, Any]]:
    """What `write` wrote, and its header.

    Raises:
        UserError: the file is missing, damaged, of another kind, or of another encoder.
    """
    if not path.exists():
        raise UserError(f"what is familiar is not known: {path} is missing; python -m train.familiarity makes it")
    tensors, header = checkpoint.read(path)
    if header.get("kind") != "familiarity":
        raise UserError(f"{path} does not say what is familiar to an encoder")
    if header.get("encoder") != fingerprint(encoder):
        raise UserError(f"{path} belongs to another encoder: fit it anew with python -m train.familiarity")
    try:
        return Familiarity(**tensors).to(device), header
    except TypeError:
        raise UserError(f"{path} is of another version: fit it anew with python -m train.familiarity") from None


def folder_of(spec: str) -> Path:
    """The folder of an encoder or of a policy, "zoo/NAME" or a path.

    Raises:
        UserError: there is none.
    """
    folder = Path(spec)
    if spec.startswith("zoo/") and not folder.exists():
        folder = policies.ZOO / spec.removeprefix("zoo/")
    if not folder.is_dir():
        shipped = [f"zoo/{path.name}" for path in policies.ZOO.iterdir() if path.is_dir()]
        raise unknown("encoder", spec, [*shipped, "the path of the folder of an encoder or of a policy"])
    return folder


def frozen_encoder(folder: Path, device: torch.device | str = "cpu") -> tuple[Encoder, dict[str, Any]]:
    """The encoder in its own folder or in that of a policy that drives by it.

    Returns:
        the encoder, and "encoder" (see `encoders.rebuild`), "scenario", "rig" and "frames".

    Raises:
        UserError: there is none.
    """
    if (folder / policies.NAME).exists():
        policy = policies.read(folder / policies.NAME, str(folder), device)
        if policy.encoder is None:
            raise UserError(f"the policy in {folder} has no frozen encoder")
        card, scenario = policy.header["encoder"], policy.header["scenario"]
        rig = policy.env_options.get("rig", "surround")
        encoder = policy.encoder
    else:
        card = encoders.read_card(folder)
        scenario, rig = card.get("scenario"), (card.get("rig") or {}).get("name", "surround")
        encoder = encoders.load(folder, device)
    about = {"architecture": encoders.architecture(card), "scenario": scenario, "rig": rig}
    return encoder, about | {"frames": encoder.in_channels // 3}


class Watch:
    """How unfamiliar what a policy sees in one world is, decision by decision.

    It needs two pictures whose stacked frames are all of the episode: until then it knows nothing.

    Args:
        policy: drives by a frozen encoder.
        known: what is familiar to that.
        action_names: of the worlds, by action.

    Raises:
        UserError: the policy has no frozen encoder, or its actions are continuous.
    """

    def __init__(self, policy: Policy, known: Familiarity, action_names: tuple[str, ...]):
        encoder, self.known = encoder_of(policy), known
        if not action_names:
            raise UserError(f"'{policy.name}' steers by continuous actions; what is familiar is known of meta-actions")
        self.meaning = [META_ACTIONS.index(name) for name in action_names]
        self.look, self.frames = through(encoder), encoder.in_channels // 3
        self._seen = 0  # pictures of the episode
        self._before: Tensor | None = None
        self._action = META_ACTIONS.index("IDLE")

    @torch.no_grad()
    def __call__(self, obs: Tensors, fresh: bool) -> float | None:
        """The share of familiar frames that score lower; None where nothing is known yet.

        Args:
            obs: that the policy is to act upon. "camera": uint8 (1, C, H, W).
            fresh: whether an episode begins.
        """
        self._seen = 1 if fresh else self._seen + 1
        before = self._before
        self._before, places = self.look(obs["camera"])
        if self._seen <= self.frames or before is None:
            return None
        device = self._before.device
        action, world = (torch.tensor([number], device=device) for number in (self._action, 0))
        steps = Transitions(before, self._before, places, action, world)
        return float(ood.calibrated(self.known, ood.scores(self.known, steps)[ood.COMBINED])[0])

    def acted(self, action: int) -> None:
        """Tell it which of the worlds' actions was taken."""
        self._action = self.meaning[action]


def encoder_of(policy: object) -> Encoder:
    """The frozen encoder that a policy drives by. Raises UserError if it has none."""
    if not isinstance(policy, TrainedPolicy) or policy.encoder is None:
        name = getattr(policy, "name", "nobody")
        raise UserError(f"'{name}' does not drive by a frozen encoder, to which something could be unfamiliar")
    return policy.encoder
