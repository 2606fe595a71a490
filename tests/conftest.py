"""How the tests share a machine: a core for each process, and for `pytest -n` the longest files first."""

import os
from pathlib import Path

from leap_repro.portable import pin

# Before torch is imported. Its threads gain nothing on tiny models, and two workers' threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Triton's kernels run by its interpreter, on CPU tensors, unless it is told at its import; torch imports it.
# With TRITON_INTERPRET=0 and a GPU the same tests run the compiled kernels.
os.environ.setdefault("TRITON_INTERPRET", "1")
# What a stage does at its start: the tests compute with portable kernels, whoever runs them.
pin()

LONGEST_FIRST = ("test_slurm.py", "test_kills.py", "test_staleness.py")


def pytest_collection_modifyitems(items):
    """The longest files, then the other workflow files, then the units; a file's own tests keep their order."""
    items.sort(key=lambda item: _place(item.path))


def _place(path: Path) -> tuple[int, bool]:
    rank = LONGEST_FIRST.index(path.name) if path.name in LONGEST_FIRST else len(LONGEST_FIRST)
    return rank, path.parent.name != "workflow"
