"""`python -m leap_repro.pipeline models`: fetch one model into the results folder."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from leap_repro.cli import json_argument
from leap_repro.hub.lock import LOCK_FILE, check_expected, read_lock
from leap_repro.models.checkpoint import read_config
from leap_repro.models.examine import describe, examine
from leap_repro.models.shares import ALLOWED
from leap_repro.models.sizes import refuse_other_shape
from leap_repro.models.sources import source_of
from leap_repro.pipeline.provenance import provenance
from leap_repro.store.artifacts import writing

log = logging.getLogger(__name__)


def main(arguments: argparse.Namespace) -> None:
    """Fetch by source, examine, describe, write the manifest."""
    spec, source = arguments.spec, source_of(arguments.spec)
    with writing(arguments.output, provenance(("leap_repro.pipeline.stages.models",), spec, {})) as (payload, facts):
        known = source.fetch(spec, payload, read_lock(arguments.lock))
        facts |= describe(examine(payload, spec.get("allow_dense_share", ALLOWED)), payload) | known
        check_expected(source.name(spec), spec.get("expect"), facts)
        refuse_other_shape(source.name(spec), spec.get("shape"), read_config(payload))
        log.info("%s: %s", arguments.output, facts)


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline models", description=__doc__)
    parser.add_argument("--spec", required=True, type=json_argument, help='{"source": "path", "path": "/my/model"}')
    parser.add_argument("--lock", type=Path, default=LOCK_FILE, help="the lock file that `leap-repro pin` writes")
    parser.add_argument("--output", required=True, type=Path)
    return parser
