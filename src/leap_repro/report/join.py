"""`python -m leap_repro.report.join`: join all models' results in one long-form parquet, their answers in another."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from leap_repro.cli import run_stage
from leap_repro.report.answers import answers_table
from leap_repro.report.collect import OUTCOMES, RESULTS, read_models
from leap_repro.store.atomic import replacing
from leap_repro.store.sums import SUFFIX, write_sums


def main(arguments: argparse.Namespace) -> None:
    """Read, join, write each table through a rename, and beside it its digest."""
    write(read_models(arguments.root, arguments.models, RESULTS), arguments.output)
    write(answers_table(read_models(arguments.root, arguments.models, OUTCOMES)), arguments.answers)


def write(frame: pd.DataFrame, path: Path) -> None:
    """One table as parquet, and its digest."""
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")
    write_sums(path.with_suffix(SUFFIX), [path])


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.report.join", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="the scale's results folder")
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument("--output", required=True, type=Path, help="the results, one row per cell and metric")
    parser.add_argument("--answers", required=True, type=Path, help="the answers, one row per question")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
