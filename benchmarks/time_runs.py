"""Measure the commands that the README speaks of, in a fresh clone: `python benchmarks/time_runs.py <empty folder>`.

Clones the checkout into the folder, runs each command there in order with the environment of the caller, and writes
`benchmarks/runs.csv` and `runs.md` of this checkout: seconds on the clock, and the memory of the largest process.
The clone keeps its results, so that `snakemake publish` can follow there.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import time
from datetime import date
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
ONE_MODEL = "llama3.2-1b-mini"
RUNS = (
    ("one model's table, from nothing", f"snakemake --cores 2 results/miniature/tables/{ONE_MODEL}.md"),
    ("then everything else", "snakemake --cores 2"),
    ("then again: nothing to do", "snakemake --cores 2"),
)


def measure(what: str, command: str, folder: Path) -> dict[str, object]:
    """One row: what, command, seconds, memory in MB of the largest process so far; CalledProcessError if it fails."""
    started = time.monotonic()
    subprocess.run(command.split(), cwd=folder, check=True)
    seconds = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"what": what, "command": command, "seconds": round(seconds, 1), "largest process (MB)": round(memory)}


def machine() -> str:
    """Processor, its cores that this process may use, and the day."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores of {name}, {date.today().isoformat()}"


def markdown(rows: pd.DataFrame, where: str) -> str:
    """The rows as a pipe table with the machine above it."""
    lines = ["| what | command | seconds | largest process (MB) |", "|---|---|---:|---:|"]
    lines += [f"| {r.what} | `{r.command}` | {r.seconds:.0f} | {r[4]:.0f} |" for r in rows.itertuples()]
    total = f"; everything from nothing: {rows['seconds'][:2].sum() / 60:.0f} minutes" if len(rows) > 1 else ""
    return f"Measured on {where}{total}.\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Clone, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder for the clone")
    folder = parser.parse_args().folder
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    rows, where = [], machine()
    for what, command in RUNS:
        rows.append(measure(what, command, folder))
        table = pd.DataFrame(rows)
        table.assign(machine=where).to_csv(REPOSITORY / "benchmarks/runs.csv", index=False)
        (REPOSITORY / "benchmarks/runs.md").write_text(markdown(table, where), encoding="utf-8")


if __name__ == "__main__":
    main()
