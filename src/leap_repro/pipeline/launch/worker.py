"""`python -m leap_repro.pipeline.launch.worker STAGE …`: one of the processes that torchrun starts. It holds its device
with the job, ends with torchrun, and runs the stage that it was started for."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from leap_repro.pipeline.launch.lease import LEASED, share
from leap_repro.pipeline.launch.memory import keep_freed_memory
from leap_repro.pipeline.stages import run_stage

PR_SET_PDEATHSIG = 1
THREADS = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""What Snakemake sets to a job's threads, which its processes share."""


def dying_with(parent: int, by: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A function after which the kernel ends its process, `by` a signal, as soon as the process
    `parent`, which started it, is gone; Linux only."""
    libc = ctypes.CDLL(None)

    def die() -> None:
        libc.prctl(PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:  # it was gone before
            os._exit(1)

    return die


def main() -> None:
    """Hold the device of this local rank, then run the stage in this process."""
    dying_with(os.getppid())()
    files = json.loads(os.environ.get(LEASED, "[]"))
    if files:
        share(Path(files[int(os.environ["LOCAL_RANK"])]))
    keep_freed_memory()
    run_stage(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    main()
