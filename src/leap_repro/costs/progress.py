"""`leap-repro progress`: one screen of the run in this folder, locally or on a cluster, without touching it.

It reads two things that are written anyway: Snakemake's own log of the newest run (jobs, their starts and ends) and the
logs of the prune jobs that are running (a training's steps, loss, density and time left). Ours, because Snakemake has
no such view, and a logger plugin would have to be asked for before the run starts.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.errors import UserError

STAMP = re.compile(r"\[(\w{3} \w{3} +\d+ [\d:]+ \d{4})\]")
START = re.compile(r"Job (\d+): (.+)")
END = re.compile(r"Finished jobid: (\d+) \(Rule: (\w+)\)")
ERROR = re.compile(r"Error in rule (\w+):")
JOBID = re.compile(r" *jobid: (\d+)")
STEPS = re.compile(r"(\d+) of (\d+) steps")
STATS_LINE = re.compile(r"(\w+) +(\d+)$")
QUOTED_LOG = re.compile(r"^ *Logfile [^\n]*:\n=+\n.*?\n=+$", re.DOTALL | re.MULTILINE)
PRUNING = re.compile(r"Pruning (\S+) with (\S+) to ([\d.]+), seed (\d+)")
TRAINING = re.compile(r"(\d+)/(\d+) \[[\d:]+<([\d:?]+)[^\]]*\] (loss .+)")


@dataclass
class Run:
    """What a log says so far. `running` maps a job's number to its start and its message; seconds are per rule."""

    done: int = 0
    total: int = 0
    failed: int = 0
    started: datetime | None = None
    latest: datetime | None = None
    waiting: dict[str, int] = field(default_factory=dict)
    running: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def seconds_left(self) -> float | None:
        """Mean seconds of each rule's finished jobs times its jobs to come, over jobs that run at a time; or None."""
        known = [value for values in self.seconds.values() for value in values]
        if not known:
            return None
        usual = sum(known) / len(known)
        to_come = sum(
            count * (sum(self.seconds[rule]) / len(self.seconds[rule]) if self.seconds.get(rule) else usual)
            for rule, count in self.waiting.items()
        )
        return to_come / max(1, len(self.running))


def read_run(log: str) -> Run:
    """Follow a Snakemake log from its first line to its last."""
    run, now, in_stats, failing = Run(), None, False, False
    for line in QUOTED_LOG.sub("", log).splitlines():
        if stamp := STAMP.search(line):
            now = datetime.strptime(stamp[1], "%a %b %d %H:%M:%S %Y")
            run.started, run.latest = run.started or now, now
        if line.startswith("Job stats:"):
            in_stats = True
        elif in_stats and (stats := STATS_LINE.match(line)):
            in_stats = stats[1] != "total"
            if in_stats:
                run.waiting[stats[1]] = int(stats[2])
            else:
                run.total = int(stats[2])
        elif now:
            failing = _follow(run, line, now, failing)
    return run


def _follow(run: Run, line: str, now: datetime, failing: bool) -> bool:
    """Take note of one line after the plan; whether the next `jobid:` is that of a job that failed."""
    if start := START.match(line.strip()):
        run.running[start[1]] = (now, start[2])
    elif end := END.match(line):
        began, _ = run.running.pop(end[1], (now, ""))
        run.seconds[end[2]].append((now - began).total_seconds())
        run.waiting[end[2]] = max(0, run.waiting.get(end[2], 0) - 1)
    elif steps := STEPS.match(line):
        run.done, run.total = int(steps[1]), int(steps[2])
    elif ERROR.search(line):
        run.failed += 1
        return True
    elif failing and (job := JOBID.match(line)):
        run.running.pop(job[1], None)
        return False
    return failing


def training_line(message: str, logs: Path) -> str | None:
    """The last word of the training that a prune job's message speaks of: step, loss, density, time left; or None."""
    pruning = PRUNING.match(message)
    found = sorted(logs.glob(f"*/prune/{'/'.join(pruning.groups())}.log"), key=_age) if pruning else []
    steps = TRAINING.findall(found[0].read_text(encoding="utf-8", errors="replace")) if found else []
    if not steps:
        return None
    done, total, left, numbers = steps[-1]
    return f"step {done} of {total}, {numbers}, {left} left"


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def screen(folder: Path) -> str:
    """What is shown; UserError if no run was ever started in `folder`."""
    found = sorted(folder.glob(".snakemake/log/*.snakemake.log"), key=_age)
    if not found:
        raise UserError(f"{folder} holds no log of a run: start `snakemake --cores all` there first")
    run = read_run(found[0].read_text(encoding="utf-8", errors="replace"))
    if run.started is None or not run.total:
        return f"{found[0].name}: no job has started"
    percent = 100 * run.done // run.total
    left = run.seconds_left()
    end = run.latest if run.latest and not run.running else datetime.now()
    lines = [
        f"jobs     {run.done} of {run.total} done ({percent} %), {len(run.running)} running, {run.failed} failed",
        f"time     {_span((end - run.started).total_seconds())} so far"
        + (f", about {_span(left)} left" if left is not None and run.done < run.total else ""),
        f"news     {_span(_age(found[0]))} ago",
    ]
    for began, message in run.running.values():
        lines.append(f"  {message}, for {_span((datetime.now() - began).total_seconds())}")
        training = training_line(message, folder / "logs")
        if training:
            lines.append(f"      {training}")
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
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="where Snakemake was started")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="show it again every so many seconds")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
