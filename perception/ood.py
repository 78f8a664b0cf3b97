"""How unfamiliar what an encoder sees is, from what it made of familiar drives.

Two questions, each with two scores, all higher where less is familiar:

- Are there such pictures on familiar drives? "residual": the share of what is at the places of the picture that
  lies outside the linear subspace in which familiar pictures mostly lie (as in Wang et al. 2022, "ViM: Out-Of-
  Distribution with Virtual-logit Matching"; here of an encoder's maps). "mahalanobis": distance of the features to one
  Gaussian around the familiar ones (Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution
  Samples and Adversarial Attacks").
- Do features go on from one step to the next, given the action, as they do there? Small predictors learn it, each on
  worlds drawn anew. "disagreement": how far their predictions are apart (Pathak et al. 2019, "Self-Supervised
  Exploration via Disagreement"; Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation
  using Deep Ensembles"). "error": how far their mean is from what came.

"combined" is the greatest of the logarithms of the four, each with mean 0 and deviation 1 on familiar drives: what is
unfamiliar in one respect is unfamiliar. No unfamiliar picture has a part in any of this. What is shown of a score is
calibrated: the share of familiar frames that score lower.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.probes import held_out
from perception.transitions import Transitions

PARTS = ("residual", "mahalanobis", "disagreement", "error")
COMBINED = "combined"
SCORES = (*PARTS, COMBINED)
SHRINKAGES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)  # share of the mean variance in the covariance
RANK, PART = 512, 3  # dimensions of the familiar subspace: at most so many, and one of so many
MEMBERS, HIDDEN = 5, 256
STEPS, BATCH, RATE, DECAY = 1000, 256, 1e-3, 1e-4
QUANTILES = 1001
SMALLEST = 1e-12  # of what a logarithm is taken of
ROWS = 2048  # scored at once


@dataclass(frozen=True)
class Familiarity:
    """What is kept of familiar drives, float32. d features, p at places, A actions, K predictors of h hidden units.

    mean, scale: [d], of features. whitening: [d, d], from scaled features to independent ones of variance 1.
    place_mean, place_scale: [p], of what is at places. subspace: [r, p], an orthonormal basis of the familiar subspace.
    first, first_bias, second, second_bias: [K, d + A, h], [K, 1, h], [K, h, d], [K, 1, d], of the predictors of scaled
    features. missed: [d], mean square of what their mean misses on familiar drives.
    log_mean, log_deviation: [4], of the logarithms of the scores in PARTS. quantiles: [5, QUANTILES], of those in
    SCORES.
    """

    mean: Tensor
    scale: Tensor
    whitening: Tensor
    place_mean: Tensor
    place_scale: Tensor
    subspace: Tensor
    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor
    missed: Tensor
    log_mean: Tensor
    log_deviation: Tensor
    quantiles: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> "Familiarity":
        """A copy on a device."""
        return Familiarity(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


@torch.no_grad()
def fit(
    familiar: Transitions,
    others: Transitions,
    num_actions: int,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Familiarity:
    """Learn what is familiar.

    Args:
        familiar: what the parts are fitted to.
        others: of other familiar worlds, what they are calibrated on.
        num_actions: A.
        seed: of the predictors.
        advance: called after each of STEPS steps of the predictors' training.
    """
    generator = torch.Generator().manual_seed(seed)
    mean, scale = _moments(familiar.after)
    scaled = replace(familiar, before=(familiar.before - mean) / scale, after=(familiar.after - mean) / scale)
    network = predictors(scaled, num_actions, generator, advance)
    blank = torch.zeros(0, device=mean.device)
    found = Familiarity(
        mean,
        scale,
        whitening(scaled.after, familiar.worlds),
        *subspace(familiar.places),
        *network,
        missed=torch.ones_like(mean),
        log_mean=blank,
        log_deviation=blank,
        quantiles=blank,
    )
    missed = torch.cat([_predicted(found, part)[1].square() for part in _parts(others)])
    found = replace(found, missed=missed.mean(0).clamp(min=1e-6))
    logs = torch.stack(list(_logs(found, others).values()))
    found = replace(found, log_mean=logs.mean(1), log_deviation=logs.std(1).clamp(min=1e-6))
    share = torch.linspace(0, 1, QUANTILES, device=logs.device)
    quantiles = torch.stack([score.quantile(share) for score in scores(found, others).values()])
    return replace(found, quantiles=quantiles)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale of each column; one that never changes has no scale of its own."""
    scale = rows.std(0)
    return rows.mean(0), scale.clamp(min=1e-2 * float(scale.mean()))


