"""Encoders that a comparison needs, each trained by `train.perception` in a process of its own."""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from agents import checkpoint
from envs.errors import UserError
from perception import encoders

POLL = 0.1  # s between two looks whether a training has ended


def run(arguments: list[str]) -> int:
    """Run a training to its end; if that is interrupted, it writes its checkpoint first. Returns its exit code."""
    # In a session of its own: Ctrl-C reaches it by us alone, once.
    process = subprocess.Popen([sys.executable, "-m", "train.perception", *arguments], start_new_session=True)
    try:
        # Not one long wait: a signal that another thread takes would not end that.
        while process.poll() is None:
            time.sleep(POLL)
        return process.returncode
    except BaseException:
        process.terminate()
        process.wait()
        raise


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
    code = run(arguments)
    if code:
        raise UserError(f"{shlex.join(['python', '-m', 'train.perception', *arguments])} ended with exit code {code}")
