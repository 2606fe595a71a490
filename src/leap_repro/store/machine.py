"""On what a result was computed: processor, widest vectors, threads, the GPU if there is one; versions of packages."""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

WIDEST_FIRST = ("avx512f", "avx2", "avx", "sse4_2")
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "lm_eval", "datasets", "numpy", "scipy", "pyarrow")


def versions() -> dict[str, str]:
    """Installed versions of the packages that can change a number."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def machine() -> dict[str, str | int]:
    """{"cpu", "instructions", "threads"}, and "gpu" where torch is loaded and has one. No import, some file reads."""
    text = _cpuinfo()
    flags = cpu_flags()
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    found: dict[str, str | int] = {
        "cpu": name[1].strip() if name else platform.machine(),
        "instructions": next((each for each in WIDEST_FIRST if each in flags), platform.machine()),
        "threads": int((os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)).split(",")[0]),  # "4,2": nested
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def cpu_flags() -> frozenset[str]:
    """What this processor has, in the kernel's words; empty where the kernel does not say."""
    found = re.search(r"^flags\s*:(.*)$", _cpuinfo(), re.MULTILINE)
    return frozenset(found[1].split() if found else ())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
