"""How long planning takes when the grid is large: time and memory of a dry run of a synthetic study.

`python benchmarks/dag_scale.py` plans 100 models x 10 methods x 5 sparsities x 3 seeds (15,000 cells, more than 45,000
jobs) and parts of it in scratch copies, each once as it is and once under a profiler, and writes the figures to
benchmarks/dag_scale.md: the time of the whole, and how much of it is spent in this project's own functions. A quadratic
one would take a growing share of a growing grid.
"""

from __future__ import annotations

import argparse
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
OURS = re.compile(r"/(src/leap_repro/.+|workflow/rules/\w+\.smk)$")
SHOWN = 8  # of our functions, those in which most time is spent
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
    (folder / "config.yaml").write_text(yaml.safe_dump(synthetic(models)), encoding="utf-8")


def dry_run(models: int, profile: Path | None = None, quiet: bool = False) -> dict[str, float]:
    """Cells, jobs, seconds on the clock and of CPU, and peak memory in MB of one `snakemake -n`.

    With `profile`, it runs under cProfile, which writes its figures there. `quiet` prints the plan only, no jobs.
    """
    profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
    with tempfile.TemporaryDirectory() as folder:
        scratch_copy(Path(folder), models)
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *profiler, "-m", "snakemake", "-n", "--nocolor", "--cores", "1", *["--quiet"] * quiet],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    total = re.search(r"^total +(\d+)", output, re.MULTILINE) or re.search(r"^all +(\d+)", output, re.MULTILINE)
    if status or not total:
        raise RuntimeError(output[-2000:])
    return {
        "models": models,
        "cells": models * 10 * len(SPARSITIES) * len(SEEDS),
        "jobs": int(total[1]),
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def own_functions(profile: Path) -> dict[str, tuple[int, float]]:
    """{function: (calls, seconds)} of this project's functions, "in all" (no second twice), and of "everything".

    A function's seconds include what it calls; in all are those of the calls that Snakemake and Python make.
    """
    stats = pstats.Stats(str(profile))
    found: dict[str, tuple[int, float]] = {}
    entered = 0.0
    for (path, _, name), (_, calls, _, seconds, callers) in stats.stats.items():
        place = OURS.search(path)
        if place and name != "<module>":
            title = f"{Path(place[1]).name}: {name}"
            before = found.get(title, (0, 0.0))
            found[title] = (before[0] + calls, before[1] + seconds)
            entered += sum(call[3] for caller, call in callers.items() if not _is_ours(caller))
    return found | {"in all": (0, entered), "everything": (0, stats.total_tt)}


def _is_ours(function: tuple[str, int, str]) -> bool:
    return bool(OURS.search(function[0])) and function[2] != "<module>"


HEADER = """# Planning a large grid

Made by `python benchmarks/dag_scale.py`: dry runs (`snakemake -n`) of a synthetic study of ten methods, five sparsities
and three seeds, nothing done yet. Python {python}, {cores} cores with other work beside it: the CPU seconds count.
`snakemake -n --quiet` prints the plan alone, not a paragraph for each job.

| models | cells | jobs | seconds | CPU seconds | of them with `--quiet` | CPU ms per job | peak memory (MB) |
|---:|---:|---:|---:|---:|---:|---:|---:|
"""
ROW = (
    "| {models} | {cells} | {jobs} | {seconds:.0f} | {cpu_seconds:.0f} | {quiet_seconds:.0f} | {ms_per_job:.2f} "
    "| {peak_mb:.0f} |\n"
)
OWN = """
## This project's own functions

The same dry runs under cProfile, which makes them about twice as long: calls and seconds on the clock, what a function
calls included, of the {shown} functions in which most time is spent at {most} models. What is done for every job grows
as the grid does, what reads the code and the configuration is done once, and nothing grows faster.

"""


def report(rows: list[dict[str, float]], own: list[dict[str, tuple[int, float]]]) -> str:
    """The figures as a Markdown page."""
    lines = [ROW.format(ms_per_job=1000 * row["cpu_seconds"] / row["jobs"], **row) for row in rows]
    page = HEADER.format(python=platform.python_version(), cores=os.cpu_count()) + "".join(lines)
    return page + own_table([int(row["models"]) for row in rows], own)


def own_table(models: list[int], own: list[dict[str, tuple[int, float]]]) -> str:
    """Our functions of the largest study, slowest first, with calls and seconds in every study."""
    sums = ("in all", "everything")
    names = sorted(own[-1].keys() - set(sums), key=lambda name: -own[-1][name][1])[:SHOWN]
    columns = "".join(f" {count} models: calls | seconds |" for count in models)
    lines = [OWN.format(shown=SHOWN, most=models[-1]), f"| function |{columns}\n|---|{'---:|' * 2 * len(models)}\n"]
    for name in [*names, *sums]:
        cells = [found.get(name, (0, 0.0)) for found in own]
        title = {"in all": "**all of ours**", "everything": "**with Snakemake**"}.get(name, f"`{name}`")
        lines.append(f"| {title} |" + "".join(f" {calls or ''} | {seconds:.2f} |" for calls, seconds in cells) + "\n")
    return "".join(lines)


def main() -> None:
    """Measure every size, as it is and under the profiler, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=MODELS)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "dag_scale.md")
    arguments = parser.parse_args()
    rows, own = [], []
    with tempfile.TemporaryDirectory() as folder:
        for models in sorted(arguments.models):
            rows.append(dry_run(models) | {"quiet_seconds": dry_run(models, quiet=True)["cpu_seconds"]})
            print(rows[-1], flush=True)
            profile = Path(folder) / f"{models}.prof"
            dry_run(models, profile)
            own.append(own_functions(profile))
            print({name: own[-1][name] for name in ("in all", "everything")}, flush=True)
    arguments.output.write_text(report(rows, own), encoding="utf-8")


if __name__ == "__main__":
    main()
