"""Warp's set-up, and the one-off compilation of the kernels, said on screen when it happens."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import warp as wp

wp.config.quiet = True
wp.config.log_level = wp.LOG_WARNING
# Nothing here is differentiated: adjoints would double the compilation.
wp.config.enable_backward = False


@contextlib.contextmanager
def _unheard_stderr() -> Iterator[None]:
    """Send what native code writes to standard error nowhere."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# Without a GPU, Warp's native library warns at every start that there is none.
with contextlib.nullcontext() if torch.cuda.is_available() else _unheard_stderr():
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
