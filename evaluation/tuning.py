"""Learning a label from a few pictures: a head on an encoder, of which nothing, low-rank adapters or all weights learn.

The head is learnt first, on the encoder as it is; where more is to learn, it goes on from there together with the head.
So a random head does not spoil good features (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution", https://arxiv.org/abs/2202.10054), and every way begins where "head" ends. A fifth of
the labelled worlds is not learnt from: the weights that err least there are the ones that are kept.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.probes import dense, fits
from evaluation.probes.labels import COLOURS
from evaluation.probes.recording import Recording
from evaluation.probes.scores import macro_f1, mean_iou
from perception import lora
from perception.encoders import Encoder
from perception.probes import held_out

WAYS = ("head", "lora", "all")
STEPS, BATCH, RATE = 300, 64, 1e-3  # of what learns with the encoder
CHECKED_EVERY, PATIENCE = 25, 5  # steps between two looks at the held-out worlds, and looks without gain until the end
CHUNK = 256  # pictures whose scores are computed at once


@dataclass(frozen=True)
class Labelled:
    """n pictures with one label each, all of them defined.

    Attributes:
        images: uint8 [n, C, H, W].
        target: int64, classes. Shape: (n,), or (n, h, w) of pixels.
        worlds: int64 [n], that each picture comes from.
    """

    images: Tensor
    target: Tensor
    worlds: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> "Labelled":
        """Some of the pictures. Shape: (k,) int64."""
        return Labelled(self.images[rows], self.target[rows], self.worlds[rows])


class Head(nn.Module):
    """What reads a label from what an encoder gives. Subclasses define `given`, `seen` and `forward`."""

    @staticmethod
    def given(encoder: Encoder, images: Tensor) -> Tensor:
        """What of an encoder the head reads."""
        raise NotImplementedError

    @staticmethod
    def seen(recording: Recording) -> Labelled:
        """The pictures of a recording that have the label."""
        raise NotImplementedError


class SignalHead(Head):
    """The colour of the signal ahead, from features: one hidden layer, as the probe `mlp` has.

    Args:
        features: of pictures, whose mean and deviation become 0 and 1. Shape: (n, d).
        target: not looked at.
    """

    FIGURE, RATE, STEPS, BATCH = "signal macro-F1", fits.RATE, fits.STEPS, fits.BATCH
    score = staticmethod(macro_f1)

    def __init__(self, features: Tensor, target: Tensor):
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("deviation", features.std(0, unbiased=False).clamp(min=1e-6))
        width = features.shape[1]
        self.layers = nn.Sequential(nn.Linear(width, fits.HIDDEN), nn.ReLU(), nn.Linear(fits.HIDDEN, len(COLOURS)))

    @staticmethod
    def given(encoder: Encoder, images: Tensor) -> Tensor:
        """Features. Shape: (n, d)."""
        return encoder(images)

    @staticmethod
    def seen(recording: Recording) -> Labelled:
        """See `Head.seen`."""
        label = recording.labels["signal"]
        rows = label.mask.nonzero()[:, 0]
        return Labelled(recording.images[rows], label.value[rows].long(), recording.worlds[rows])

    def forward(self, given: Tensor) -> Tensor:
        """Features (n, d) -> scores of the colours (n, 3)."""
        return self.layers((given - self.mean) / self.deviation)


class SegmentationHead(Head):
    """What the pixels show, from maps: every place decodes its own patch, as in `evaluation.probes.dense`.

    Args:
        maps: of pictures, whose deviation becomes 1. Shape: (n, C, rows, columns).
        target: of the size to decode. Shape: (n, h, w).
    """

    FIGURE, RATE, STEPS, BATCH = "segmentation mIoU", dense.RATE, dense.STEPS, dense.BATCH
    score = staticmethod(mean_iou)

    def __init__(self, maps: Tensor, target: Tensor):
        super().__init__()
        self.register_buffer("scale", maps.std() + 1e-6)
        self.decoder = dense.Patches(tuple(maps.shape[1:]), tuple(target.shape[1:]))

    @staticmethod
    def given(encoder: Encoder, images: Tensor) -> Tensor:
        """Maps. Shape: (n, C, rows, columns)."""
        return dense.aligned(encoder, encoder.maps(images))

    @staticmethod
    def seen(recording: Recording) -> Labelled:
        """See `Head.seen`."""
        rows = recording.dense
        return Labelled(recording.images[rows], recording.segmentation.long(), recording.worlds[rows])

    def forward(self, given: Tensor) -> Tensor:
        """Maps -> scores of the classes (n, K, h, w)."""
        return self.decoder(given / self.scale)


TASKS: dict[str, type[Head]] = {"signal": SignalHead, "segmentation": SegmentationHead}


class Learnt(NamedTuple):
    """A head, and the encoder that it reads."""

    encoder: Encoder
    head: Head

    @property
    def count(self) -> int:
        """Numbers that learn: the head's, and those of the encoder."""
        return sum(p.numel() for net in self for p in net.parameters() if p.requires_grad)

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Classes, int64 (n,) or (n, h, w)."""
        parts = [self.head(self.head.given(self.encoder, part)).argmax(1) for part in images.split(CHUNK)]
        return torch.cat(parts)


def learn(
    kind: type[Head], encoder: Encoder, pictures: Labelled, given: Tensor, rows: Tensor, rank: int, seed: int
) -> Iterator[tuple[str, Learnt]]:
    """Learn a task in every way of `WAYS`, one after the other.

    Args:
        kind: of the head.
        encoder: frozen; it stays as it is.
        pictures: some of which are learnt from; of the others labels are not looked at.
        given: what the encoder gives of all of them, without gradients.
        rows: of those that are learnt from. Shape: (k,) int64.
        rank: of the adapters.
        seed: of the weights and the order of the pictures.

    Yields:
        way, and what was learnt.
    """
    known, part = pictures.take(rows), given[rows]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = kind(given, pictures.target).to(given.device)
    _fit(head, lambda drawn: head(part[drawn]), known, kind.RATE, kind.STEPS, kind.BATCH, seed)
    yield "head", Learnt(encoder, head)
    for way in WAYS[1:]:
        net = Learnt(copy.deepcopy(encoder), copy.deepcopy(head))
        if way == "all":
            net.encoder.requires_grad_(True)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                lora.adapt(net.encoder, rank)

        def scores(drawn: Tensor, net: Learnt = net) -> Tensor:
            return net.head(net.head.given(net.encoder, known.images[drawn]))

        _fit(nn.ModuleList(net), scores, known, RATE, STEPS, BATCH, seed)
        yield way, net


def _fit(
    net: nn.Module, scores: Callable[[Tensor], Tensor], known: Labelled, rate: float, steps: int, batch: int, seed: int
) -> None:
    """Steps of AdamW, its rate falling as a cosine, ended early; what learns is left with the weights that err least on
    the held-out worlds, those of the beginning among them. Where there is one world, all steps are done on it.

    Args:
        net: all that may learn.
        scores: rows of the labelled pictures -> scores of the classes.
    """
    held = held_out(known.worlds)
    rows, checks = ((~held).nonzero()[:, 0], held.nonzero()[:, 0])
    weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, rate, weight_decay=fits.DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def error() -> float:
        parts = [F.cross_entropy(scores(part), known.target[part], reduction="sum") for part in checks.split(CHUNK)]
        return float(torch.stack(parts).sum())

    least, best, waited = float("inf"), None, 0
    for step in range(steps + 1):
        if len(checks) and step % CHECKED_EVERY == 0:
            found, waited = error(), waited + 1
            if found < least:
                least, best, waited = found, [weight.detach().clone() for weight in weights], 0
        if step == steps or waited == PATIENCE:
            break
        drawn = rows[torch.randint(len(rows), (min(batch, len(rows)),), generator=order).to(rows.device)]
        loss = F.cross_entropy(scores(drawn), known.target[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    if best is not None:
        with torch.no_grad():
            for weight, value in zip(weights, best, strict=True):
                weight.copy_(value)
