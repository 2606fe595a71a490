"""What a job took, as a row in the columns of Snakemake's benchmark files.

Snakemake samples the tree of processes that it started, and would see a job that another process
runs (`server.py`) only waiting. So the process that ran the stage asks the kernel at its end, which
has missed nothing in between.
"""

from __future__ import annotations

import re
import resource
import time
from datetime import timedelta
from pathlib import Path

from leap_repro.errors import UserError
from leap_repro.pipeline.launch.memory import keep_freed_memory
from leap_repro.pipeline.stages import run_stage
from leap_repro.store.atomic import write_text

MEMORY = ("max_rss", "max_vms", "max_uss", "max_pss")
COLUMNS = ("s", "h:m:s", *MEMORY, "io_in", "io_out", "mean_load", "cpu_time")
UNKNOWN = "NA"
KB_PER_MB = 1024
PEAKS = ("VmHWM", "VmPeak")


def run_measured(stage: str, arguments: list[str], benchmark: Path | None, started: float) -> None:
    """Run a stage in this process; `benchmark` gets its row if it ends well. `started`: by
    `time.monotonic`."""
    keep_freed_memory()
    run_stage(stage, arguments)
    if benchmark:
        write_row(benchmark, started, seconds_of_cpu(), *peaks())


def write_row(
    file: Path,
    started: float,
    cpu: float | None = None,
    rss: float | None = None,
    vms: float | None = None,
) -> None:
    """One job's row: wall and CPU seconds, largest resident and virtual memory (MB), and "NA" for
    all that is None.

    UserError if it cannot be written.
    """
    seconds = time.monotonic() - started
    load = None if cpu is None else 100 * cpu / seconds
    numbers = {"s": seconds, "cpu_time": cpu, "mean_load": load, "max_rss": rss, "max_vms": vms}
    row = {name: f"{number:.2f}" for name, number in numbers.items() if number is not None}
    row["h:m:s"] = str(timedelta(seconds=int(seconds)))
    cells = (row.get(name, UNKNOWN) for name in COLUMNS)
    try:
        write_text(file, "\t".join(COLUMNS) + "\n" + "\t".join(cells) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from error


def seconds_of_cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peaks() -> tuple[float | None, float | None]:
    """The largest resident and the largest virtual memory of this process in MB; None where the
    kernel does not say.

    Not `ru_maxrss`: a program that another started by exec inherits that one's there.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None, None
    found = dict(re.findall(r"^(VmHWM|VmPeak):\s*(\d+) kB$", text, re.MULTILINE))
    rss, vms = (float(found[name]) / KB_PER_MB if name in found else None for name in PEAKS)
    return rss, vms
