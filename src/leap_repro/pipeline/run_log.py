"""What a run says of itself on disk, read by all who show it: Snakemake's log, the logs of the jobs that are running,
and what jobs that have ended took.

Ours, because Snakemake has no such view, and a logger plugin would have to be asked for before the run starts.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from leap_repro.pipeline.job_log import Meter, last_meter

STAMP = re.compile(r"\[(\w{3} \w{3} +\d+ [\d:]+ \d{4})\]")
START = re.compile(r"Job (\d+): (.+)")
END = re.compile(r"Finished jobid: (\d+) \(Rule: (\w+)\)")
ERROR = re.compile(r"Error in rule (\w+):")
JOBID = re.compile(r" *jobid: (\d+)")
STEPS = re.compile(r"(\d+) of (\d+) steps")
STATS_LINE = re.compile(r"(\w+) +(\d+)$")
QUOTED_LOG = re.compile(r"^ *Logfile [^\n]*:\n=+\n.*?\n=+$", re.DOTALL | re.MULTILINE)
JOB_LOGS = {
    r"Fetching model (\S+?)(?:: .*)?$": "models/{}.log",
    r"Fetching the (\S+) data": "data/{}.log",
    r"Cutting (\S+) tokens for (\S+), seed (\d+)": "calibration/{1}/{0}/{2}.log",
    r"Pruning (\S+) with (\S+) to ([\d.]+), seed (\d+)": "prune/{}/{}/{}/{}.log",
    r"Hardening (\S+), (\S+) at ([\d.]+), seed (\d+)": "harden/{}/{}/{}/{}.log",
    r"Evaluating (\S+), (\S+) at ([\d.]+), seed (\d+)": "evaluate/{}/{}/{}/{}.log",
}
"""{a rule's message: the log of such a job, below logs/<scale>}; a test holds them to the rules."""
CLOCK_SLACK = 2.0
"""Seconds by which a job's log may seem older than its start: Snakemake's stamps are whole seconds."""


@dataclass(frozen=True)
class Running:
    """A job that is running: since when, the message of its rule."""

    began: datetime
    message: str

    def meter(self, logs: Path) -> Meter | None:
        """How far it says it is; None for a job that says nothing. `logs` is the folder of all logs."""
        for pattern, place in JOB_LOGS.items():
            if found := re.match(pattern, self.message):
                paths = logs.glob(f"*/{place.format(*found.groups())}")
                began = self.began.timestamp() - CLOCK_SLACK
                own = [path for path in paths if path.stat().st_mtime >= began]  # others are of an earlier run
                return last_meter(max(own, key=lambda path: path.stat().st_mtime)) if own else None
        return None


@dataclass
class Run:
    """What a log says so far; `running` by the number of the job, `seconds` that ended jobs took by rule."""

    done: int = 0
    total: int = 0
    failed: int = 0
    started: datetime | None = None
    latest: datetime | None = None
    waiting: dict[str, int] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
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

    def parts_done(self, logs: Path) -> float:
        """Jobs that are done, with the shares that running ones say they have done."""
        meters = [job.meter(logs) for job in self.running.values()]
        return self.done + sum(meter.share for meter in meters if meter)


def newest_log(folder: Path, since: float = 0.0) -> Path | None:
    """The log of the newest run in a folder, if any was written after `since`, in seconds since the epoch."""
    found = {path: path.stat().st_mtime for path in folder.glob(".snakemake/log/*.snakemake.log")}
    newest = max(found, key=found.__getitem__, default=None)
    return newest if newest and found[newest] >= since else None


def read_run(path: Path) -> Run:
    """Follow a Snakemake log from its first line to its last."""
    return follow(path.read_text(encoding="utf-8", errors="replace"))


def follow(log: str) -> Run:
    """The same of its text."""
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
            failing = _take_note(run, line, now, failing)
    return run


def _take_note(run: Run, line: str, now: datetime, failing: bool) -> bool:
    """Of one line after the plan; whether the next `jobid:` is that of a job that failed."""
    if start := START.match(line.strip()):
        run.running[start[1]] = Running(now, start[2])
    elif end := END.match(line):
        ended = run.running.pop(end[1], None)
        run.seconds[end[2]].append((now - ended.began).total_seconds() if ended else 0.0)
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


@dataclass(frozen=True)
class Took:
    """What a job that has ended took: seconds on the clock and of processors, the peak of its memory in MB (2^20
    bytes); None for what was not measured."""

    seconds: float
    cpu_seconds: float | None
    peak_mb: float | None


def took(benchmark: Path) -> Took | None:
    """What a job's benchmark row says; None while there is none."""
    try:
        with benchmark.open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        return Took(float(row["s"]), _number(row.get("cpu_time")), _number(row.get("max_rss")))
    except (OSError, StopIteration, KeyError, ValueError):
        return None


def _number(text: str | None) -> float | None:
    return float(text) if text not in ("-", "NA", "", None) else None
