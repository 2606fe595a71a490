"""`python -m leap_repro.report.times`: sum up the benchmark files of a run's jobs into the time table.

Jobs of tables and figures are left out: they take seconds, and which of them exist depends on the order of jobs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.pipeline.run_log import took
from leap_repro.report.render import Table

STAGES = ("models", "data", "calibration", "prune", "harden", "evaluate")
OF_CELLS = ("prune", "harden", "evaluate")
PER_METHOD = ("prune",)
UNKNOWN = "not measured"
"""The memory of several processes together."""


def read_benchmarks(
    folder: Path, cells: Sequence[str], shards: Sequence[str], pruned: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row per job. Other grids' jobs lie in the same folders: only `cells` (model/method/sparsity/seed) and
    `shards` of tokens (model/role/seed) are counted, and of prune jobs those of the cells `pruned`, if not of all.

    Columns: stage, method (of prune jobs), seconds on the clock, peak memory in MB.
    """
    own = {stage: set(cells) for stage in OF_CELLS} | {"calibration": set(shards)}
    own["prune"] = own["prune"] if pruned is None else set(pruned)
    rows = []
    for stage in STAGES:
        for path in sorted((folder / stage).rglob("*.tsv")):
            name = path.relative_to(folder / stage).with_suffix("").as_posix()
            if stage in own and name not in own[stage]:
                continue
            row = took(path)
            if row is None:
                raise UserError(f"{path} holds no benchmark row: delete it, and let its job run again")
            shown = name.split("/")[1] if stage in PER_METHOD else ""
            rows.append({"stage": stage, "method": shown, "seconds": row.seconds, "memory": row.peak_mb})
    return pd.DataFrame(rows)


def time_table(jobs: pd.DataFrame) -> Table:
    """Jobs, total and longest seconds, share of the total and peak memory, per stage and method."""
    grouped = jobs.astype({"memory": float}).groupby(["stage", "method"], sort=False)
    numbers = grouped.agg(
        jobs=("seconds", "size"), total=("seconds", "sum"), longest=("seconds", "max"), memory=("memory", "max")
    ).reset_index()
    numbers["share"] = 100 * numbers["total"] / numbers["total"].sum()
    shown = pd.DataFrame(
        {
            "Stage": numbers["stage"],
            "Method": numbers["method"],
            "Jobs": numbers["jobs"].astype(str),
            "Total (s)": numbers["total"].map("{:.0f}".format),
            "Longest (s)": numbers["longest"].map("{:.1f}".format),
            "Share": numbers["share"].map("{:.1f} %".format),
            "Peak memory (MB)": numbers["memory"].map("{:.0f}".format).replace("nan", UNKNOWN),
        }
    )
    notes = (
        f"Seconds are wall-clock times, summed over jobs that may run at once: {numbers['total'].sum():.0f} s in total."
    )
    notes += " Memory: resident memory of the largest process, including memory that it shares with others."
    return Table("Where the time goes", shown, numbers, notes=notes)


def main(arguments: argparse.Namespace) -> None:
    """Read the benchmark files and write the table."""
    found = read_benchmarks(arguments.benchmarks, arguments.cells, arguments.shards, arguments.pruned)
    time_table(found).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.report.times", description=__doc__)
    parser.add_argument("--benchmarks", required=True, type=Path, help="folder of the jobs' benchmark files")
    parser.add_argument("--cells", required=True, nargs="+", help="model/method/sparsity/seed of the cells that count")
    parser.add_argument("--pruned", nargs="+", help="those cells that were pruned; the others only harden logits again")
    parser.add_argument("--shards", required=True, nargs="*", help="model/role/seed of the token shards that they read")
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
