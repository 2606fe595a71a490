"""`python tools/config_schema.py`: write the JSON schema by which editors check and explain the configuration."""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.pipeline.config import json_schema
from leap_repro.store.atomic import write_json

SCHEMA = Path("workflow/schemas/config.schema.json")


def main(arguments: argparse.Namespace) -> None:
    """Write the schema."""
    write_json(arguments.output, json_schema())


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python tools/config_schema.py", description=__doc__)
    parser.add_argument("--output", type=Path, default=SCHEMA)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
