"""Networks to compare with: an encoder that learns the labels themselves, and one that learns them from shifted pixels.

Both are the encoder's architecture with one linear layer behind it, trained at once on all labels of the training
pictures. The supervised encoder is what features can be at best: it sees augmented pictures, for twice as long, and
learns the labels that are maps too; it is then frozen and probed like any other. "pixels" is read by its own layer.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.sensors.rig import Rig
from evaluation.probes.dense import Patches, aligned
from evaluation.probes.fits import Columns, Labels
from evaluation.probes.recording import Recording
from evaluation.probes.recording import take as taken_of
from evaluation.probes.scores import Predictions
from perception import encoders
from perception.augment import Augmentation

STEPS, SUPERVISED_STEPS = 800, 1600
BATCH, RATE, DECAY = 64, 1e-3, 1e-4
SHIFT, SUPERVISED_SHIFT = 2, 1  # pixels by which each camera's picture is shifted at most, along either axis


class Pixels(nn.Module):
    """An encoder and a linear layer that reads the labels.

    Args:
        encoder: of `perception.encoders`.
        columns: of the labels.
    """

    def __init__(self, encoder: nn.Module, columns: Columns):
        super().__init__()
        self.encoder, self.columns = encoder, columns
        self.head = nn.Linear(encoder.features, columns.width)

    @torch.no_grad()
    def read(self, images: Tensor) -> Predictions:
        """What it says of pictures. Shape: (n, C, H, W) uint8."""
        return self.columns.read(self.head(self.encoder(images)))


def supervised(
    architecture: dict,
    train: Recording,
    labels: Labels,
    rig: Rig,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> encoders.Encoder:
    """An encoder trained on the labels, those that are maps included. Frozen.

    Args:
        architecture: see `perception.encoders.architecture`.
        train: the pictures.
        labels: theirs, all `evaluation.probes.fits.learnable`.
        rig: that took them.
        seed: of the weights and the order.
        on_step: called after every optimiser step.
    """
    net = _build(architecture, train, labels, seed)
    with torch.no_grad():
        maps = tuple(aligned(net.encoder, net.encoder.maps(train.images[:1])).shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cells = nn.Linear(math.prod(maps), train.occupancy[0].numel()).to(train.images.device)
        patches = Patches(maps, tuple(train.segmentation.shape[1:])).to(train.images.device)
    place = torch.full((len(train),), -1, dtype=torch.int64, device=train.images.device)
    place[train.dense] = torch.arange(len(train.dense), device=place.device)

    augmented, shifts = Augmentation(train.images.device, seed=seed), torch.Generator().manual_seed(seed)

    def loss(rows: Tensor) -> Tensor:
        images = augmented(shifted(train.images[rows], rig, SUPERVISED_SHIFT, shifts))
        seen = net.encoder.maps(images)
        total = net.columns.loss(net.head(net.encoder.project(seen)), taken_of(labels, rows))
        dense = place[rows] >= 0
        if dense.any():
            seen, at = aligned(net.encoder, seen[dense]), place[rows[dense]]
            taken, classes = train.occupancy[at].flatten(1).float(), train.segmentation[at].long()
            total = total + F.binary_cross_entropy_with_logits(cells(seen.flatten(1)), taken)
            total = total + F.cross_entropy(patches(seen), classes)
        return total

    _train(nn.ModuleList([net, cells, patches]), loss, len(train), SUPERVISED_STEPS, seed, on_step)
    return net.encoder.eval().requires_grad_(False)


def pixels(
    architecture: dict,
    train: Recording,
    labels: Labels,
    rig: Rig,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> Pixels:
    """A network trained end to end on shifted pictures; see `supervised` for the arguments."""
    net = _build(architecture, train, labels, seed)
    shifts = torch.Generator().manual_seed(seed)

    def loss(rows: Tensor) -> Tensor:
        features = net.encoder(shifted(train.images[rows], rig, SHIFT, shifts))
        return net.columns.loss(net.head(features), taken_of(labels, rows))

    _train(net, loss, len(train), STEPS, seed, on_step)
    return net.eval().requires_grad_(False)


def shifted(images: Tensor, rig: Rig, most: int, generator: torch.Generator) -> Tensor:
    """Every picture moved by a few pixels at random, each camera's by itself, all frames of it alike; what comes in at
    an edge repeats it. As DrQ does it (Kostrikov et al. 2021, "Image Augmentation Is All You Need").

    Args:
        images: uint8. Shape: (n, C, H, W).
        rig: whose cameras are stacked in them.
        most: pixels, along either axis.
        generator: of the random numbers, on the CPU.
    """
    parts = []
    for part in images.split([camera.height for camera in rig.cameras], dim=2):
        n, _, height, width = part.shape
        wide = F.pad(part.float(), (most,) * 4, mode="replicate").to(images.dtype)
        across, down = (torch.randint(0, 2 * most + 1, (n, 1), generator=generator).to(images.device) for _ in "xy")
        rows = down + torch.arange(height, device=images.device)
        columns = across + torch.arange(width, device=images.device)
        picked = wide[torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None]]
        parts.append(picked.permute(0, 3, 1, 2))
    return torch.cat(parts, 2)


def _build(architecture: dict, train: Recording, labels: Labels, seed: int) -> Pixels:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = encoders.rebuild(architecture)
        return Pixels(encoder, Columns(labels)).to(train.images.device)


def _train(
    net: nn.Module, loss_of: Callable[[Tensor], Tensor], count: int, steps: int, seed: int, on_step: Callable[[], None]
) -> None:
    """Steps of AdamW, its rate falling as a cosine; `loss_of` gives the loss of some of `count` pictures."""
    order = torch.Generator().manual_seed(seed)
    device = next(net.parameters()).device
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(count, (min(BATCH, count),), generator=order).to(device)
        with torch.enable_grad():
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        on_step()
