"""Runs of the tiny grid that are killed at seeded random moments and go on, for damage.py."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from measure import REPOSITORY

sys.path.append(str(REPOSITORY / "tests/workflow"))
from killer import EARLY, LATE, LEARNED, RULES, WITH_SERVER, WITHOUT, Killer
from scratch import checkout_of, checksums, edit, looks_whole, snakemake, start, write_inputs

KINDS = ("models", "data", "calibration", "prune wanda", "prune sparsegpt", *LEARNED, "harden", "evaluate", "report")
NOT_COPIED = shutil.ignore_patterns("results", "logs", ".snakemake", "output.txt", "again*")
MOST_RUNS = 50


def undisturbed(folder: Path) -> tuple[Path, dict[str, float], float]:
    """(a checkout in which the grid has been run, the CPU seconds of each kind of job, the seconds of the run)."""
    checkout_of(folder, REPOSITORY / "tests/config/learned.yaml")
    write_inputs(folder)
    edit(folder, RULES, WITH_SERVER, WITHOUT)
    killer, began = Killer(folder), time.monotonic()
    _watched(folder, killer)
    return folder, killer.lives, time.monotonic() - began


def kill_jobs(run: Path, folder: Path, lives: dict[str, float], count: int) -> tuple[int, int]:
    """(jobs killed, how many of them left other bytes, at once or in the end)."""
    shutil.copytree(run, folder, ignore=NOT_COPIED)
    rng, good = random.Random(0), checksums(run)
    plan: dict[str, list[str]] = {}
    for kind in rng.sample(KINDS, count) if count <= len(KINDS) else rng.choices(KINDS, k=count):
        late = kind in LEARNED and rng.random() < 0.5
        plan.setdefault(kind, []).append(LATE if late else EARLY)
    killer, other = Killer(folder, plan, lives, rng), 0
    for _ in range(MOST_RUNS):
        before = len(killer.hits)
        ended = _watched(folder, killer, "--keep-going", "--retries", "1", check=False)
        if not looks_whole(folder).items() <= good.items():
            other += len(killer.hits) - before
        if ended:
            break
    return len(killer.hits), other if checksums(folder) == good else len(killer.hits)


def kill_runs(run: Path, folder: Path, seconds: float, count: int) -> tuple[int, int]:
    """(runs killed with all their jobs, how many of them left other bytes, at once or in the end)."""
    shutil.copytree(run, folder, ignore=NOT_COPIED)
    edit(folder, RULES, WITHOUT, WITH_SERVER)
    rng, good, killed, other = random.Random(1), checksums(run), 0, 0
    for _ in range(count):
        process = start(folder, "--rerun-incomplete", apart=True)
        try:
            process.wait(rng.uniform(0.2, 0.8) * seconds / count)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            other += not looks_whole(folder).items() <= good.items()
        snakemake(folder, "--unlock")
    snakemake(folder, "--rerun-incomplete")
    return killed, other if checksums(folder) == good else killed


def _watched(folder: Path, killer: Killer, *options: str, check: bool = True) -> bool:
    """Run Snakemake under the killer's eyes; whether it ended well."""
    process = start(folder, *options)
    killer.watch(process)
    if check:
        assert process.returncode == 0, (folder / "output.txt").read_text()[-3000:]
    return process.returncode == 0
