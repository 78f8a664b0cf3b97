"""Commands of the suite that another command runs, each in a process of its own."""

import subprocess
import sys
import time

POLL = 0.1  # s between two looks whether a training has ended


def run(module: str, arguments: list[str]) -> int:
    """Run `python -m MODULE ARGUMENTS` to its end; if that is interrupted, a training writes its checkpoint first.
    Returns its exit code."""
    # In a session of its own: Ctrl-C reaches it by us alone, once.
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], start_new_session=True)
    try:
        # Not one long wait: a signal that another thread takes would not end that.
        while process.poll() is None:
            time.sleep(POLL)
        return process.returncode
    except BaseException:
        process.terminate()
        process.wait()
        raise
