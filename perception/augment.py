"""Augmentation that suits a road, on the images' own device.

What is left out is deliberate. Flips swap the lanes that one may change to. Hue and grey-scale erase the colour of a
lamp, so the three colours of a pixel are always changed by one curve. Crops and shifts are changes of heading: a pixel
of the default rig is 0.7 degrees ahead and 3.75 all around, as much as a camera mount ever gives, and the randomised
worlds already move the camera itself, which is right for every camera of a rig at once.

The frames stacked in one observation share their weather: they are changed alike, except for the noise.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

CHUNK = 16  # images changed at once on a CPU, whose cache they fit
NOISE_BANK = 1 << 18  # normal numbers drawn once, or twice an image's size; each image reads a random stretch of them


@dataclass(frozen=True)
class Strength:
    """How far an image may be changed. Intensities are fractions of white."""

    brightness: float = 0.15  # added, uniform in +-
    contrast: float = 0.3  # slope at mid-grey is 1 +- this
    bend: float = (
        0.4  # of the curve x + bend x (1 - x), uniform in +-: what a gamma of about 0.7 to 1.4 does, without a power
    )
    noise: float = 0.03  # largest standard deviation of the sensor noise
    blur: float = 0.2  # share of images softened over 3x3 pixels, each by its own amount
    occlusion: float = 0.25  # share of images with one grey patch on the lens
    patch: float = 0.25  # largest side of that patch, as a fraction of the image's


class Changes(NamedTuple):
    """What happens to each of B images, in this order. Shapes: (B,), stripes (B, H) and (B, W)."""

    blurs: torch.Tensor
    spread: torch.Tensor
    square: torch.Tensor
    linear: torch.Tensor
    constant: torch.Tensor
    hides: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    grey: torch.Tensor
    noise_from: torch.Tensor
    noise: torch.Tensor


class Augmentation:
    """A random change of a batch of images, reproducible from its generator.

    Args:
        device: where the images are.
        strength: how far to change them.
        seed: of its own random numbers.
    """

    def __init__(self, device: torch.device | str = "cpu", strength: Strength | None = None, seed: int = 0):
        self.strength = strength or Strength()
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.seed = seed
        self.bank = torch.empty(0, device=self.device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> a copy of the same shape and type, each image changed in its own way."""
        changes = self._draw(*images.shape)
        if images.is_cuda:
            return self._changed(images, changes)
        parts = zip(images.split(CHUNK), *(drawn.split(CHUNK) for drawn in changes), strict=True)
        return torch.cat([self._changed(part, Changes(*drawn)) for part, *drawn in parts])

    def _draw(self, batch: int, channels: int, height: int, width: int) -> Changes:
        """What is to happen to each image of a batch."""
        s = self.strength
        # Photometric: contrast * (bent(x) - 1/2) + 1/2 + brightness is a quadratic in x, with coefficients of its own
        # in every image.
        contrast, bend = self._uniform(batch, 1 - s.contrast, 1 + s.contrast), self._uniform(batch, -s.bend, s.bend)
        brightness = self._uniform(batch, -s.brightness, s.brightness)
        size = channels * height * width
        return Changes(
            blurs=self._uniform(batch, 0, 1) < s.blur,
            spread=self._uniform(batch, 0.1, 0.33),
            square=-contrast * bend / 255,
            linear=contrast * (1 + bend),
            constant=255 * (0.5 - contrast / 2 + brightness) + 0.5,  # + 0.5 rounds
            hides=self._uniform(batch, 0, 1) < s.occlusion,
            rows=self._stripe(batch, height),
            columns=self._stripe(batch, width),
            grey=self._uniform(batch, 0, 255),
            noise_from=torch.randint(0, self._stock(size), (batch,), generator=self.generator, device=self.device),
            noise=self._uniform(batch, 0, 255 * s.noise),
        )

    def _changed(self, images: torch.Tensor, c: Changes) -> torch.Tensor:
        """Images with their changes, uint8. Whole images are moved by index_select and index_copy_, which is several
        times as fast as indexing; operations of three operands are not vectorised when they broadcast.
        """
        x = images.float()
        blurs, hides = c.blurs.nonzero().squeeze(1), c.hides.nonzero().squeeze(1)
        if self.strength.blur:
            x.index_copy_(0, blurs, blurred(x.index_select(0, blurs), c.spread[blurs]))
        y = x * each(c.square)
        y.add_(each(c.linear)).mul_(x).add_(each(c.constant))
        if self.strength.occlusion:
            patches = c.rows[hides, None, :, None] & c.columns[hides, None, None, :]
            y.index_copy_(0, hides, torch.where(patches, each(c.grey[hides]), y.index_select(0, hides)))
        if self.strength.noise:
            y.add_(self._stretches(c.noise_from, y[0].numel()).view_as(y).mul_(each(c.noise)))
        return y.clamp_(0, 255).to(torch.int16).to(torch.uint8)  # straight to bytes takes a CPU four times as long

    def _uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=self.generator, device=self.device) * (high - low) + low

    def _stock(self, size: int) -> int:
        """Make the bank large enough for images of `size` numbers; returns in how many places a stretch may begin."""
        count = max(NOISE_BANK, 2 * size)
        if len(self.bank) != count:
            own = torch.Generator(self.device).manual_seed(self.seed)  # so that the bank is no part of the state
            self.bank = torch.randn(count, generator=own, device=self.device)
        return count - size

    def _stretches(self, start: torch.Tensor, size: int) -> torch.Tensor:
        """Stretches [B, size] of the noise bank that begin at start [B]."""
        if start.is_cuda:
            return self.bank.unfold(0, size, 1)[start]
        return torch.stack([self.bank[first : first + size] for first in start.tolist()])

    def _stripe(self, batch: int, pixels: int) -> torch.Tensor:
        """Boolean masks [B, pixels], true along one stretch of random place and length: a patch is two of them."""
        centre = self._uniform(batch, 0, pixels)
        half = self._uniform(batch, 0.3, 1) * self.strength.patch * pixels / 2
        return (torch.arange(pixels, device=self.device) - centre[:, None]).abs() <= half[:, None]

    def state(self) -> torch.Tensor:
        """The generator's state (uint8), to go on exactly."""
        return self.generator.get_state()

    def set_state(self, state: torch.Tensor) -> None:
        """Continue from what `state` gave."""
        self.generator.set_state(state)


def each(values: torch.Tensor) -> torch.Tensor:
    """Numbers [B] against images [B, C, H, W]."""
    return values.view(-1, 1, 1, 1)


def blurred(x: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Images [B, C, H, W] softened by the mask (spread, 1 - 2 spread, spread) along both axes; spread [B] is 1/3 for a
    mean of three. Edges are repeated.
    """
    spread = each(spread)
    for axis, edges in ((2, (0, 0, 1, 1)), (3, (1, 1, 0, 0))):
        size = x.shape[axis]
        padded = F.pad(x, edges, mode="replicate")
        sides = padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)
        x = (x * (1 - 2 * spread)).add_(sides.mul_(spread))
    return x
