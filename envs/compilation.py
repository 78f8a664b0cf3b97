"""Warp's set-up, and the one-off compilation of the kernels, said on screen when it happens."""

import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import warp as wp

wp.config.quiet = True
wp.config.log_level = wp.LOG_ERROR  # without a GPU, Warp warns of one missing at every start
# Nothing here is differentiated: adjoints would double the compilation.
wp.config.enable_backward = False
wp.init()


def _fingerprint(device: str, dtype: str) -> str:
    """Changes when a kernel may have to be compiled anew."""
    digest = hashlib.sha256(f"{wp.config.version} {device} {dtype}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def announced(device: str, dtype: str) -> Iterator[None]:
    """Around whatever may compile kernels: says so on standard error where the cache does not hold them yet."""
    marker = Path(wp.config.kernel_cache_dir) / f"lanewise-{_fingerprint(device, dtype)}"
    if marker.exists():
        yield
        return
    print("compiling kernels, once: ", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    yield
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):  # a read-only cache only means that the message comes again
        marker.touch()
