"""What spoils a camera's pictures: noise, motion, fog, darkness, dirt. How much does a policy lose by it?

Pure functions of pictures uint8 (N, C, H, W), C a multiple of 3 (stacked RGB frames), a strength of 1 to 5, and a torch
generator. The strengths are a choice of ours: 1 is hardly seen, 5 leaves little. `Corrupted` puts one of them between
the camera and a policy, or an attack that knows the policy, see `evaluation.adversarial`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from envs.errors import UserError, unknown
from evaluation import adversarial
from evaluation.adversarial import ATTACKS
from evaluation.recorder import Policy

STRENGTHS = (1, 2, 3, 4, 5)
NOISE = (8.0, 14.0, 22.0, 34.0, 50.0)  # standard deviation, of 255
BLUR = (3, 5, 7, 11, 15)  # px, that the picture moves sideways while it is taken
FOG = (0.2, 0.35, 0.5, 0.65, 0.8)  # mean share of the fog's grey in a pixel
FOG_GREY, FOG_CELLS, FOG_VARIES = 200.0, 4, 0.5  # of 255; cells along a side; relative variation of the share
GAIN = (0.6, 0.42, 0.3, 0.2, 0.12)  # of the light that is left
SHOT = 1.2  # of the noise of photons, which deviates by SHOT * sqrt(value)
PATCH = (0.03, 0.07, 0.13, 0.2, 0.3)  # share of the picture that is covered
PATCH_GREY = 40

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def gaussian_noise(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Independent normal noise in every value."""
    return _bytes(images + NOISE[strength - 1] * _normal(images.shape, generator))


def motion_blur(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Each pixel the mean of a row's pixels around it, as when the camera turns while the shutter is open."""
    wide = BLUR[strength - 1]
    padded = functional.pad(images.float(), (wide // 2, wide // 2, 0, 0), mode="replicate")
    return _bytes(functional.avg_pool2d(padded, (1, wide), stride=1))


def fog(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Grey mixed into all frames of a picture, in swathes. It does not know how far away things are."""
    n, _, height, width = images.shape
    swathes = torch.rand(n, 1, FOG_CELLS, FOG_CELLS, generator=generator, device=generator.device).to(images.device)
    swathes = functional.interpolate(swathes, (height, width), mode="bilinear", align_corners=True)
    share = (FOG[strength - 1] * (1.0 + FOG_VARIES * (2.0 * swathes - 1.0))).clamp(max=1.0)
    return _bytes(images * (1.0 - share) + FOG_GREY * share)


def low_light(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Less light, and the noise of the few photons that are left."""
    dark = images * GAIN[strength - 1]
    return _bytes(dark + SHOT * dark.sqrt() * _normal(images.shape, generator))


def occlusion(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """A dark patch of the picture's own proportions, at the same place in all frames: dirt on the lens."""
    n, _, height, width = images.shape
    side = PATCH[strength - 1] ** 0.5
    tall, wide = max(1, round(side * height)), max(1, round(side * width))
    place = torch.rand(n, 2, generator=generator, device=generator.device).to(images.device)
    top = (place[:, 0] * (height - tall + 1)).long().view(n, 1, 1, 1)
    left = (place[:, 1] * (width - wide + 1)).long().view(n, 1, 1, 1)
    row = torch.arange(height, device=images.device).view(1, 1, height, 1)
    column = torch.arange(width, device=images.device).view(1, 1, 1, width)
    covered = (row >= top) & (row < top + tall) & (column >= left) & (column < left + wide)
    return images.masked_fill(covered, PATCH_GREY)


def random_signs(images: Tensor, strength: int, generator: torch.Generator) -> Tensor:
    """Every value one bound of the attacks higher or lower, by chance: as large as they are, and knows no policy."""
    signs = 2.0 * torch.randint(2, images.shape, generator=generator, device=generator.device) - 1.0
    return _bytes(images + adversarial.BOUND[strength - 1] * signs)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _bytes(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": gaussian_noise,
    "blur": motion_blur,
    "fog": fog,
    "low-light": low_light,
    "occlusion": occlusion,
    "signs": random_signs,
}
# These stay as they are for an episode; of the others every picture has its own.
LASTING = ("fog", "occlusion")


def corrupt(images: Tensor, kind: str, strength: int, generator: torch.Generator) -> Tensor:
    """Corrupted pictures. Shape: as `images`.

    Args:
        images: uint8. Shape: (N, C, H, W), or of A agents (N, A, C, H, W).
        kind: one of `CORRUPTIONS`.
        strength: 1 to 5.
        generator: of the random numbers, on the pictures' device.

    Raises:
        UserError: an unknown kind or strength.
    """
    _check(kind, strength, CORRUPTIONS)
    flat = images.flatten(0, -4) if images.ndim > 4 else images
    return CORRUPTIONS[kind](flat, strength, generator).view_as(images)


def _check(kind: str, strength: int, known: Iterable[str]) -> None:
    if kind not in known:
        raise unknown("corruption", kind, known)
    if strength not in STRENGTHS:
        raise UserError(f"a corruption's strength is 1, 2, 3, 4 or 5, not {strength}")


class Corrupted:
    """A policy that sees corrupted pictures. See `agents.policies.Policy`.

    The frames of a stack are corrupted together, each time they are looked at. The random numbers begin anew when
    all worlds are forgotten: a batch of worlds is corrupted the same way whenever it is driven.

    Args:
        policy: whose eyes are spoiled.
        kind: one of `CORRUPTIONS` or of `evaluation.adversarial.ATTACKS`.
        strength: 1 to 5.
        seed: of the random numbers.

    Raises:
        UserError: an unknown kind or strength, a policy without a camera, or an attack on one without gradients.
    """

    def __init__(self, policy: Policy, kind: str, strength: int, seed: int = 0):
        if policy.env_options.get("observation", "camera") != "camera":
            raise UserError(f"'{policy.name}' does not look through a camera, so that nothing can spoil its pictures")
        _check(kind, strength, (*CORRUPTIONS, *ATTACKS))
        if kind in ATTACKS:
            adversarial.check(policy)
        self.policy, self.kind, self.strength, self.seed = policy, kind, strength, seed
        self.name = f"{policy.name}, {kind} {strength}"
        self.env_options: dict[str, Any] = policy.env_options
        self._generator: torch.Generator | None = None

    def _spoilt(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        camera = obs["camera"]
        if self._generator is None or self.kind in LASTING:
            self._generator = torch.Generator(camera.device).manual_seed(self.seed)
        if self.kind in ATTACKS:
            spoilt = adversarial.attack(self.policy, obs, self.kind, self.strength, self._generator)
        else:
            spoilt = corrupt(camera, self.kind, self.strength, self._generator)
        return obs | {"camera": spoilt}

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        """See `Policy`."""
        return self.policy.act(self._spoilt(obs))

    def explain(self, obs: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """See `Policy`. It explains what it would do with the next corrupted pictures."""
        return self.policy.explain(self._spoilt(obs))

    def reset(self, done: Tensor | None = None) -> None:
        """See `Policy`."""
        if done is None:
            self._generator = None
        self.policy.reset(done)
