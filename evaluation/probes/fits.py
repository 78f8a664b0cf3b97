"""Probes: small read-outs of frozen features, and how labels are written in their columns."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.probes.labels import LABELS
from evaluation.probes.scores import Predictions
from perception.probes import Label, held_out, ridge

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the logistic regression's penalty
ITERATIONS = 60  # of its optimiser
HIDDEN, STEPS, BATCH, RATE, DECAY = 256, 600, 256, 1e-3, 1e-2  # of the multi-layer perceptron
CHECKED_EVERY = 50  # steps
NEIGHBOURS, TEMPERATURE = 20, 0.07

Labels = dict[str, Label]
Fit = Callable[[Tensor], Predictions]


def learnable(labels: Labels) -> Labels:
    """The labels that have something to be learnt: at least two different values."""
    return {
        name: label
        for name, label in labels.items()
        if label.mask.any() and (label.value[label.mask] != label.value[label.mask][0]).any()
    }


class Columns:
    """The columns of a read-out: one a presence, distance or amount, several a class.

    Distances are logarithms, so that equal relative errors weigh the same; they and amounts are standardised.

    Args:
        labels: to learn from.
    """

    def __init__(self, labels: Labels):
        self.of: dict[str, slice] = {}
        self.scale: dict[str, tuple[float, float]] = {}
        width = 0
        for name, label in labels.items():
            size = len(LABELS[name].classes) or 1
            self.of[name] = slice(width, width + size)
            width += size
            if label.kind in ("distance", "amount"):
                value = written(label)[label.mask]
                self.scale[name] = (float(value.mean()), max(float(value.std(unbiased=False)), 1e-6))
        self.width = width

    def loss(self, out: Tensor, labels: Labels) -> Tensor:
        """Mean over the labels that are defined anywhere: cross-entropy, or the squared error of what is standardised.

        Args:
            out: Shape: (n, width).
            labels: of the same n.
        """
        losses = []
        for name, columns in self.of.items():
            label, mask = labels[name], labels[name].mask
            if not mask.any():
                continue
            column = out[mask, columns]
            if label.kind == "presence":
                losses.append(F.binary_cross_entropy_with_logits(column[:, 0], label.value[mask]))
            elif label.kind == "class":
                losses.append(F.cross_entropy(column, label.value[mask].long()))
            else:
                mean, deviation = self.scale[name]
                losses.append(F.mse_loss(column[:, 0], (written(label)[mask] - mean) / deviation))
        return torch.stack(losses).mean()

    def read(self, out: Tensor) -> Predictions:
        """What the columns say. Shape: (n, width)."""
        found = {}
        for name, columns in self.of.items():
            column = out[:, columns]
            if LABELS[name].kind == "class":
                found[name] = column
                continue
            mean, deviation = self.scale.get(name, (0.0, 1.0))
            found[name] = unwritten(name, column[:, 0] * deviation + mean)
        return found


def written(label: Label) -> Tensor:
    """The number that is predicted for a label: of a distance its logarithm, from 1 m on."""
    return label.value.clamp(min=1).log() if label.kind == "distance" else label.value


def unwritten(name: str, number: Tensor) -> Tensor:
    """Undo `written`."""
    return number.exp() if LABELS[name].kind == "distance" else number


def linear(features: Tensor, labels: Labels, worlds: Tensor, seed: int = 0) -> Fit:
    """Ridge regressions, of classes a multinomial logistic one. Strengths are chosen on a fifth of the worlds.

    Args:
        features: Shape: (n, d).
        labels: of the same n, all `learnable`.
        worlds: that each picture comes from. Shape: (n,) int64.
        seed: nothing here is random.

    Returns:
        a function from features (m, d) to predictions.
    """
    fits = {}
    for name, label in labels.items():
        rows = label.mask
        fit = logistic if label.kind == "class" else ridge
        target = label.value[rows].long() if label.kind == "class" else written(label)[rows, None]
        fits[name] = fit(features[rows], target, worlds[rows])

    def predict(wanted: Tensor) -> Predictions:
        return {
            name: fit(wanted) if LABELS[name].kind == "class" else unwritten(name, fit(wanted)[:, 0])
            for name, fit in fits.items()
        }

    return predict


def logistic(features: Tensor, classes: Tensor, worlds: Tensor) -> Callable[[Tensor], Tensor]:
    """Multinomial logistic regression with a quadratic penalty, its strength chosen on a fifth of the worlds.

    Args:
        features: Shape: (n, d).
        classes: from 0 on. Shape: (n,) int64.
        worlds: Shape: (n,) int64.

    Returns:
        a function from features (m, d) to scores (m, k), k being the highest class and one.
    """
    scale = _standard(features)
    x, held = scale(features), held_out(worlds)

    def solve(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        weights = torch.zeros(x.shape[1], int(classes.max()) + 1, device=x.device, requires_grad=True)
        bias = torch.zeros(weights.shape[1], device=x.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(x @ weights + bias, y) + strength / 2 * weights.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        return weights.detach(), bias.detach()

    best = STRENGTHS[-1]
    if held.any() and not held.all():
        losses = []
        for strength in STRENGTHS:
            weights, bias = solve(x[~held], classes[~held], strength)
            losses.append(F.cross_entropy(x[held] @ weights + bias, classes[held]))
        best = STRENGTHS[int(torch.stack(losses).nan_to_num(torch.inf).argmin())]
    weights, bias = solve(x, classes, best)
    return lambda wanted: scale(wanted) @ weights + bias


def mlp(features: Tensor, labels: Labels, worlds: Tensor, seed: int = 0) -> Fit:
    """A perceptron with one hidden layer that all labels share, stopped where it errs least on a fifth of the worlds.

    See `linear` for the arguments.
    """
    columns, scale, held = Columns(labels), _standard(features), held_out(worlds)
    x = scale(features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, columns.width)).to(x.device)
    order = torch.Generator().manual_seed(seed)
    rows = (~held).nonzero()[:, 0]
    kept = {name: Label(label.value[held], label.mask[held], label.kind) for name, label in labels.items()}
    checked = any(label.mask.any() for label in kept.values())
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    least, best = float("inf"), net.state_dict()
    for step in range(STEPS):
        drawn = rows[torch.randint(len(rows), (min(BATCH, len(rows)),), generator=order).to(rows.device)]
        part = {name: Label(label.value[drawn], label.mask[drawn], label.kind) for name, label in labels.items()}
        if not any(label.mask.any() for label in part.values()):
            continue
        with torch.enable_grad():
            loss = columns.loss(net(x[drawn]), part)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        if checked and (step + 1) % CHECKED_EVERY == 0:
            with torch.no_grad():
                error = float(columns.loss(net(x[held]), kept))
            if error < least:
                least, best = error, {name: value.clone() for name, value in net.state_dict().items()}
    if checked:
        net.load_state_dict(best)
    return lambda wanted: columns.read(net(scale(wanted)))


def knn(features: Tensor, labels: Labels, worlds: Tensor, seed: int = 0) -> Fit:
    """The nearest neighbours by cosine of standardised features, the nearer the heavier (exp(cosine / 0.07)).

    See `linear` for the arguments.
    """
    scale = _standard(features)
    known = F.normalize(scale(features), dim=1)

    def predict(wanted: Tensor) -> Predictions:
        parts = [_neighbours(part, known, labels) for part in F.normalize(scale(wanted), dim=1).split(1024)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return predict


def _neighbours(wanted: Tensor, known: Tensor, labels: Labels) -> Predictions:
    cosine = wanted @ known.T
    found = {}
    for name, label in labels.items():
        near = cosine[:, label.mask]
        near, rows = near.topk(min(NEIGHBOURS, near.shape[1]), dim=1)
        weight = (near / TEMPERATURE).softmax(1)
        value = written(label)[label.mask][rows]
        if label.kind == "class":
            kinds = torch.arange(len(LABELS[name].classes), device=value.device)
            found[name] = (weight[..., None] * (value[..., None] == kinds)).sum(1)
        else:
            found[name] = unwritten(name, (weight * value).sum(1))
    return found


def constant(features: Tensor, labels: Labels, worlds: Tensor, seed: int = 0) -> Fit:
    """The best guess without a look at the picture: the median, the most frequent class. See `linear`."""
    guesses = {}
    for name, label in labels.items():
        value = label.value[label.mask]
        if label.kind == "class":
            guesses[name] = torch.bincount(value.long(), minlength=len(LABELS[name].classes)).float()
        else:
            guesses[name] = value.median()[None]

    def predict(wanted: Tensor) -> Predictions:
        return {
            name: guess.expand(len(wanted), -1) if LABELS[name].kind == "class" else guess.expand(len(wanted))
            for name, guess in guesses.items()
        }

    return predict


PROBES = {"linear": linear, "mlp": mlp, "knn": knn}


def _standard(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Subtract the mean and divide by the deviation of these features, column by column; one that is always the same
    is not divided.
    """
    mean, deviation = features.mean(0), features.std(0, unbiased=False)
    deviation = torch.where(deviation > 1e-6, deviation, 1.0)
    return lambda rows: (rows - mean) / deviation
