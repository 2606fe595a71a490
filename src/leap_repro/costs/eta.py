"""What a run says of itself: at its start what will come when, then one line a minute.

The plan's estimate of every job (`plan.py`), with the jobs of a line that have ended measured in its place: their
seconds are in Snakemake's benchmark files. Nothing is asked of Snakemake, so that a line costs some looks at the disk.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from leap_repro.costs.plan import Estimate
from leap_repro.pipeline.grid import Cell, Study

MINUTE = 60.0


@dataclass
class Outlook:
    """The jobs of a run that began at `started` (seconds since the epoch) and works on `slots` of them at a time.

    `root` holds the scale's results. `slots` is None where nobody knows, as on a cluster: no time is foretold then.
    """

    study: Study
    root: Path
    jobs: list[Estimate]
    slots: int | None
    started: float
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each job that has ended, by folder, as measured; in the order in which their ends were seen."""

    def first_words(self) -> str:
        """How many jobs there are, and when the first model's table and the whole will be there."""
        words = f"{len(self.jobs)} jobs that take time"
        if self.slots is None:
            return words
        whole = sum(job.seconds for job in self.jobs) / self.slots
        words += f", about {span(whole)} by the plan's estimate (docs/plan.md)"
        models = {job.folder.split("/")[1] for job in self.jobs if job.folder.startswith("evaluate/")}
        first = next((name for name in self.study.models if name in models), None)
        if len(models) < 2 or first is None:
            return words
        until = [job for job in self.jobs if job.folder.split("/")[1] == first or job.folder.startswith("data/")]
        return f"{words}; the table of {first} first, after about {span(sum(j.seconds for j in until) / self.slots)}"

    def line(self, now: float) -> str:
        """Jobs done, time left, and the best method so far where a result came last."""
        self._look()
        words = f"{len(self.seconds)} of {len(self.jobs)} jobs done in {span(now - self.started)}"
        if self.slots is not None and self.seconds:
            words += f", about {span(self._left(now - self.started))} left"
        best = self._best()
        return f"{words}; {best}" if best else words

    def _look(self) -> None:
        """Measure the jobs that have ended since the last look: their result is younger than the run."""
        for job in self.jobs:
            manifest = self.root / job.folder / "manifest.json"
            if job.folder not in self.seconds and _age(manifest) >= self.started:
                self.seconds[job.folder] = _measured(self.root / "benchmarks" / f"{job.folder}.tsv", job.seconds)

    def _left(self, elapsed: float) -> float:
        """Seconds to the end: what ended jobs took and others will, shared by the slots, less what has gone by."""
        took, planned = defaultdict(float), defaultdict(float)
        for job in self.jobs:
            if job.folder in self.seconds:
                for line in (job.line, "all"):
                    took[line] += self.seconds[job.folder]
                    planned[line] += job.seconds
        ratio = {line: took[line] / planned[line] for line in took}
        to_come = sum(
            job.seconds * ratio.get(job.line, ratio["all"]) for job in self.jobs if job.folder not in self.seconds
        )
        evenly = (took["all"] + to_come) / self.slots - elapsed
        return evenly if evenly > 0 else to_come / self.slots  # some slots had nothing to do

    def _best(self) -> str | None:
        """The best average accuracy of a pruned model among the cells beside the one evaluated last; None before it."""
        evaluated = [folder for folder in self.seconds if folder.startswith("evaluate/")]
        pruned = [cell for cell in map(_cell, evaluated) if float(cell.sparsity)]
        if not pruned:
            return None
        last = pruned[-1]
        beside = [
            cell for cell in pruned if (cell.model, cell.sparsity, cell.seed) == (last.model, last.sparsity, last.seed)
        ]
        scores = {cell.method: score for cell in beside if (score := _average(self.root / "evaluate" / cell.path))}
        if not scores:
            return None
        name = max(scores, key=scores.__getitem__)
        label = self.study.methods[name].label
        return f"best of {len(scores)} on {last.model} at {last.sparsity} so far: {label}, {scores[name]:.2f} %"


def slots_here(jobs: list[Estimate], cores: int, threads: int, devices: int) -> int:
    """How many of these jobs this machine works on at a time: what its cores allow, and its GPUs, if it has any."""
    by_cores = cores // threads
    by_devices = devices // max([1, *(job.gpus for job in jobs)]) if devices else by_cores
    return max(1, min(by_cores, by_devices))


def _cell(folder: str) -> Cell:
    model, method, sparsity, seed = folder.split("/")[1:]
    return Cell(model, method, sparsity, int(seed))


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _measured(benchmark: Path, otherwise: float) -> float:
    """The seconds in a Snakemake benchmark file; `otherwise` while it is not there."""
    try:
        return float(benchmark.read_text(encoding="utf-8").splitlines()[1].split("\t")[0])
    except (OSError, IndexError, ValueError):
        return otherwise


def _average(folder: Path) -> float | None:
    """Average accuracy in percent of an evaluation; None if it cannot be read now."""
    import pyarrow.parquet as pq  # a run of which no line is said does without

    try:
        table = pq.read_table(folder / "payload/metrics.parquet", columns=["task", "value"]).to_pydict()
    except (OSError, ValueError):
        return None
    return dict(zip(table["task"], table["value"], strict=True)).get("average")


def span(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3 h 20 min."""
    if seconds < MINUTE:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / MINUTE)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def say(words: str) -> None:
    """One line among Snakemake's."""
    print(f"[{time.strftime('%H:%M:%S')}] {words}", file=sys.stderr, flush=True)


def say_every_minute(outlook: Outlook) -> None:
    """Say `outlook`'s line once a minute, beside the run, until the process ends."""

    def lines() -> None:
        while not never.wait(MINUTE):
            say(outlook.line(time.time()))

    never = threading.Event()
    threading.Thread(target=lines, name="outlook", daemon=True).start()
