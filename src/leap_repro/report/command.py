"""The command line that tables share, and the frames that they are made of."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from leap_repro.cli import json_argument
from leap_repro.report.collect import OUTCOMES, RESULTS, read_models


def table_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every table's command takes."""
    parser = argparse.ArgumentParser(prog=f"python -m leap_repro.report.{module}", description=description)
    parser.add_argument("--root", required=True, type=Path, help="results folder of a scale, or its extended grid's")
    parser.add_argument("--models", required=True, nargs="+")
    parser.add_argument(
        "--methods",
        required=True,
        type=json_argument,
        help='{method: {"module": …, "label": …, "variant_of": … or null, "changes": …, "seeded": true}}',
    )
    parser.add_argument("--stands-for", type=json_argument, default={}, help="{model: its name in published tables}")
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser


def read(arguments: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, outcomes) of the models."""
    return tuple(read_models(arguments.root, arguments.models, name) for name in (RESULTS, OUTCOMES))
