"""The vision transformer, in its tiny size.

Sources: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale"; Touvron
et al. 2021, "Training data-efficient image transformers & distillation through attention" (the tiny size).
"""

import torch
import torch.nn.functional as F
from torch import nn

from envs.errors import UserError
from perception.encoders.base import SCALE, Encoder

DEPTH, WIDTH, HEADS, HIDDEN = 12, 192, 3, 768  # ViT-Ti
PATCH = 8  # px; 16 are 10 degrees ahead, a lane at 20 m, and would cut neither camera of the default rig evenly
MAP_CHANNELS = 64


class Block(nn.Module):
    """Attention between patches, then a perceptron on each, both on normalised inputs and added to them."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.linear1, self.linear2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape in and out: (B, patches, WIDTH)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class VisionTransformer(Encoder):
    """ViT-Ti: patches of 8x8 pixels, 12 layers of width 192, learnt positions.

    There is no class token: what becomes of every patch is squeezed to MAP_CHANNELS, and these maps are projected as
    those of any other encoder.

    Args:
        in_channels, height, width, features: see `Encoder`.
        patch: side of a patch [px].

    Raises:
        UserError: the image is no whole number of patches high and wide.
    """

    def __init__(self, in_channels: int, height: int, width: int, features: int | None, patch: int = PATCH):
        super().__init__(in_channels, height, width)
        if height % patch or width % patch:
            raise UserError(f"images of {height}x{width} pixels cannot be cut into patches of {patch}x{patch}")
        rows, columns = height // patch, width // patch
        self.patches = nn.Conv2d(in_channels, WIDTH, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, rows * columns, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.last_norm = nn.LayerNorm(WIDTH)
        self.squeeze = nn.Linear(WIDTH, MAP_CHANNELS)
        self.end((MAP_CHANNELS, rows, columns), features)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.patches.weight, std=self.patches.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.patches.bias)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def convolve(self, centred: torch.Tensor) -> torch.Tensor:
        """See `Encoder.convolve`."""
        layer = self.patches
        x = F.conv2d(centred, layer.weight / SCALE, layer.bias, layer.stride).flatten(2).transpose(1, 2)
        x = self.squeeze(self.last_norm(self.blocks(x + self.positions)))
        return x.transpose(1, 2).unflatten(2, self.map_shape[1:])


def vit_tiny(in_channels: int, height: int, width: int, features: int | None = 256) -> VisionTransformer:
    """ViT-Ti with patches of 8x8 pixels: 0.5G multiply-adds for 64x96 images, for a GPU."""
    return VisionTransformer(in_channels, height, width, features)
