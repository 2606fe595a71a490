"""`leap-repro progress`: show the state of the run in this folder, local or on a cluster, without changing it.

The screen has what `run_log.py` reads: Snakemake's log of the newest run, and the progress of running jobs (blocks,
steps, windows, questions).
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timedelta
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.pipeline.run_log import newest_log, read_run


def screen(folder: Path) -> str:
    """What is shown; UserError if no run was ever started in `folder`."""
    newest = newest_log(folder)
    if newest is None:
        raise UserError(f"{folder} has no log of a run: run `snakemake --cores all` there first")
    run = read_run(newest)
    if run.started is None or not run.total:
        return f"{newest.name}: no job has started"
    percent = int(100 * run.parts_done(folder / "logs") / run.total)
    left = run.seconds_left()
    end = run.latest if run.latest and not run.running else datetime.now()
    lines = [
        f"jobs     {run.done} of {run.total} done ({percent} %), {len(run.running)} running, {run.failed} failed",
        f"time     {_span((end - run.started).total_seconds())} so far"
        + (f", about {_span(left)} left" if left is not None and run.done < run.total else ""),
        f"updated  {_span(time.time() - newest.stat().st_mtime)} ago",
    ]
    for job in run.running.values():
        lines.append(f"  {job.message}, for {_span((datetime.now() - job.began).total_seconds())}")
        if meter := job.meter(folder / "logs"):
            lines.append(f"      {meter}")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


def main(arguments: argparse.Namespace) -> None:
    """Show the screen once, or again and again until interrupted."""
    while arguments.watch:
        print(f"\033[2J\033[H{screen(arguments.folder)}", flush=True)
        try:
            time.sleep(arguments.watch)
        except KeyboardInterrupt:
            return
    print(screen(arguments.folder))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="leap-repro progress", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="folder in which Snakemake was started")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="repeat after this many seconds")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
