"""The machine that the numbers are from."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "emjax", "jax", "numpyro", "numpy", "scipy", "scikit-learn", "gmmx", "pomegranate", "torch",
    "crowd-kit", "stepmix", "enstop", "tomotopy", "dynamax", "hmmlearn",
)  # fmt: skip


def entry(path: str, key: str) -> str:
    """Return the first value of a key in a file of `key : value` lines; "unknown" without it."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "unknown"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "unknown"
    )


def processor() -> str:
    """Return the processor's name, and how many of its cores there are."""
    model = entry("/proc/cpuinfo", "model name")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = entry("/proc/cpuinfo", "flags")
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in flags.split()), "no AVX")
    return f"{model}, {cores} cores, {vectors}"


def memory() -> str:
    """Return how much memory there is."""
    words = entry("/proc/meminfo", "MemTotal").split()
    return f"{int(words[0]) / 2**20:.0f} GiB" if words[0].isdigit() else "unknown"


def versions(packages: Iterable[str] = PACKAGES) -> str:
    """Return Python's version and those of the packages that are installed."""
    lines = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name} not installed")
    return ", ".join(lines)
