"""Saliency in recordings: what in the last pictures of an episode spoke for and against the policy's decisions."""

from dataclasses import replace

import numpy as np

from agents.policies import Policy
from agents.saliency import Saliency, sees_pictures
from agents.shield import Shield
from evaluation.replay import FULL, Replay
from evaluation.traces import SECONDS


def looking(policy: Policy) -> Saliency | None:
    """The saliency of a policy, of one behind a shield too; None where it does not see the pictures that are recorded:
    it sees none, or they are spoilt before it does."""
    inner = policy.policy if isinstance(policy, Shield) else policy
    return Saliency(inner) if sees_pictures(inner) else None


def explained(replay: Replay, look: Saliency | None) -> Replay:
    """A recording with the shares of the decisions of its last `traces.SECONDS`.

    They are worked out from the recorded pictures and speeds, for the actions that the policy takes on them; a shield
    may have replaced those.

    Args:
        replay: as it was recorded.
        look: the saliency of who drove; None leaves the recording as it is.
    """
    if look is None or replay.camera is None:
        return replay
    steps = len(replay.actions)
    first = max(0, (len(replay) - 1 - round(SECONDS / replay.dt)) // replay.frames_per_step)
    obs = replay.observed(look.policy.env_options.get("frames", 2))
    shares = look.shares({name: tensor[first:steps].to(look.device) for name, tensor in obs.items()}).cpu().numpy()
    kept = np.rint(FULL * shares).astype(np.int8)
    return replace(replay, shares=kept, about=replay.about | {"saliency": look.method})
