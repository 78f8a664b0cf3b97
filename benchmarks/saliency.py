"""How far methods of saliency can be believed: `python -m benchmarks.saliency --policy zoo/highway-ppo`.

Pictures of held-out episodes, as the policy drives them. For each method, with 95 % intervals over pictures:

alike       rank correlation of the shares with those of the same policy whose weights are shuffled within each layer
            (Adebayo et al. 2018), with signs and without. 0 is good.
deletion    what the decision loses when the tenth of the picture with the largest shares is blurred, less what it loses
            when that tenth is taken from the shares of another picture. Above 0 is good.
vehicles    magnitude of the shares on vehicles, over that of all pixels, both in the mean. 1 is chance.
"""

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from agents import policies
from agents.policies import TrainedPolicy
from agents.saliency import Saliency
from benchmarks.machine import sentence
from envs.errors import UserError, exit_on_user_error
from envs.sensors.surfaces import VEHICLE
from evaluation.backends import make_worlds
from evaluation.recorder import HELD_OUT_SEED
from evaluation.statistics import bootstrap_mean
from perception.saliency import METHODS, blurred

REMOVED = 0.1  # of the picture


@dataclass(frozen=True)
class Args:
    """Compare methods of saliency on a policy that sees pictures."""

    policy: str = "zoo/highway-ppo"
    """A run directory or zoo/NAME."""
    env: str = "highway"
    """Scenario."""
    worlds: int = 16
    """That are driven at once."""
    steps: tuple[int, ...] = (3, 7, 11, 15)
    """Policy steps whose pictures are taken."""
    seed: int = HELD_OUT_SEED
    """Of the worlds and of the shuffling."""
    threads: int = 1
    """Of torch."""


def pictures(policy: TrainedPolicy, args: Args) -> dict[str, Tensor]:
    """What the policy was shown, and "semantic": what stands there."""
    options = policy.env_options | {"channels": ("rgb", "semantic")}
    worlds = make_worlds("lanewise", args.env, args.worlds, "cpu", options)
    obs, _ = worlds.reset(seed=args.seed)
    taken = []
    for step in range(max(args.steps) + 1):
        if step in args.steps:
            taken.append({name: tensor.clone() for name, tensor in obs.items()})
        obs, *_ = worlds.step(policy.act(obs))
    worlds.close()
    return {name: torch.cat([part[name] for part in taken]) for name in taken[0]}


def shuffled(policy: TrainedPolicy, seed: int) -> TrainedPolicy:
    """The policy with the weights of each layer in a random order."""
    torn = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(seed)
    modules = [torn.network, *([] if torn.encoder is None else [torn.encoder])]
    for parameter in dict.fromkeys(parameter for module in modules for parameter in module.parameters()):
        order = torch.randperm(parameter.numel(), generator=generator)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return torn


def rank_correlations(a: Tensor, b: Tensor) -> np.ndarray:
    """Spearman's, picture by picture. Shape: (N,)."""
    ranks = [x.flatten(1).argsort(1).argsort(1).double() for x in (a, b)]
    centred = [nn.functional.normalize(rank - rank.mean(1, keepdim=True), dim=1) for rank in ranks]
    return (centred[0] * centred[1]).sum(1).numpy()


def lost(look: Saliency, obs: dict[str, Tensor], actions: Tensor, shares: Tensor) -> Tensor:
    """What decisions lose when the places with the largest shares are blurred. Shape: (N,)."""
    pixels = obs["camera"].float()
    least = shares.flatten(1).quantile(1 - REMOVED, dim=1)[:, None, None]
    changed = torch.where((shares > least).unsqueeze(1), blurred(pixels, look.decision.rows), pixels)
    with torch.no_grad():
        before, after = (look.decision(x, obs["speed"], actions) for x in (pixels, changed))
    return before - after


def judged(method: str, policy: TrainedPolicy, obs: dict[str, Tensor], seed: int) -> dict[str, np.ndarray]:
    """The figures of a method, one a picture."""
    actions = policy.act(obs)
    look = Saliency(policy, method)
    look({name: tensor[:1] for name, tensor in obs.items()})  # the first time, things are loaded
    begin = time.thread_time()
    shares = look.shares(obs, actions)
    spent = time.thread_time() - begin
    vehicles = obs["semantic"] == VEHICLE
    magnitude = shares.abs()
    seen = vehicles.any(dim=(1, 2)) & (magnitude.sum((1, 2)) > 0)
    there = (magnitude * vehicles).sum((1, 2)) / vehicles.sum((1, 2))
    torn = Saliency(shuffled(policy, seed), method).shares(obs, actions)
    return {
        "alike": rank_correlations(shares, torn),
        "alike without signs": rank_correlations(magnitude, torn.abs()),
        "deletion": (lost(look, obs, actions, shares) - lost(look, obs, actions, shares.roll(1, 0))).numpy(),
        "vehicles": (there / magnitude.mean((1, 2)))[seen].numpy(),
        "CPU ms": np.array([1e3 * spent / len(actions)]),
    }


def main() -> None:
    """The command."""
    args = tyro.cli(Args, description=__doc__)
    torch.set_num_threads(args.threads)
    policy = policies.load(args.policy, args.env)
    if not isinstance(policy, TrainedPolicy):
        raise UserError(f"'{args.policy}' is no trained policy")
    obs = pictures(policy, args)
    count = len(obs["camera"])
    table = Table(title=f"{args.policy}, {args.env}, {count} pictures, {sentence()}", title_justify="left")
    table.add_column("method")
    for method in METHODS:
        figures = judged(method, policy, obs, args.seed)
        if not table.rows:
            for name in figures:
                table.add_column(name, justify="right")
        cells = []
        for values in figures.values():
            low, high = bootstrap_mean(values) if len(values) > 1 else (None, None)
            cells.append(f"{values.mean():.2f}" if low is None else f"{values.mean():.2f} ({low:.2f} to {high:.2f})")
        table.add_row(method, *cells)
    Console().print(table)


if __name__ == "__main__":
    exit_on_user_error(main)
