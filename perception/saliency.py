"""Where in a picture a decision comes from: by perturbation, integrated gradients, HiResCAM or Grad-CAM.

A decision is one number a world: the log-probability of the action that was taken, say. Every method gives each pixel a
share of it, above 0 where what is there speaks for the decision and below 0 where it speaks against it, in a unit of
its own. `shares` divides them by their largest magnitude, and `saliency` is that without signs. What the methods can
and cannot show is in docs/interpretability.md: they are exploratory.

Stacked frames are one picture: the share of a pixel is that of all frames together, and is to be laid upon the newest.
The cameras of a rig stand one below the other in the picture, and so they do in its saliency.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.errors import unknown
from perception.encoders import ConvEncoder, Encoder, ImpalaEncoder, OpponentEncoder, RigEncoder

SOFT = 5.0  # px: deviation of the blur that takes away what is smaller, a car at 20 m, say
PATCH = 3.0  # px: deviation of a patch, which is blurred, or whose pixels' shares are summed
STRIDE = 4  # px between the centres of patches
STEPS = 64  # of the path that gradients are integrated along, at the nodes of Gauss and Legendre
FAINT = 1e-6  # a decision that no pixel has a larger share in comes from no pixel
CHUNK = 128  # pictures at once

# Features (B, F), and what else is known of each world (B, ...), to the decision (B,).
Head = Callable[..., Tensor]


class Maps(nn.Module):
    """An encoder's maps of pixels as floats, which have gradients as bytes have not.

    In float32 whatever the machine encodes in: what is measured is how little nearly equal pictures differ.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels from 0 to 255 (B, C, H, W) -> maps (B, *map_shape)."""
        return self.encoder.convolve(pixels - 128)


class Decision(nn.Module):
    """A decision as a function of the picture.

    Args:
        encoder: what sees the picture.
        head: what decides on its features; differentiable, and each world's decision is its own.
        rows: heights of the cameras whose images make up the picture, from top to bottom [px].

    Attributes:
        encoder, rows: as above.
        maps: the encoder's maps, as a layer of their own.
    """

    def __init__(self, encoder: Encoder, head: Head, rows: Sequence[int]):
        super().__init__()
        self.encoder, self.maps = encoder, Maps(encoder)
        self.head, self.rows = head, tuple(rows)

    def forward(self, pixels: Tensor, *beside: Tensor) -> Tensor:
        """The decisions of B worlds. Shape: (B,).

        Args:
            pixels: float32, from 0 to 255. Shape: (B, C, H, W).
            beside: what the head takes after the features. Shape: (B, ...).
        """
        features = self.encoder.norm(self.encoder.projection(self.maps(pixels).flatten(1)))
        return self.head(features, *beside)


def blurred(pixels: Tensor, rows: Sequence[int], deviation: float = SOFT) -> Tensor:
    """Pictures without their details, every camera's image by itself. Shape: as `pixels`, (N, C, H, W)."""
    reach = round(3 * deviation)
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pixels.device) / deviation) ** 2)
    bell = (bell / bell.sum()).to(pixels.dtype)
    images = []
    for image in pixels.split(list(rows), dim=2):
        channels = image.flatten(0, 1).unsqueeze(1)
        padded = F.pad(channels, (reach, reach, reach, reach), mode="replicate")
        soft = F.conv2d(F.conv2d(padded, bell.view(1, 1, -1, 1)), bell.view(1, 1, 1, -1))
        images.append(soft.view_as(image))
    return torch.cat(images, dim=2)


