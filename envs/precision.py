"""The scalar type of a simulation: float32 to train, float64 to be compared with highway-env.

Laws and phases are built once per scalar type by functions named `build(real)`: Warp has no generic structs, and a
closure over `real` keeps every law readable as ordinary code.
"""

from types import SimpleNamespace

import torch
import warp as wp

from envs.errors import unknown

REAL = {"float32": wp.float32, "float64": wp.float64}
TORCH = {"float32": torch.float32, "float64": torch.float64}


def scalar(dtype: str) -> type:
    """The Warp scalar type of that name.

    Raises:
        UserError: not "float32" or "float64".
    """
    if dtype not in REAL:
        raise unknown("dtype", dtype, REAL)
    return REAL[dtype]


class Functions(SimpleNamespace):
    """What a `build` returns: Warp functions, structs and kernels by name. Hashable, so that builds can be cached."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
