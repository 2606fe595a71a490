"""SIGKILL for the processes of stages that a Snakemake has started, at seeded random moments of each kind's life."""

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from leap_repro.pipeline.stages import STAGES

EARLY, LATE = "early", "late"
LEARNED = ("prune leap", "prune maskllm", "prune patch", "prune recover")
RULES = "workflow/rules/study.smk"
WITH_SERVER, WITHOUT = "WORTH_A_SERVER = 3", "WORTH_A_SERVER = 10**6"
"""Without a server each job has a process of its own, which lasts long enough to be hit."""
LOOK_SECONDS, POLL_SECONDS = 0.2, 0.02
"""How often new processes are looked for, which takes a few milliseconds, and how often a known one is asked."""
SURELY_ALIVE = 0.6
"""An early kill comes within this share of the CPU time that the kind takes undisturbed: a missed one hits nothing."""
TRAINING_SECONDS = (0.2, 0.6)
"""A late kill of a training comes so many CPU seconds after its first step: some checkpoints later."""


def option(command, name):
    """The value of an option on a command line."""
    return command[command.index(name) + 1]


def kind_of(command):
    """The stage that a command line runs, of `prune` with the method, or "report" or "figures" of what
    comes after them; None for any other command."""
    if len(command) < 4 or command[1] != "-m" or not command[2].startswith("leap_repro."):
        return None
    room, *rest = command[2].split(".")[1:]
    if room == "report":
        return rest[0] if rest[0] == "figures" else room
    stage = next((word for word in command[3:] if word in STAGES), None) if room == "pipeline" else room
    return f"prune {option(command, '--module')}" if stage == "prune" else stage


def cpu_seconds(process):
    """The CPU time that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


@dataclass
class Job:
    """A running process of a stage, when in its life it is to die, and the CPU time at which that is (once known)."""

    process: psutil.Process
    command: list[str]
    moment: str | None
    deadline: float | None = None
    seconds: float = 0.0

    @property
    def kind(self):
        return kind_of(self.command)

    def writes(self, folder):
        """Whether its result lies half written under a temporary name."""
        return any((folder / option(self.command, "--output")).glob(".payload-*"))

    def trains(self, folder):
        """Whether its log tells of a step."""
        log = folder / "logs" / Path(option(self.command, "--output")).relative_to("results")
        return "steps:" in log.with_name(f"{log.name}.log").read_text()


@dataclass
class Killer:
    """`plan` has the moments of the next kills by kind; `hits` the (kind, moment) of what was running when it died.

    `lives` holds the CPU seconds of the shortest undisturbed process of each kind; with an empty plan, `watch` only
    measures them.
    """

    folder: Path
    plan: dict[str, list[str]] = field(default_factory=dict)
    lives: dict[str, float] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    hits: list[tuple[str, str]] = field(default_factory=list)

    def watch(self, snakemake):
        """Kill what `snakemake`, a Popen, starts, until it has ended."""
        running, looked = {}, 0.0
        while snakemake.poll() is None:
            if time.monotonic() - looked >= LOOK_SECONDS:
                running |= self.new_jobs(snakemake, running)
                looked = time.monotonic()
            for process, job in list(running.items()):
                self.follow(job)
                if not process.is_running():
                    self.bury(running.pop(process))
            time.sleep(POLL_SECONDS)
        for job in running.values():
            self.bury(job)

    def new_jobs(self, snakemake, running):
        """{process: job} of the stages that have been started since the last look."""
        try:
            children = psutil.Process(snakemake.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return {}
        found = {process: self.recognise(process) for process in children if process not in running}
        return {process: job for process, job in found.items() if job}

    def recognise(self, process):
        """The job that a process runs, None if it runs no stage (or not yet)."""
        try:
            command = process.cmdline()
        except psutil.Error:
            return None
        kind = kind_of(command)
        if kind is None:
            return None
        moments = self.plan.get(kind)
        job = Job(process, command, moments.pop(0) if moments else None)
        if job.moment == EARLY:
            job.deadline = self.rng.uniform(0, SURELY_ALIVE * self.lives[kind])
        return job

    def follow(self, job):
        """Note its CPU time, and kill it if its moment has come."""
        try:
            job.seconds = max(job.seconds, cpu_seconds(job.process))
            if job.moment == LATE and job.deadline is None:
                job.deadline = self.late_deadline(job)
            if job.moment and job.deadline is not None and job.seconds >= job.deadline:
                self.kill(job)
        except psutil.Error:
            pass

    def late_deadline(self, job):
        if job.kind in LEARNED:
            return job.seconds + self.rng.uniform(*TRAINING_SECONDS) if job.trains(self.folder) else None
        return job.seconds if job.writes(self.folder) else None

    def kill(self, job):
        if job.process.status() != psutil.STATUS_ZOMBIE:
            job.process.kill()
            self.hits.append((job.kind, job.moment))
            job.moment = None
            job.seconds = float("inf")

    def bury(self, job):
        """Take the measure of a life that ended by itself; a kill that came too late is for the next of its kind."""
        self.lives[job.kind] = min(job.seconds, self.lives.get(job.kind, float("inf")))
        if job.moment:
            self.plan[job.kind].insert(0, job.moment)
