"""How a job's process holds the memory that it has freed.

A training allocates and frees the same large tensors in each step. By default the C library returns
each of them to the kernel, which then clears and maps every page again. With SmolLM2-135M and 4,096
tokens a step these were 820,000 page faults and about 6 of 20 CPU seconds. A job's process keeps
freed memory instead, to its end. Its peak memory was 11 % higher.
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
