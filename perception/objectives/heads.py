"""What objectives put on top of an encoder: heads that are thrown away later, and copies that follow slowly."""

import copy

import torch
from torch import nn


def mlp(*widths: int, normalized: bool = True) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them, [N, widths[0]] -> [N, widths[-1]].

    With `normalized`, each hidden layer is batch-normalised by the batch at hand; no running statistics are kept. The
    encoder itself has no such layer: what it is used for sees one image at a time.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths[:-2], widths[1:-1], strict=True):
        layers.append(nn.Linear(inputs, outputs, bias=not normalized))
        if normalized:
            layers.append(nn.BatchNorm1d(outputs, track_running_stats=False))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


def follower(leader: nn.Module) -> nn.Module:
    """A copy that gradients do not reach; `follow` moves it."""
    return copy.deepcopy(leader).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, share: float) -> None:
    """Move a follower's weights by this share of the way towards its leader's."""
    for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
        behind.lerp_(ahead, share)
