"""Figures of what was read off a picture, against the truth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.probes.labels import LABELS
from perception.probes import BINS, Label, auroc, relative_error_by_range

# Of what is predicted: scores of presences, metres, amounts [n], or scores of classes [n, k].
Predictions = dict[str, Tensor]
RARE = ("ttc_below_3s", "brake_needed")  # presences that also have an average precision
RANGES = tuple(f"{low:g}-{high:g}" for low, high in zip(BINS[:-1], BINS[1:], strict=True))


@dataclass(frozen=True)
class Figure:
    """A figure of a label.

    Attributes:
        label: which one.
        measure: "AUROC", "AP", "macro-F1", "accuracy", "IoU", "mIoU", "MAE" or a range of distances.
        unit: of the figure.
        higher: whether more of it is better; such figures are at most 1.
        bar: what a good encoder reaches, None where nothing is asked.
    """

    label: str
    measure: str
    unit: str
    higher: bool
    bar: float | None = None

    @property
    def name(self) -> str:
        """Its name in tables and files."""
        return f"{self.label} {self.measure}"

    def error(self, value: float) -> float:
        """The figure as an error: 0 is perfect."""
        return 1.0 - value if self.higher else value


BARS = {
    "lead_distance 0-10 m": 0.10,
    "lead_distance 10-20 m": 0.10,
    "lead_distance 20-40 m": 0.15,
    "lane_offset MAE": 0.10,
    "heading_error MAE": 1.0,
    "signal macro-F1": 0.97,
    "ttc_below_3s AUROC": 0.95,
}


def _figures() -> list[Figure]:
    rows = []
    for name, label in LABELS.items():
        if label.kind == "presence":
            rows += [(name, measure, "", True) for measure in ("AUROC", "AP")[: 1 + (name in RARE)]]
        elif label.kind == "distance":
            rows += [(name, f"{part} m", "", False) for part in RANGES]
        elif label.kind == "amount":
            rows.append((name, "MAE", label.unit, False))
        elif label.kind == "class":
            rows.append((name, "macro-F1" if name == "signal" else "accuracy", "", True))
        else:
            rows.append((name, "IoU" if name == "occupancy" else "mIoU", "", True))
    return [Figure(*row, bar=BARS.get(f"{row[0]} {row[1]}")) for row in rows]


FIGURES: dict[str, Figure] = {figure.name: figure for figure in _figures()}


def figures(predicted: Predictions, labels: dict[str, Label]) -> dict[str, float]:
    """Every figure that is defined.

    Args:
        predicted: of n pictures.
        labels: of the same.
    """
    found = {}
    for name, scores in predicted.items():
        label = labels[name]
        scores, true = scores[label.mask], label.value[label.mask]
        if len(true) == 0:
            continue
        if label.kind == "presence":
            found[f"{name} AUROC"] = auroc(scores, true)
            if name in RARE and true.any():
                found[f"{name} AP"] = average_precision(scores, true)
        elif label.kind == "distance":
            found |= {f"{name} {part} m": error for part, error in relative_error_by_range(scores, true).items()}
        elif label.kind == "amount":
            found[f"{name} MAE"] = float((scores - true).abs().mean())
        elif name == "signal":
            found[f"{name} macro-F1"] = macro_f1(scores.argmax(1), true.long())
        else:
            found[f"{name} accuracy"] = float((scores.argmax(1) == true).float().mean())
    return {name: value for name, value in found.items() if value == value}


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Sum over thresholds of the gain in recall times the precision there; equal scores are one threshold. With the
    same score for all it is the share of positives.

    Args:
        scores: Shape: (n,).
        positive: 0 or 1, at least one of them 1. Shape: (n,).
    """
    values, rank = torch.unique(scores, return_inverse=True)
    positive = positive.double()
    hits = torch.zeros(len(values), dtype=torch.float64, device=scores.device).scatter_add(0, rank, positive)
    found, taken = hits.flip(0).cumsum(0), torch.bincount(rank, minlength=len(values)).flip(0).cumsum(0)
    return float((hits.flip(0) * found / taken).sum() / positive.sum())


def macro_f1(predicted: Tensor, true: Tensor) -> float:
    """Mean over the classes that occur of 2 TP / (2 TP + FP + FN). Shape: (n,) int64 each."""
    scores = []
    for kind in true.unique():
        hits = ((predicted == kind) & (true == kind)).sum()
        scores.append(2 * hits / ((predicted == kind).sum() + (true == kind).sum()))
    return float(torch.stack(scores).mean())


def iou(predicted: Tensor, true: Tensor) -> float:
    """Intersection over union of two masks of one shape; nan where both are empty."""
    union = (predicted | true).sum()
    return float((predicted & true).sum() / union) if union else float("nan")


def mean_iou(predicted: Tensor, true: Tensor) -> float:
    """Mean of `iou` over the classes that occur in the truth. Any one shape, integers."""
    return sum(values := [iou(predicted == kind, true == kind) for kind in true.unique()]) / len(values)
