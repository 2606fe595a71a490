"""`python -m leap_repro.export.unpack`: write the dense checkpoint of a compressed export, equal to the dense export to
the byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.export.write import unpack
from leap_repro.places import expanded


def main(arguments: argparse.Namespace) -> None:
    """Check, decode, write."""
    unpack(arguments.folder, expanded(arguments.output, "--output"))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.export.unpack", description=__doc__)
    parser.add_argument("folder", type=Path, help="the compressed export")
    parser.add_argument("--output", required=True, type=Path, help="the checkpoint folder to write")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
