"""Where the time goes: `python -m leap_repro.aggregate.times` sums up Snakemake's benchmark files."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from leap_repro.aggregate.render import Table
from leap_repro.cli import run_stage

STAGES = ("models", "data", "calibration", "prune", "harden", "evaluate", "aggregate", "figures")
OF_CELLS = ("prune", "harden", "evaluate")
PER_METHOD = ("prune",)


def read_benchmarks(folder: Path, methods: list[str]) -> pd.DataFrame:
    """One row per job, those of cells only if their method is one of `methods`.

    Columns: stage, method (of prune jobs), seconds on the clock, peak memory in MB.
    """
    rows = []
    for stage in STAGES:
        for path in sorted((folder / stage).rglob("*.tsv")):
            method = path.relative_to(folder / stage).parts[1] if stage in OF_CELLS else ""
            if method and method not in methods:
                continue
            line = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
            shown = method if stage in PER_METHOD else ""
            rows.append({"stage": stage, "method": shown, "seconds": line["s"], "memory": line["max_rss"]})
    return pd.DataFrame(rows)


def time_table(jobs: pd.DataFrame) -> Table:
    """Jobs, total and longest seconds, share of the total and peak memory, per stage and method."""
    grouped = jobs.groupby(["stage", "method"], sort=False)
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
            "Peak memory (MB)": numbers["memory"].map("{:.0f}".format),
        }
    )
    notes = f"Seconds on the clock, summed over jobs that ran side by side: {numbers['total'].sum():.0f} s in all."
    return Table("Where the time goes", shown, numbers, notes=notes)


def main(arguments: argparse.Namespace) -> None:
    """Read the benchmark files and write the table."""
    time_table(read_benchmarks(arguments.benchmarks, arguments.methods)).write(arguments.output)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.aggregate.times", description=__doc__)
    parser.add_argument("--benchmarks", required=True, type=Path, help="folder of Snakemake's benchmark files")
    parser.add_argument("--methods", required=True, nargs="+", help="the methods whose cells count")
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
