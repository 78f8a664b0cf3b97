"""Pictures changed by a few levels of 255 against a policy: the worst that a bounded change of every pixel does.

Let a be the action that the policy takes on the picture x. What is raised, within |x' - x| <= e and 0 <= x' <= 255, is

    -log p(a | x')                      of a policy with probabilities, or with means and deviations
    max over b != a of Q(x', b) - Q(x', a)      of one with action values

fgsm: one step, x' = x + e sign(gradient at x). Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572; against the
    policies of reinforcement learning Huang et al. 2017, https://arxiv.org/abs/1702.02284.
pgd: 10 steps of 2.5 e / 10, each projected back into the bound, from a random place in it. Madry et al. 2018,
    https://arxiv.org/abs/1706.06083.

At the mean of a normal distribution the gradient of its logarithm is zero: against continuous actions fgsm begins at a
random place too. Pictures are whole levels again at the end, and the bound holds for these.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from agents.networks import QNetwork
from agents.policies import TrainedPolicy
from envs.errors import UserError

BOUND = (1, 2, 4, 8, 16)  # e of strengths 1 to 5, of 255; doubled from the least that a byte holds
PGD_STEPS, PGD_REACH = 10, 2.5  # steps, and how far they reach together, in bounds
ATTACKS = ("fgsm", "pgd")

Harm = Callable[[Tensor], Tensor]


def check(policy) -> None:
    """Raise UserError where a policy gives no gradients."""
    if not isinstance(policy, TrainedPolicy) or policy.remembers:
        raise UserError(
            f"'{policy.name}' gives no gradients with respect to its pictures alone, which {' and '.join(ATTACKS)} "
            "need: they attack policies without a memory that were trained here; compare with --corruption signs:3, "
            "which needs none"
        )


def attack(policy: TrainedPolicy, obs: dict[str, Tensor], kind: str, strength: int, generator: torch.Generator):
    """The pictures after the attack. Shape: as obs["camera"], (N, C, H, W) uint8.

    Args:
        policy: whom to harm.
        obs: of N worlds.
        kind: one of `ATTACKS`.
        strength: 1 to 5, see `BOUND`.
        generator: of random starts, on the pictures' device.
    """
    bound = float(BOUND[strength - 1])
    clean = obs["camera"].float()
    low, high = (clean - bound).clamp(min=0.0), (clean + bound).clamp(max=255.0)
    steps, stride = (PGD_STEPS, PGD_REACH * bound / PGD_STEPS) if kind == "pgd" else (1, bound)
    harm, flat = _harm(policy, obs)
    images = clean
    if kind == "pgd" or flat:
        images = images + bound * (2.0 * torch.rand(clean.shape, generator=generator, device=clean.device) - 1.0)
    with torch.enable_grad():
        for _ in range(steps):
            images = torch.clamp(images, low, high).detach().requires_grad_()
            (slope,) = torch.autograd.grad(harm(images).sum(), images)
            images = images.detach() + stride * slope.sign()
    return torch.clamp(images, low, high).round().to(torch.uint8)


def _harm(policy: TrainedPolicy, obs: dict[str, Tensor]) -> tuple[Harm, bool]:
    """What an attack raises, of pictures of floats (N,), and whether its gradient at the picture itself is zero."""
    network = policy.network
    taken = policy.act(obs)

    def seen(images: Tensor) -> dict[str, Tensor]:
        if policy.encoder is None:
            return obs | {"camera": images}
        # Without the half precision of stored features, in which small gradients would vanish.
        return {"features": torch.cat([policy.encoder(images), *(obs[name] for name in policy.told)], dim=1)}

    def lost_margin(images: Tensor) -> Tensor:
        values, chosen = network(seen(images)), taken.unsqueeze(1)
        others = values.scatter(1, chosen, -torch.inf).amax(1)
        return others - values.gather(1, chosen).squeeze(1)

    def surprise(images: Tensor) -> Tensor:
        return -network.evaluate_actions(seen(images), taken)[1]

    flat = not isinstance(network, QNetwork) and taken.is_floating_point()
    return lost_margin if isinstance(network, QNetwork) else surprise, flat
