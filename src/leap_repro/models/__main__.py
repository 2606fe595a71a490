"""`python -m leap_repro.models`: bring one model into the results folder and describe it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from leap_repro.artifacts import writing
from leap_repro.cli import json_argument, run_stage
from leap_repro.errors import UserError
from leap_repro.models.fetch import SOURCES, describe
from leap_repro.provenance import provenance

log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    """Fetch by source, describe, write the manifest."""
    source = arguments.spec.get("source")
    if source not in SOURCES:
        raise UserError(f"model source {source!r} is not one of {sorted(SOURCES)}")
    with writing(arguments.output, provenance(("leap_repro.models.__main__",), arguments.spec, {})) as (payload, facts):
        SOURCES[source](arguments.spec, payload)
        facts |= describe(payload)
        log.info("%s: %s", arguments.output, facts)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.models", description=__doc__)
    parser.add_argument(
        "--spec", required=True, type=json_argument, help='e.g. {"source": "path", "path": "/my/model"}'
    )
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
