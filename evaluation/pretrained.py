"""Encoders that a comparison needs, each trained by `train.perception` in a process of its own."""

import shlex
import shutil
from pathlib import Path

from agents import checkpoint
from envs.errors import UserError
from evaluation import child
from perception import encoders


def train(folder: Path, arguments: list[str]) -> None:
    """Train an encoder, or go on with that, if it is not there.

    Args:
        folder: that the arguments name as --out.
        arguments: of `train.perception`.

    Raises:
        UserError: the training failed.
    """
    if (folder / encoders.CARD).exists():
        return
    if (folder / checkpoint.NAME).exists():
        arguments = ["--resume", str(folder)]
    elif folder.exists():
        shutil.rmtree(folder)  # of a training that ended before its first checkpoint
    code = child.run("train.perception", arguments)
    if code:
        raise UserError(f"{shlex.join(['python', '-m', 'train.perception', *arguments])} ended with exit code {code}")
