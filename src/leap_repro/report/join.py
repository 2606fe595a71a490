"""`python -m leap_repro.report.join`: all models' results in one long-form parquet."""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.report.collect import RESULTS, read_models
from leap_repro.store.atomic import replacing
from leap_repro.store.sums import SUFFIX, write_sums


def main(arguments: argparse.Namespace) -> None:
    """Read, concatenate, write through a rename, and beside it the digest."""
    frame = read_models(arguments.root, arguments.models, RESULTS)
    with replacing(arguments.output) as temporary:
        frame.to_parquet(temporary, index=False)
    write_sums(arguments.output.with_suffix(SUFFIX), [arguments.output])


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.report.join", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="the scale's results folder")
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
