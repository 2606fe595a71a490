"""`python -m leap_repro.aggregate.publish`: copy a run's tables and figures into the repository and into its README.

The README shows what a run wrote, never what someone typed: each block between `<!-- NAME -->` and `<!-- /NAME -->` is
replaced by the file NAME. A test holds the README to the published files.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from leap_repro.artifacts import write_text
from leap_repro.cli import run_stage
from leap_repro.errors import UserError

BLOCK = re.compile(r"<!-- (?P<name>\S+\.md) -->\n.*?<!-- /(?P=name) -->", re.DOTALL)


def publish_files(root: Path, target: Path) -> None:
    """Copy tables, figures and results.parquet; UserError if the run is not finished."""
    sources = [root / "results.parquet", *sorted((root / "tables").iterdir()), *sorted((root / "figures").iterdir())]
    if not sources[0].is_file():
        raise UserError(f"{root} holds no results.parquet: run `snakemake --cores` first")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for source in sources:
        shutil.copyfile(source, target / source.name)


def filled(readme: str, target: Path) -> str:
    """The README's text with every marked block replaced by the published file of its name."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- {name} -->\n{(target / name).read_text(encoding='utf-8').strip()}\n<!-- /{name} -->"

    return BLOCK.sub(block, readme)


def main(arguments: argparse.Namespace) -> None:
    """Copy, then fill the README."""
    publish_files(arguments.root, arguments.target)
    write_text(arguments.readme, filled(arguments.readme.read_text(encoding="utf-8"), arguments.target))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.aggregate.publish", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="the scale's results folder")
    parser.add_argument("--target", required=True, type=Path, help="the folder that is committed")
    parser.add_argument("--readme", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
