"""`python -m leap_repro.models`: `fetch` brings one model into the results folder, `pin` writes the lock file."""

from __future__ import annotations

import argparse
import importlib
import logging
from pathlib import Path

from leap_repro.artifacts import writing
from leap_repro.cli import json_argument, run_stage
from leap_repro.errors import UserError
from leap_repro.lock import LOCK_FILE, check_expected, read_lock
from leap_repro.models.fetch import SOURCES, check_vocabulary, describe, fetch_hub
from leap_repro.provenance import provenance

log = logging.getLogger(__name__)


def fetch(arguments: argparse.Namespace) -> None:
    """Fetch by source, describe, write the manifest."""
    spec, source = arguments.spec, arguments.spec.get("source")
    if source not in {*SOURCES, "hub"}:
        raise UserError(f"model source {source!r} is not one of {sorted({*SOURCES, 'hub'})}")
    with writing(arguments.output, provenance(("leap_repro.models.__main__",), spec, {})) as (payload, facts):
        if source == "hub":
            revision = fetch_hub(spec, payload, read_lock(arguments.lock))
            facts |= describe(payload) | {"id": spec["id"], "revision": revision}
        else:
            SOURCES[source](spec, payload)
            facts |= describe(payload)
        check_vocabulary(payload)
        check_expected(str(spec.get("id", spec.get("path"))), spec.get("expect"), facts)
        log.info("%s: %s", arguments.output, facts)


def parser() -> argparse.ArgumentParser:
    """Both commands' arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.models", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("fetch", help="bring one model into the results folder")
    one.add_argument("--spec", required=True, type=json_argument, help='e.g. {"source": "path", "path": "/my/model"}')
    one.add_argument("--lock", type=Path, default=LOCK_FILE, help="the lock file that `pin` writes")
    one.add_argument("--output", required=True, type=Path)
    one.set_defaults(run=fetch)
    # By name: a change of `pin` must not make fetched models stale.
    importlib.import_module("leap_repro.models.pin").add_command(commands)
    return parser


if __name__ == "__main__":
    run_stage(lambda arguments: arguments.run(arguments), parser())
