"""`python -m leap_repro.pipeline harden`: turn a pruner's output into bit-packed masks, checked against the budget."""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.harden.cell import harden_cell
from leap_repro.harden.tensors import RULES
from leap_repro.pipeline.provenance import provenance
from leap_repro.store.artifacts import Artifact, writing


def main(arguments: argparse.Namespace) -> None:
    """Harden, check, pack, write."""
    pruned = Artifact.read(arguments.pruned, to_be_sure=True)
    origin = provenance(("leap_repro.pipeline.stages.harden",), {"rule": arguments.rule}, {"pruned": pruned})
    cell = harden_cell(pruned, arguments.cell, arguments.rule)
    with writing(arguments.output, origin) as (payload, facts):
        cell.write(payload)
        facts |= cell.facts


def parser() -> argparse.ArgumentParser:
    """The stage's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.pipeline harden", description=__doc__)
    parser.add_argument("--pruned", required=True, type=Path, help="folder that the prune stage wrote")
    parser.add_argument("--rule", default="exact", choices=RULES, help="how logits become a mask")
    parser.add_argument("--cell", required=True, help="the cell's name, for messages")
    parser.add_argument("--output", required=True, type=Path)
    return parser
