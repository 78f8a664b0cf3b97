"""Threads that run a batch's launches, on slices of the worlds.

Warp's CPU launches run on the calling thread and release the interpreter lock, so slices run side by side. Worlds do
not share state: how they are sliced changes nothing but the time a step takes.
"""

import threading
from collections.abc import Callable

# With several slices a thread, one that is held up leaves the rest to the others.
SLICES_PER_THREAD = 6
MIN_SLICE = 32  # worlds, below which a slice costs more than it evens out


class Workers:
    """Slices of `count` worlds, taken in turn by whichever thread is free; the calling thread is one of them.

    Attributes:
        slices: (first world, number of worlds) of each.
    """

    def __init__(self, count: int, threads: int):
        number = max(threads, min(threads * SLICES_PER_THREAD, count // MIN_SLICE)) if threads > 1 else 1
        bounds = [count * k // number for k in range(number + 1)]
        self.slices = [(low, high - low) for low, high in zip(bounds, bounds[1:], strict=False)]
        self._next = iter(range(number))
        self._job: Callable[[int], None] = lambda _: None
        self._error: BaseException | None = None
        self._start = [threading.Semaphore(0) for _ in range(threads - 1)]
        self._done = threading.Semaphore(0)
        for k in range(1, threads):
            threading.Thread(target=self._serve, args=(k,), daemon=True, name=f"worlds-{k}").start()

    def run(self, job: Callable[[int], None]) -> None:
        """Call job(k) for every slice k, and wait for all.

        Raises:
            BaseException: the last error that any slice raised.
        """
        self._job, self._next = job, iter(range(len(self.slices)))
        for start in self._start:
            start.release()
        try:
            self._take()
        finally:
            for _ in self._start:
                self._done.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _take(self) -> None:
        """Do slices until none is left. Drawing from an iterator is atomic: it happens under the interpreter lock."""
        for k in self._next:
            self._job(k)

    def close(self) -> None:
        """End the threads."""
        self._job = None
        for start in self._start:
            start.release()
        self._start = []

    def _serve(self, k: int) -> None:
        start = self._start[k - 1]
        while True:
            start.acquire()
            if self._job is None:
                return
            try:
                self._take()
            except BaseException as error:  # handed to the caller, who raises it
                self._error = error
            self._done.release()
