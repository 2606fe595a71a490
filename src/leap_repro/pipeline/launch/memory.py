"""How a job's process holds the memory that it has freed.

A training allocates and frees the same large tensors in each step. The C library gives each of them
back to the kernel, which then hands out, clears and maps every page again: a fifth of the CPU time
of a step (docs/scaling.md). A job's process keeps freed memory for its next use instead, to its end.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""glibc's names and numbers of these settings: mallopt(3)."""


def keep_freed_memory() -> None:
    """From now on this process returns no freed memory to the kernel. Elsewhere than with glibc, which
    has these settings, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