def whitening(features: Tensor, worlds: Tensor) -> Tensor:
    """A matrix W so that |(x - mean) W| is the Mahalanobis distance of x. Shape: (d, d).

    The covariance S is shrunk to (1 - a) S + a tr(S)/d I. Frames of a drive are much alike, so that a is not chosen by
    their number (as Ledoit and Wolf 2004 do) but as the one of SHRINKAGES under which a held-out fifth of the worlds is
    the likeliest.

    Args:
        features: of mean 0. Shape: (n, d).
        worlds: where each comes from. Shape: (n,).
    """

    def spectrum(rows: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(rows.T.double() @ rows.double() / len(rows))
        return values.clamp(min=0), vectors

    held = held_out(worlds)
    best = SHRINKAGES[-1]
    if held.any():
        values, vectors = spectrum(features[~held])
        energy = (features[held].double() @ vectors).square().mean(0)
        shrunk = [(1 - a) * values + a * values.mean() for a in SHRINKAGES]
        surprise = [float((energy / each + each.log()).sum()) for each in shrunk]
        best = SHRINKAGES[surprise.index(min(surprise))]
    values, vectors = spectrum(features)
    return (vectors / ((1 - best) * values + best * values.mean()).sqrt()).float()


def subspace(places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where familiar pictures mostly lie: mean, scale, and the first principal directions of what is scaled by them.

    Args:
        places: see `Transitions`. Shape: (n, p).

    Returns:
        `place_mean`, `place_scale` and `subspace` of `Familiarity`.
    """
    mean, scale = _moments(places.float())
    total = torch.zeros(len(mean), len(mean), device=places.device)
    for part in places.split(ROWS):
        scaled = (part.float() - mean) / scale
        total += scaled.T @ scaled
    rank = max(1, min(RANK, len(mean) // PART))
    return mean, scale, torch.linalg.eigh(total).eigenvectors[:, -rank:].T.contiguous()


def predictors(
    scaled: Transitions, num_actions: int, generator: torch.Generator, advance: Callable[[], None]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Train the predictors: features and action -> the change of the features, by one hidden layer.

    Each has weights of its own and learns from worlds drawn with replacement.

    Args:
        scaled: to learn from.
        num_actions: A.
        generator: on the CPU.
        advance: called after each step.

    Returns:
        `first`, `first_bias`, `second` and `second_bias` of `Familiarity`.
    """
    device, width = scaled.before.device, scaled.before.shape[1]

    def drawn(rows: int, columns: int) -> Tensor:
        return (torch.randn(MEMBERS, rows, columns, generator=generator) / rows**0.5).to(device)

    weights = [
        2**0.5 * drawn(width + num_actions, HIDDEN),
        torch.zeros(MEMBERS, 1, HIDDEN, device=device),
        0.1 * drawn(HIDDEN, width),
        torch.zeros(MEMBERS, 1, width, device=device),
    ]
    weights = [tensor.requires_grad_() for tensor in weights]
    found, place = scaled.worlds.cpu().unique(return_inverse=True)
    pools = []
    for _ in range(MEMBERS):
        times = torch.randint(len(found), (len(found),), generator=generator).bincount(minlength=len(found))
        pools.append(torch.arange(len(scaled)).repeat_interleave(times[place]))
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = [pool[torch.randint(len(pool), (BATCH,), generator=generator)] for pool in pools]
        rows = torch.stack(rows).to(device)
        with torch.enable_grad():
            said = _changes(*weights, scaled.before[rows], scaled.actions[rows], num_actions)
            loss = (scaled.before[rows] + said - scaled.after[rows]).square().mean((1, 2)).sum()
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
        advance()
    return tuple(tensor.detach() for tensor in weights)


def _changes(
    first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor, before: Tensor, actions: Tensor, count: int
) -> Tensor:
    """What each predictor says of its own rows. Shape: (K, n, d), of `before` (K, n, d) and `actions` (K, n)."""
    told = torch.cat([before, F.one_hot(actions, count).to(before.dtype)], 2)
    return torch.baddbmm(second_bias, torch.baddbmm(first_bias, told, first).relu(), second)


def _predicted(known: Familiarity, steps: Transitions) -> tuple[Tensor, Tensor]:
    """Variance over the predictors, and what came less their mean, of scaled features. Shape: (n, d) each."""
    before, after = ((end - known.mean) / known.scale for end in (steps.before, steps.after))
    members, count = len(known.first), known.first.shape[1] - len(known.mean)
    said = _changes(
        known.first,
        known.first_bias,
        known.second,
        known.second_bias,
        before.expand(members, -1, -1),
        steps.actions.expand(members, -1),
        count,
    )
    return said.var(0), after - before - said.mean(0)


def _parts(steps: Transitions) -> list[Transitions]:
    rows = torch.arange(len(steps), device=steps.actions.device)
    return [steps.take(part) for part in rows.split(ROWS)]


def mahalanobis(known: Familiarity, features: Tensor) -> Tensor:
    """Distance to the Gaussian. Shape: (n, d) -> (n,)."""
    return (((features - known.mean) / known.scale) @ known.whitening).norm(dim=1)


def residual(known: Familiarity, places: Tensor) -> Tensor:
    """Share of the square of what is at places that is outside the subspace. Shape: (n, p) -> (n,), from 0 to 1."""
    scaled = (places.float() - known.place_mean) / known.place_scale
    return 1 - (scaled @ known.subspace.T).square().sum(1) / scaled.square().sum(1).clamp(min=SMALLEST)


def _logs(known: Familiarity, steps: Transitions) -> dict[str, Tensor]:
    """Logarithms of the scores in PARTS. Shape: (n,) each."""
    rows = []
    for part in _parts(steps):
        variance, missed = _predicted(known, part)
        each = (
            residual(known, part.places),
            mahalanobis(known, part.after),
            (variance / known.missed).mean(1),
            (missed.square() / known.missed).mean(1),
        )
        rows.append(torch.stack(each))
    return dict(zip(PARTS, torch.cat(rows, 1).clamp(min=SMALLEST).log(), strict=True))


@torch.no_grad()
def scores(known: Familiarity, steps: Transitions) -> dict[str, Tensor]:
    """Every score of n transitions, higher where less is familiar; the parts as logarithms.

    Args:
        known: on the transitions' device.
        steps: n of them; at least one.

    Returns:
        {name in SCORES: float32 (n,)}.
    """
    logs = _logs(known, steps)
    standard = (torch.stack(list(logs.values())) - known.log_mean[:, None]) / known.log_deviation[:, None]
    return logs | {COMBINED: standard.amax(0)}


def calibrated(known: Familiarity, score: Tensor, name: str = COMBINED) -> Tensor:
    """The share of familiar frames that score lower, from 0 to 1. Shape: as `score`.

    Args:
        known: on the score's device.
        score: as `scores` gives it.
        name: which one.
    """
    table = known.quantiles[SCORES.index(name)].contiguous()
    above = torch.searchsorted(table, score.contiguous()).clamp(1, QUANTILES - 1)
    low, high = table[above - 1], table[above]
    within = ((score - low) / (high - low).clamp(min=SMALLEST)).clamp(0, 1)
    return (above - 1 + within) / (QUANTILES - 1)
