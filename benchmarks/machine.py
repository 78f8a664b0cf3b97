"""What a figure was measured on."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("lanewise", "torch", "warp-lang", "numpy", "gymnasium", "stable-baselines3", "highway-env")


def describe() -> dict[str, str | int]:
    """Processor, cores, GPU and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": model, "cores": cores, "gpu": gpu, "python": platform.python_version(), **versions}


def sentence() -> str:
    """The same in a line."""
    facts = describe()
    gpu = "" if facts["gpu"] == "none" else f", {facts['gpu']}"
    return f"{facts['cores']} cores of {facts['processor']}{gpu}, Python {facts['python']}, torch {facts['torch']}"
