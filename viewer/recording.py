"""Pictures of the window to an mp4 file, written beside while the window goes on."""

from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import pygame

from envs.errors import UserError
from evaluation.video import encode

FPS = 30
WAITING = 60  # pictures that may wait for the encoder


def pixels(picture: pygame.Surface) -> np.ndarray:
    """A picture as H.264 needs it, with even sides. Shape: (height, width, 3), uint8."""
    array = pygame.surfarray.array3d(picture).swapaxes(0, 1)
    return np.ascontiguousarray(array[: array.shape[0] // 2 * 2, : array.shape[1] // 2 * 2])


class Recorder:
    """An mp4 file in the making.

    Args:
        path: of the file, which is there once `close` has returned.
        first: its first picture, whose size is that of all.
    """

    def __init__(self, path: Path, first: pygame.Surface):
        self.path, self.size, self.pictures = path, first.get_size(), 0
        self._queue: Queue[np.ndarray | None] = Queue(WAITING)
        self._error: Exception | None = None
        self._complete = False
        self._thread = Thread(target=self._write, daemon=True)
        self._thread.start()
        self.add(first)

    def _pictures(self) -> Iterator[np.ndarray]:
        while (picture := self._queue.get()) is not None:
            yield picture
        self._complete = True

    def _write(self) -> None:
        try:
            encode(self._pictures(), FPS, self.path)
        except (UserError, OSError) as error:
            self._error = error
            if not self._complete:  # take the rest, so that nobody waits for room
                for _ in self._pictures():
                    pass

    def add(self, picture: pygame.Surface) -> None:
        """Add a picture."""
        self._queue.put(pixels(picture))
        self.pictures += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            UserError, OSError: it could not be written; a file that was there is as it was.
        """
        self._queue.put(None)
        self._thread.join()
        if self._error:
            raise self._error


def film(pictures: Iterator[pygame.Surface], path: Path) -> None:
    """Write all of some pictures, without a window. Errors: those of `encode`."""
    encode(map(pixels, pictures), FPS, path)
