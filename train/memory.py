"""Whether what a run keeps fits into memory."""

import os

import torch

from envs.errors import UserError


def check_memory(needed: int, what: str, option: str, device: torch.device) -> None:
    """Raise UserError for more than the memory of a device.

    Args:
        needed: bytes.
        what: needs them, for the message.
        option: that lowers them.
        device: where they are needed.
    """
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(f"{what} takes {needed / 1e9:.1f} GB, and there are {there / 1e9:.1f}: lower {option}")
