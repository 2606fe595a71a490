"""One run at a time in a run folder. The lock is the kernel's: it is gone when the last process that
holds it is, the command or the Snakemake that it started, however that ended. Snakemake's own lock is
a file, which a power loss leaves.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leap_repro.errors import UserError

LOCK = ".leap-repro.lock"
OF_SNAKEMAKE = Path(".snakemake")
LOCKS_OF_SNAKEMAKE = OF_SNAKEMAKE / "locks"
"""What `snakemake --unlock` removes; it would read the whole configuration before."""


@contextmanager
def turn(run: Path) -> Iterator[int]:
    """Hold the folder; yields the file descriptor of the lock, for whoever shall hold it too.

    Raises UserError if another process holds it.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        _take(lock, run)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, run: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        here = f"another `leap-repro prune` is at work in {run}"
        way = "run this again when it has ended, or give another --run-folder"
        raise UserError(f"{here}: {way}") from None


def unlock(run: Path) -> str:
    """Take away the locks that a Snakemake left which was cut off; what was done, in words.

    Raises UserError if a run is at work, or there never was one.
    """
    if not (run / OF_SNAKEMAKE).is_dir():
        raise UserError(f"--run-folder {run} holds no run")
    with turn(run):
        shutil.rmtree(run / LOCKS_OF_SNAKEMAKE, ignore_errors=True)
    return f"{run} is unlocked: run the same command again to continue"
