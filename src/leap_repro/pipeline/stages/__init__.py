"""The stages that the workflow's rules run, one file each: arguments in, one artifact out."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from importlib import import_module

from leap_repro import cli
from leap_repro.portable import CHOICES, PORTABLE, pin, prepare_cuda, unpin

STAGES = tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def run_stage(name: str, arguments: list[str]) -> None:
    """Run the stage with its command line's arguments, in this process. The numerical libraries are pinned before the
    stage is imported and they with it, unless it is told `--bits native`; CUDA is told how to start either way."""
    prepare_cuda()
    pin() if bits_of(arguments) == PORTABLE else unpin()
    stage = import_module(f"{__name__}.{name}")
    sys.argv = [stage.__name__, *arguments]
    cli.run_stage(stage.main, stage.parser())


def bits_of(arguments: list[str]) -> str:
    """What `--bits` says, if anything: the stage's own parser comes with all that is to be pinned."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--bits", default=PORTABLE, choices=CHOICES)
    return parser.parse_known_args(arguments)[0].bits
