"""Augmentation that suits a road, on the images' own device.

What is left out is deliberate. Flips swap the lanes that one may change to. Hue and grey-scale erase the colour of a
lamp, so the three colours of a pixel are always changed by one curve. Crops and shifts are changes of heading: a pixel
of the default rig is 0.7 degrees ahead and 3.75 all around, as much as a camera mount ever gives, and the randomised
worlds already move the camera itself, which is right for every camera of a rig at once.

The frames stacked in one observation share their weather: they are changed alike, except for the noise.
"""

from dataclasses import dataclass

import torch

NOISE_BANK = 1 << 21  # normal numbers drawn once; each image reads a random stretch of them


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
        self.bank = torch.randn(NOISE_BANK, generator=self.generator, device=self.device)

    def __call__(self, images: torch.Tensor, chunk: int = 64) -> torch.Tensor:
        """Images uint8 [B, C, H, W] -> a copy of the same shape and type, each image changed in its own way."""
        if images.is_cuda:
            return self._change(images)
        return torch.cat([self._change(part) for part in images.split(chunk)])  # a chunk that fits the cache

    def _change(self, images: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = images.shape
        s = self.strength
        x = images.float()
        if s.blur:
            chosen = (self._uniform(batch, 0, 1) < s.blur).nonzero().squeeze(1)
            x[chosen] = blurred(x[chosen], self._uniform(len(chosen), 0.1, 0.33))
        # Photometric: contrast * (bent(x) - 1/2) + 1/2 + brightness is a quadratic in x, with coefficients of its own
        # in every image. One operation at a time: those of three operands are not vectorised when they broadcast.
        contrast, bend = self._uniform(batch, 1 - s.contrast, 1 + s.contrast), self._uniform(batch, -s.bend, s.bend)
        brightness = self._uniform(batch, -s.brightness, s.brightness)
        square, linear, constant = (
            -contrast * bend / 255,
            contrast * (1 + bend),
            255 * (0.5 - contrast / 2 + brightness) + 0.5,
        )  # + 0.5 rounds
        y = x * square.view(-1, 1, 1, 1)
        y.add_(linear.view(-1, 1, 1, 1)).mul_(x).add_(constant.view(-1, 1, 1, 1))
        if s.occlusion:
            chosen = (self._uniform(batch, 0, 1) < s.occlusion).nonzero().squeeze(1)
            y[chosen] = torch.where(
                self._patches(len(chosen), height, width),
                self._uniform(len(chosen), 0, 255).view(-1, 1, 1, 1),
                y[chosen],
            )
        if s.noise:
            size = channels * height * width
            start = torch.randint(0, NOISE_BANK - size, (batch,), generator=self.generator, device=self.device)
            noise = self.bank.unfold(0, size, 1)[start].view_as(y)
            y.add_(noise.mul_(self._uniform(batch, 0, 255 * s.noise).view(-1, 1, 1, 1)))
        return y.clamp_(0, 255).to(torch.uint8)

    def _uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=self.generator, device=self.device) * (high - low) + low

    def _patches(self, batch: int, height: int, width: int) -> torch.Tensor:
        """Boolean masks [B, 1, H, W], true under a patch of random place and size."""
        inside = []
        for pixels in (height, width):
            centre = self._uniform(batch, 0, pixels)
            half = self._uniform(batch, 0.3, 1) * self.strength.patch * pixels / 2
            inside.append((torch.arange(pixels, device=self.device) - centre[:, None]).abs() <= half[:, None])
        return inside[0][:, None, :, None] & inside[1][:, None, None, :]

    def state(self) -> torch.Tensor:
        """The generator's state (uint8), to go on exactly."""
        return self.generator.get_state()

    def set_state(self, state: torch.Tensor) -> None:
        """Continue from what `state` gave."""
        self.generator.set_state(state)


def blurred(x: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Images [B, C, H, W] softened by the mask (spread, 1 - 2 spread, spread) along both axes; spread [B] is 1/3 for a
    mean of three. Edges are repeated.
    """
    spread = spread.view(-1, 1, 1, 1)
    for axis in (2, 3):
        size = x.shape[axis]
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)
        x = x * (1 - 2 * spread) + (before + after) * spread
    return x
