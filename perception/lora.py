"""Low-rank adaptation: a trained encoder learns another scenario in a few per cent of its weights.

Every linear and convolutional layer's weight W, seen as a matrix of outputs by inputs, becomes W + B A with B [outputs,
r] and A [r, inputs]; W stands still, B begins as 0. What is learnt is a small file beside the encoder that it belongs
to, and can be added into plain weights at the end.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685.
"""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import parametrize

from envs import files
from envs.errors import UserError
from perception.encoders import Encoder

NAME = "adapters.safetensors"
FORMAT = 1


class LowRank(nn.Module):
    """What is added to a weight.

    Args:
        weight: of a linear layer or a convolution; its first dimension are the outputs.
        rank: r, at most the smaller side of the matrix.
    """

    def __init__(self, weight: torch.Tensor, rank: int):
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        rank = min(rank, outputs, inputs)
        self.a = nn.Parameter(torch.empty(rank, inputs, dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(outputs, rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """W -> W + B A, of the same shape."""
        # In full precision, whatever the layers compute in: merged and unmerged are then the same to the bit.
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.b @ self.a).view_as(weight)


def adapt(encoder: Encoder, rank: int) -> Encoder:
    """Freeze an encoder and give each of its linear and convolutional layers an adapter, in place.

    Args:
        encoder: without adapters.
        rank: of all adapters.

    Returns:
        the encoder.

    Raises:
        UserError: the rank is not positive.
    """
    if rank < 1:
        raise UserError(f"the rank of adapters must be at least 1, not {rank}")
    encoder.requires_grad_(False)
    for layer in list(encoder.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return encoder


def adapters(encoder: Encoder) -> dict[str, LowRank]:
    """An encoder's adapters by the name of their layer; empty if it has none."""
    return {
        name: layer.parametrizations.weight[0]
        for name, layer in encoder.named_modules()
        if parametrize.is_parametrized(layer, "weight")
    }


def merge(encoder: Encoder, plain: Encoder) -> Encoder:
    """Add the adapters into plain weights: the same numbers without adapters.

    Torch can take parametrizations off in place, but then also takes them off every copy.

    Args:
        encoder: with adapters; it stays as it is.
        plain: of the same architecture, without adapters, to be overwritten.

    Returns:
        `plain`.
    """
    state = {name: value for name, value in encoder.state_dict().items() if ".parametrizations." not in name}
    weights = {f"{name}.weight": encoder.get_submodule(name).weight.detach() for name in adapters(encoder)}
    plain.load_state_dict(state | weights)
    return plain


def save(encoder: Encoder, path: Path, base: str) -> None:
    """Write the adapters, whole or not at all.

    Args:
        encoder: with adapters.
        path: the file.
        base: checksum of the encoder without them, "sha256" of its card.

    Raises:
        OSError: the file could not be written.
    """
    tensors = {
        f"{name}.{part}": getattr(adapter, part).detach().cpu().contiguous()
        for name, adapter in adapters(encoder).items()
        for part in ("a", "b")
    }
    about = {"format": FORMAT, "base": base, "sha256": _digest(tensors)}
    files.write(path, safetensors.torch.save(tensors, {"lanewise": json.dumps(about)}))


def load(encoder: Encoder, path: Path, base: str) -> Encoder:
    """Give an encoder the adapters of a file, in place, frozen as `perception.encoders.load` has it.

    Args:
        encoder: the one that they were trained on, without adapters.
        path: written by `save`.
        base: its checksum, "sha256" of its card.

    Returns:
        the encoder; see `merge`.

    Raises:
        UserError: the file is missing, damaged, no adapters, or belongs to another encoder.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["lanewise"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        found = about["format"], about["base"], about["sha256"]
    except FileNotFoundError:
        raise UserError(f"no adapters at {path}") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged, or holds no adapters ({type(error).__name__}: {error})") from None
    if found[0] != FORMAT:
        raise UserError(f"{path} has format {found[0]}, this version reads format {FORMAT}")
    if _digest(tensors) != found[2]:
        raise UserError(f"{path} is damaged: its checksum differs")
    if found[1] != base:
        raise UserError(f"{path} belongs to another encoder: to the one of checksum {found[1][:12]}, not {base[:12]}")
    adapt(encoder, max((len(tensor) for name, tensor in tensors.items() if name.endswith(".a")), default=1))
    for name, adapter in adapters(encoder).items():
        for part in ("a", "b"):
            own, theirs = getattr(adapter, part), tensors.get(f"{name}.{part}")
            if theirs is None or theirs.shape != own.shape:
                raise UserError(f"{path} does not fit the encoder: it has no {list(own.shape)} for {name}")
            own.data.copy_(theirs)
    return encoder.requires_grad_(False)


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the tensors' bytes in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy())
    return digest.hexdigest()
