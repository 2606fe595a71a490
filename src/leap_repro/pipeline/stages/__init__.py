"""The stages that the workflow's rules run, one file each: arguments in, one artifact out."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

from leap_repro import cli

STAGES = tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def run_stage(name: str, arguments: list[str]) -> None:
    """Run the stage with its command line's arguments, in this process."""
    stage = import_module(f"{__name__}.{name}")
    sys.argv = [stage.__name__, *arguments]
    cli.run_stage(stage.main, stage.parser())
