"""Decoders of one layer from an encoder's last convolution: what is taken ahead, and what each pixel shows.

Occupancy lies in another plane than the picture, so that every cell reads the whole map: a ridge regression. The
segmentation lies in the picture's own plane, so that every place of the map decodes its own patch: a 1x1 convolution
whose channels are the patch's pixels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.sensors.surfaces import CLASSES
from evaluation.probes.recording import Recording
from evaluation.probes.scores import iou, mean_iou
from perception.encoders import Encoder
from perception.probes import held_out, ridge

WIDEST = 2048  # numbers of a map that are read for occupancy; greater maps are averaged over neighbouring places
SPACING = 8  # pixels between the rows of the maps of a rig's pictures
THRESHOLDS = torch.linspace(0.05, 0.6, 23)
STEPS, BATCH, RATE = 300, 64, 3e-2  # of the segmentation's optimiser


class Patches(nn.Module):
    """A segmentation from maps: one 1x1 convolution.

    Args:
        map_shape: (C, rows, columns) of the maps.
        size: (H, W) of the segmentation.
    """

    def __init__(self, map_shape: tuple[int, int, int], size: tuple[int, int]):
        super().__init__()
        channels, rows, columns = map_shape
        self.size, self.side = size, max(-(-size[0] // rows), -(-size[1] // columns))
        self.layer = nn.Conv2d(channels, len(CLASSES) * self.side**2, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [n, C, rows, columns] -> scores of the classes [n, K, H, W]."""
        patches = F.pixel_shuffle(self.layer(maps), self.side)
        if patches.shape[-2:] == self.size:
            return patches
        return F.interpolate(patches, self.size, mode="bilinear", align_corners=False)


def aligned(encoder: Encoder, maps: Tensor) -> Tensor:
    """An encoder's maps, as float32, their places spaced evenly over the image; those of an encoder that sees each of a
    rig's pictures by itself need not be. Shape: (n, C, rows, columns) -> (n, C, R, columns).
    """
    if encoder.cameras is None:
        return maps.float()
    rows = [encoder.trunks[str(height)].map_shape[1] for height in encoder.cameras]
    sizes = [(max(1, round(height / SPACING)), maps.shape[3]) for height in encoder.cameras]
    parts = zip(maps.float().split(rows, dim=2), sizes, strict=True)
    return torch.cat([F.interpolate(part, size, mode="nearest") for part, size in parts], 2)


def flat(maps: Tensor) -> Tensor:
    """Maps as vectors of at most `WIDEST` numbers. Shape: (n, C, rows, columns) -> (n, d)."""
    _, channels, rows, columns = maps.shape
    while channels * rows * columns > WIDEST and rows * columns > 1:
        rows, columns = max(1, rows // 2), max(1, columns // 2)
    return F.adaptive_avg_pool2d(maps.float(), (rows, columns)).flatten(1)


def occupancy(maps: Tensor, taken: Tensor, worlds: Tensor) -> Callable[[Tensor], Tensor]:
    """Learn which cells ahead are taken. The threshold is the best on a fifth of the worlds.

    Args:
        maps: Shape: (m, C, rows, columns).
        taken: bool. Shape: (m, cells along, cells across).
        worlds: that each picture comes from. Shape: (m,).

    Returns:
        a function from maps to what is taken, bool.
    """
    features, held = flat(maps), held_out(worlds)
    target = taken.flatten(1).float()
    scores = ridge(features[~held], target[~held], worlds[~held])(features[held])
    found = [iou(scores > threshold, taken[held].flatten(1)) for threshold in THRESHOLDS]
    threshold = THRESHOLDS[int(torch.tensor(found).nan_to_num(0).argmax())]
    fit = ridge(features, target, worlds)
    return lambda wanted: (fit(flat(wanted)) > threshold).view(-1, *taken.shape[1:])


def segmentation(maps: Tensor, classes: Tensor, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Learn what the pixels show, by cross-entropy.

    Args:
        maps: Shape: (m, C, rows, columns).
        classes: of `CLASSES`, uint8. Shape: (m, H, W).
        seed: of the weights and the order of the pictures.

    Returns:
        a function from maps to classes, int64 (m, H, W).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Patches(tuple(maps.shape[1:]), tuple(classes.shape[1:])).to(maps.device)
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(decoder.parameters(), RATE)
    scale = float(maps.std()) + 1e-6
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(maps), (min(BATCH, len(maps)),), generator=order).to(maps.device)
        with torch.enable_grad():
            loss = F.cross_entropy(decoder(maps[rows] / scale), classes[rows].long())
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
    return lambda wanted: torch.cat([decoder(part / scale).argmax(1) for part in wanted.split(256)])


def most_frequent(train: Recording) -> tuple[Tensor, Tensor]:
    """The best maps without a look at the picture: cells taken more often than the threshold that is best in training,
    and every pixel's most frequent class. Shapes: (rows, columns) bool, (H, W) int64.
    """
    share = train.occupancy.float().mean(0)
    found = [iou((share > level).expand_as(train.occupancy), train.occupancy) for level in share.unique()]
    taken = share > share.unique()[int(torch.tensor(found).nan_to_num(0).argmax())]
    counts = torch.stack([(train.segmentation == kind).sum(0) for kind in range(len(CLASSES))])
    return taken, counts.argmax(0)


def figures(taken: Tensor | None, classes: Tensor | None, truth: Recording) -> dict[str, float]:
    """The figures of both, of the pictures of a recording that have such labels; None for what was not decoded."""
    found = {}
    if taken is not None:
        found["occupancy IoU"] = iou(taken, truth.occupancy)
    if classes is not None:
        found["segmentation mIoU"] = mean_iou(classes, truth.segmentation)
    return {name: value for name, value in found.items() if value == value}
