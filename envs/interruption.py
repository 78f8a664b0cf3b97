"""SIGTERM and Ctrl-C for long commands. Who works in steps looks whether one was `noted`; for commands that have no
state to save both raise KeyboardInterrupt, and neither is lost.

Python swallows what is raised inside a `__del__` or a callback of a weak reference, and simulators free arrays all the
time: an exception that a signal handler raises there vanishes, and the command goes on as if nothing had been asked.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# Seconds until a signal that came in a bad moment is raised again.
LATER = 0.01
# Modules whose functions run as callbacks of weak references.
CALLBACKS = ("weakref", "_weakrefset")


class Interruption:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self._number: int | None = None

    @property
    def exit_code(self) -> int:
        """What a command ends with that a signal has ended."""
        return 128 + (self._number or signal.SIGINT)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if _swallows(frame):
            again = threading.Timer(LATER, signal.raise_signal, [number])
            again.daemon = True
            again.start()
            return
        self._number = number
        raise KeyboardInterrupt


def _swallows(frame: FrameType | None) -> bool:
    """Whether what is raised in a frame would go no further than some caller of it."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in CALLBACKS:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within it, SIGTERM and Ctrl-C raise KeyboardInterrupt in the main thread."""
    interruption = Interruption()
    previous = {number: signal.signal(number, interruption) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Note:
    """Which signal was noted, if any."""

    number: int | None = None


@contextlib.contextmanager
def noted() -> Iterator[Note]:
    """Within it, SIGTERM and Ctrl-C leave their number and do no more; a second one acts at once."""
    note = Note()

    def handler(number: int, frame: FrameType | None) -> None:
        note.number = number
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield note
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
