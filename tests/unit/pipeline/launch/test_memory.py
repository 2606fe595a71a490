"""Freed memory stays with a job's process."""

from __future__ import annotations

import subprocess
import sys

import pytest

TENSORS = 20
FAULTS = """
import resource, torch
from leap_repro.pipeline.launch.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({tensors}):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ones = faults()
keep_freed_memory()
faults()
print(ones, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc's allocator that is told")
def test_a_tensor_takes_the_memory_of_the_last_one() -> None:
    """Tensors of 64 MB, one after another: each has new pages before, none after. A process of its
    own, because the setting stays."""
    run = [sys.executable, "-c", FAULTS.format(tensors=TENSORS)]
    before, after = map(int, subprocess.check_output(run, text=True).split())
    assert before > TENSORS * 1000
    assert after < 1000