def patches(rows: Sequence[int], width: int) -> list[Tensor]:
    """Where a picture is blurred: a grid of soft patches for each camera, which do not reach into another's image.

    Returns:
        for each camera shares from 0 to 1. Shape: (down, across, H, W), H the height of all cameras together.
    """
    height, found, top = sum(rows), [], 0
    for tall in rows:
        bells = []
        for size in (tall, width):
            count = -(-size // STRIDE)
            centres = (torch.arange(count) + 0.5) * size / count - 0.5
            bells.append(torch.exp(-0.5 * ((torch.arange(size) - centres[:, None]) / PATCH) ** 2))
        grid = bells[0][:, None, :, None] * bells[1][None, :, None, :]
        found.append(F.pad(grid, (0, 0, top, height - top - tall)))
        top += tall
    return found


@torch.no_grad()
def perturbation(decision: Decision, pixels: Tensor, *beside: Tensor) -> Tensor:
    """By how much a decision moves when the picture is blurred at a place (Greydanus et al. 2018).

    Returns:
        f(x) - f(x blurred there), interpolated between the patches, in the unit of the decision. Shape: (N, H, W).
    """
    n, _, _, width = pixels.shape
    soft, before = blurred(pixels, decision.rows), decision(pixels, *beside)
    images = []
    for tall, grid in zip(decision.rows, patches(decision.rows, width), strict=True):
        moved = []
        for masks in grid.to(pixels.device).flatten(0, 1).split(max(1, CHUNK // n)):
            changed = torch.lerp(pixels[:, None], soft[:, None], masks[None, :, None]).flatten(0, 1)
            after = decision(changed, *(part.repeat_interleave(len(masks), 0) for part in beside))
            moved.append(before[:, None] - after.view(n, -1))
        coarse = torch.cat(moved, 1).view(n, 1, *grid.shape[:2])
        images.append(F.interpolate(coarse, (tall, width), mode="bilinear").squeeze(1))
    return torch.cat(images, dim=1)


def path_attributions(decision: Decision, pixels: Tensor, *beside: Tensor) -> Tensor:
    """Integrated gradients from the blurred picture to the picture (Sundararajan et al. 2017).

    Returns:
        of every value of the picture its share of f(x) - f(x blurred); they add up to it. Shape: (N, C, H, W).
    """
    from captum.attr import IntegratedGradients  # takes half a second, which who does not ask for it need not wait for

    return IntegratedGradients(decision).attribute(
        pixels,
        baselines=blurred(pixels, decision.rows),
        additional_forward_args=beside,
        n_steps=STEPS,
        internal_batch_size=max(CHUNK, len(pixels)),
    )


def integrated_gradients(decision: Decision, pixels: Tensor, *beside: Tensor) -> Tensor:
    """`path_attributions` of patches: summed over colours and frames, and over the pixels around each. Single pixels
    are of little use: neighbours mostly cancel out, and their magnitudes draw the picture's edges for any network.
    Shape: (N, H, W).
    """
    single = path_attributions(decision, pixels, *beside).detach().sum(1, keepdim=True)
    return blurred(single, decision.rows, PATCH).squeeze(1)


def hires_cam(decision: Decision, pixels: Tensor, *beside: Tensor) -> Tensor:
    """What the encoder has found at a place of its map and speaks for the decision there (Draelos and Carin 2020).

    Returns:
        sum over channels of the map times its gradient, interpolated. Shape: (N, H, W).
    """
    from captum.attr import LayerGradientXActivation

    products = LayerGradientXActivation(decision, decision.maps).attribute(pixels, additional_forward_args=beside)
    return _enlarged(products.sum(1, keepdim=True), decision.encoder)


def grad_cam(decision: Decision, pixels: Tensor, *beside: Tensor) -> Tensor:
    """Where the encoder has found what speaks for the decision anywhere (Selvaraju et al. 2017).

    Returns:
        relu(sum over channels of the map times the mean of its gradient), interpolated: only what speaks for the
        decision. Shape: (N, H, W).
    """
    from captum.attr import LayerGradCam

    method = LayerGradCam(decision, decision.maps)
    coarse = method.attribute(pixels, additional_forward_args=beside, relu_attributions=True)
    return _enlarged(coarse, decision.encoder)


def _enlarged(coarse: Tensor, encoder: Encoder) -> Tensor:
    """An encoder's map as large as its picture, each cell in the middle of what it sees.

    With a stride of 2 and padding that is not the middle of the cell's share of the picture: 6 px off, for "small".

    Args:
        coarse: (N, 1, h, w).
        encoder: whose map it is.

    Returns:
        interpolated linearly, every picture of a rig that is seen by itself too. Shape: (N, H, W).
    """
    if isinstance(encoder, RigEncoder):
        trunks = [encoder.trunks[str(rows)] for rows in encoder.cameras]
        parts = coarse.split([trunk.map_shape[1] for trunk in trunks], dim=2)
        return torch.cat([_enlarged(part, trunk) for part, trunk in zip(parts, trunks, strict=True)], dim=1)
    first, step = _sight(encoder)
    weights = []
    for cells, pixels in zip(coarse.shape[2:], (encoder.height, encoder.width), strict=True):
        place = ((torch.arange(pixels, device=coarse.device) - first) / step).clamp(0, cells - 1)
        weights.append((1 - (place[:, None] - torch.arange(cells, device=coarse.device)).abs()).clamp(min=0))
    return weights[0] @ coarse.detach().squeeze(1) @ weights[1].T


def _sight(encoder: Encoder) -> tuple[float, float]:
    """Where the first cell of an encoder's map looks, and how far the next one is from there [px]."""
    if isinstance(encoder, ConvEncoder | OpponentEncoder):
        first, step = 0.0, 1.0
        for layer in encoder.convolutions:  # all are as high as wide
            first += ((layer.kernel_size[0] - 1) / 2 - layer.padding[0]) * step
            step *= layer.stride[0]
        return first, step
    if isinstance(encoder, ImpalaEncoder):  # every section keeps every other pixel, beginning with the first
        return 0.0, 2.0 ** len(encoder.sections)
    step = encoder.height / encoder.map_shape[1]  # patches side by side
    return (step - 1) / 2, step


METHODS: dict[str, Callable[..., Tensor]] = {
    "perturbation": perturbation,
    "integrated-gradients": integrated_gradients,
    "hirescam": hires_cam,
    "gradcam": grad_cam,
}
DEFAULT = "perturbation"


def shares(decision: Decision, images: Tensor, *beside: Tensor, method: str = DEFAULT) -> Tensor:
    """What in their pictures speaks for and against the decisions of N worlds.

    Args:
        decision: what is asked about.
        images: uint8. Shape: (N, C, H, W).
        beside: what the decision takes beside them. Shape: (N, ...).
        method: one of `METHODS`.

    Returns:
        from -1 to 1: the method's figures, divided by the largest magnitude in the world's picture; all 0 where that is
        below `FAINT`. Shape: (N, H, W).

    Raises:
        UserError: an unknown method.
    """
    if method not in METHODS:
        raise unknown("saliency method", method, METHODS)
    parts = zip(images.split(CHUNK), *(part.split(CHUNK) for part in beside), strict=True)
    with torch.enable_grad():
        found = torch.cat([METHODS[method](decision, pixels.float(), *rest) for pixels, *rest in parts])
    most = found.abs().amax((1, 2), keepdim=True)
    return torch.where(most < FAINT, 0.0, found / most.clamp(min=FAINT))


def saliency(decision: Decision, images: Tensor, *beside: Tensor, method: str = DEFAULT) -> Tensor:
    """How much each place in their pictures matters to the decisions of N worlds: `shares` without signs, from 0 to 1.
    Shape: (N, H, W).
    """
    return shares(decision, images, *beside, method=method).abs()
