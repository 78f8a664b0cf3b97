"""Files that are either the old version or the new one, never half of each."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is synced and renamed over `path`, on error removed.

    Raises:
        OSError: the file could not be written (a full disk, say); `path` is as it was.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(path: str | os.PathLike, data: bytes | str) -> None:
    """Write a whole file atomically. See `replaced` for the errors."""
    with replaced(path) as beside:
        beside.write_bytes(data.encode() if isinstance(data, str) else data)
