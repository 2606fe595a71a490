"""How long planning takes when the grid is large: time and memory of a dry run of a synthetic study.

`python benchmarks/dag_scale.py` plans 100 models x 10 methods x 5 sparsities x 3 seeds (15,000 cells, more than 45,000
jobs) and parts of it in scratch copies, and writes the figures to benchmarks/dag_scale.md. `--profile` prints where the
time goes instead, ours and Snakemake's, for the smallest part.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import platform
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = (10, 30, 100)
SPARSITIES = [0.5, 0.6, 0.7, 0.8, 0.9]
SEEDS = [0, 1, 2]
BUNDLED = "llama3.2-1b-mini"


def synthetic(models: int) -> dict[str, Any]:
    """A study of `models` models and ten methods, one of them learned from another's masks."""
    text = {"source": "bundled", "split": "calibration"}
    methods = {f"wanda-{index}": {"module": "wanda"} for index in range(9)}
    methods["leap"] = {"module": "leap", "warm_start": "wanda-0"}
    scale = {
        "models": {f"model-{index}": {"source": "bundled", "name": BUNDLED} for index in range(models)},
        "data": {role: text for role in ("calibration", "mask_training", "perplexity")}
        | {"tasks": {"source": "bundled"}},
        "calibration": {"sequences": 8, "length": 32},
        "mask_training": {"sequences": 8, "length": 32},
        "evaluation": {"perplexity_lengths": [32], "batch_size": 8},
        "threads": 1,
        "methods": list(methods),
        "sparsities": SPARSITIES,
        "seeds": SEEDS,
    }
    return {"scale": "synthetic", "methods": methods, "scales": {"synthetic": scale}}


def scratch_copy(folder: Path, models: int) -> None:
    """What a dry run needs, with the synthetic configuration in the place of the real one."""
    for name in ("workflow", "src", "envs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(REPOSITORY / "Snakefile", folder / "Snakefile")
    (folder / "config.yaml").write_text(yaml.safe_dump(synthetic(models)), encoding="utf-8")


def dry_run(models: int) -> dict[str, float]:
    """Cells, jobs, seconds on the clock and of CPU, and peak memory in MB of one `snakemake -n`."""
    with tempfile.TemporaryDirectory() as folder:
        scratch_copy(Path(folder), models)
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "-n", "--nocolor", "--cores", "1"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(output[-2000:])
    return {
        "models": models,
        "cells": models * 10 * len(SPARSITIES) * len(SEEDS),
        "jobs": int(re.search(r"^total +(\d+)", output, re.MULTILINE)[1]),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


HEADER = """# Planning a large grid

Made by `python benchmarks/dag_scale.py`: dry runs (`snakemake -n`) of a synthetic study of ten methods, five sparsities
and three seeds, nothing done yet. Python {python}, {cores} cores with other work beside it: the CPU seconds count.

| models | cells | jobs | seconds | CPU seconds | CPU ms per job | peak memory (MB) |
|---:|---:|---:|---:|---:|---:|---:|
"""
ROW = "| {models} | {cells} | {jobs} | {seconds:.0f} | {cpu_seconds:.0f} | {ms_per_job:.2f} | {peak_mb:.0f} |\n"


def report(rows: list[dict[str, float]]) -> str:
    """The figures as a Markdown page."""
    lines = [ROW.format(ms_per_job=1000 * row["cpu_seconds"] / row["jobs"], **row) for row in rows]
    return HEADER.format(python=platform.python_version(), cores=os.cpu_count()) + "".join(lines)


def profile(models: int) -> None:
    """Print the functions in which a dry run spends its time."""
    from snakemake.cli import main as snakemake

    with tempfile.TemporaryDirectory() as folder:
        scratch_copy(Path(folder), models)
        os.chdir(folder)
        profiler = cProfile.Profile()
        with contextlib.suppress(SystemExit):
            profiler.runcall(snakemake, ["-n", "--quiet", "--cores", "1"])
        stats = pstats.Stats(profiler).sort_stats("cumulative")
        stats.print_stats(r"leap_repro|\.smk", 20)
        stats.sort_stats("tottime").print_stats(25)


def main() -> None:
    """Measure, or profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--models", type=int, nargs="+", default=MODELS)
    arguments = parser.parse_args()
    if arguments.profile:
        profile(min(arguments.models))
        return
    rows = []
    for models in arguments.models:
        rows.append(dry_run(models))
        print(rows[-1], flush=True)
    (REPOSITORY / "benchmarks" / "dag_scale.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
