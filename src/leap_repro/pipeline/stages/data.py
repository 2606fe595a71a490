"""`python -m leap_repro.pipeline data`: fetch one text, or the task sets, into the results folder as parquet."""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.cli import json_argument
from leap_repro.data.tasks import fetch_tasks
from leap_repro.data.text import fetch_text
from leap_repro.hub.lock import LOCK_FILE, read_lock
from leap_repro.pipeline.provenance import provenance
from leap_repro.store.artifacts import writing

ROLES = ("calibration", "mask_training", "perplexity", "tasks")


def main(arguments: argparse.Namespace) -> None:
    """Fetch by role, write the manifest."""
    origin = provenance(("leap_repro.pipeline.stages.data",), arguments.spec, {})
    fetch = fetch_tasks if arguments.role == "tasks" else fetch_text
    with writing(arguments.output, origin) as (
        payload,
        facts,
    ):
        facts |= fetch(arguments.spec, payload, read_lock(arguments.lock))


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline data", description=__doc__)
    parser.add_argument("--role", required=True, choices=ROLES, help="what the data are for")
    parser.add_argument("--spec", required=True, type=json_argument, help='e.g. {"source": "path", "path": "my.txt"}')
    parser.add_argument("--lock", type=Path, default=LOCK_FILE, help="the lock file that `leap-repro pin` writes")
    parser.add_argument("--output", required=True, type=Path)
    return parser
