"""How much a change of the scene changes what a policy wants to do.

A policy explains itself (`agents.policies.Policy.explain`) by one of these, and its influence is

    probabilities p    total variation, sum |p - p'| / 2: the probability that moves to other actions, from 0 to 1
    mean, deviation    the largest change of a mean of a continuous action, in standard deviations
    action_values Q    the largest change of an advantage Q - mean Q

beside which are given: KL divergence from p to p' (of normals too) [nat], the largest change of an action value, the
change of the value, and whether another action is chosen. Where nothing that is observed has changed, they are exactly
zero: the answer is taken over, since the rounding of a network may depend on the place in a batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.errors import UserError
from evaluation.recorder import Policy

# How a policy explains itself: the entry that is looked for -> name, unit and greatest value of its influence.
MEASURES = {
    "probabilities": ("total variation", "", 1.0),
    "mean": ("change of the mean", "standard deviations", None),
    "action_values": ("change of the advantage", "of the return", None),
}
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Answers:
    """What a policy says to a moment as it was, row 0, and to C changes of it.

    Attributes:
        kind: one of `MEASURES`.
        explained: see `agents.policies.Policy.explain`. Shape: (1 + C, ...).
        actions: that it takes. Shape: (1 + C,), or (1 + C, K) float.
        seen: whether anything is changed in what the policy looks at. Shape: (C,) bool.
    """

    kind: str
    explained: dict[str, Tensor]
    actions: Tensor
    seen: np.ndarray

    @property
    def influence(self) -> np.ndarray:
        """Of each change, see above. Shape: (C,)."""
        return self.measures()[MEASURES[self.kind][0]]

    def measures(self) -> dict[str, np.ndarray]:
        """Name -> figure of each change. Shape: (C,)."""
        told = {name: tensor.double().cpu().numpy() for name, tensor in self.explained.items()}
        now, then = told[self.kind][0], told[self.kind][1:]
        name, found = MEASURES[self.kind][0], {}
        if self.kind == "probabilities":
            found[name] = np.abs(then - now).sum(1) / 2
            found["KL divergence"] = (now * (np.log(now.clip(SMALLEST)) - np.log(then.clip(SMALLEST)))).sum(1)
        elif self.kind == "mean":
            wide, wide_then = told["deviation"][0], told["deviation"][1:]
            found[name] = (np.abs(then - now) / wide).max(1)
            ratio = (wide / wide_then) ** 2
            found["KL divergence"] = ((ratio + ((then - now) / wide_then) ** 2 - 1 - np.log(ratio)) / 2).sum(1)
        else:
            moved = then - now
            found[name] = np.abs(moved - moved.mean(1, keepdims=True)).max(1)
            found["change of an action value"] = np.abs(moved).max(1)
        if "value" in told:
            found["change of the value"] = told["value"][1:] - told["value"][0]
        return found

    @property
    def changes_action(self) -> np.ndarray:
        """Whether another action is chosen; of continuous ones, whether a mean moves by a deviation. Shape: (C,)."""
        if self.kind == "mean":
            return self.influence >= 1.0
        return (self.actions[1:] != self.actions[0]).cpu().numpy()


def ask(policy: Policy, obs: dict[str, Tensor]) -> Answers:
    """Ask a policy in one batch. It must not remember anything of earlier observations.

    Args:
        policy: whose actions are to be explained.
        obs: row 0 the moment as it was, the others with a change. Shape: (1 + C, ...).

    Raises:
        UserError: the policy explains nothing of `MEASURES`.
    """
    if getattr(policy, "remembers", False):
        raise UserError(
            f"'{policy.name}' remembers what it saw, and a counterfactual changes one moment alone: it needs a policy "
            "that decides from that moment"
        )
    explained = policy.explain(obs) or {}
    kind = next((name for name in MEASURES if name in explained), None)
    if kind is None:
        raise UserError(
            f"'{policy.name}' does not say what its actions come from: counterfactuals need a policy that explains its "
            "probabilities, its means and deviations, or its action values, as a trained one does"
        )
    actions = policy.act(obs)
    # Worlds may give more than a policy looks at; a file says what it was trained on.
    looked_at = getattr(policy, "header", {}).get("observation", obs)
    seen = torch.stack([(obs[name][1:] != obs[name][:1]).flatten(1).any(1) for name in looked_at]).any(0)
    rows = torch.arange(len(actions), device=actions.device)
    rows[1:][~seen.to(rows.device)] = 0
    return Answers(kind, {k: v[rows] for k, v in explained.items()}, actions[rows], seen.cpu().numpy())


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None of fewer than three pairs, or where one is constant.

    Source: Spearman, American Journal of Psychology 15 (1904).
    """
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def partial_rank_correlation(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> float | None:
    """The rank correlation of x and y that is left when that of both with z is taken out; None of fewer than four, or
    where one of them is constant or ranked as z is."""
    xy, xz, yz = rank_correlation(x, y), rank_correlation(x, z), rank_correlation(y, z)
    if len(x) < 4 or xy is None or xz is None or yz is None:
        return None
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / left**0.5 if left > 1e-9 else None


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
