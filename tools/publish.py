"""`python tools/publish.py`: copy a run's tables and figures into the repository and into its pages.

Every file is compared with the digest that was written beside it, and the published folder gets the digests of all.
Pages show what a run wrote, never what someone typed: each block between `<!-- NAME -->` and `<!-- /NAME -->` is
replaced by the file NAME, a path from the top of the repository. A test holds the pages to those files.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd
from summary import summary

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.report.pages import filled
from leap_repro.store.atomic import write_text
from leap_repro.store.sums import ALL, SUFFIX, checked_file, checked_files, write_sums

MACHINE = "machine.md"
FURTHER = ("extended", "evidence")
"""The grids whose results lie in a folder of their own."""
SUMMARY = Path("figures/summary.md")
"""The README's table."""


def publish_files(root: Path, target: Path) -> None:
    """Put tables, figures, results, answers and the machine of the grid in `root` in the place of `target`'s files.

    UserError if its run is not finished, if a file was changed since it was written, or a table and a figure have one
    name. The tables' HTML is left: only Snakemake's report shows it.
    """
    if not (root / "results.parquet").is_file():
        raise UserError(f"{root} holds no results.parquet: run `snakemake --cores all` first")
    joined = [checked_file(root / name) for name in ("results.parquet", "answers.parquet")]
    found = [*joined, *whole(root / "tables"), *whole(root / "figures")]
    sources = {path.name: path for path in found if path.suffix != ".html"}
    for path in found:
        if sources.get(path.name, path) != path:
            raise UserError(f"{path} and {sources[path.name]} have one name: published, one would replace the other")
    target.mkdir(parents=True, exist_ok=True)
    for old in filter(Path.is_file, target.iterdir()):
        old.unlink()
    for name, source in sources.items():
        shutil.copyfile(source, target / name)
    write_text(target / MACHINE, computed_on(pd.read_parquet(root / "results.parquet")))
    write_sums(target / ALL, [target / name for name in sorted([*sources, MACHINE])])


def whole(folder: Path) -> list[Path]:
    """The files of a folder of tables or figures; UserError for one that was changed, or that has no digest."""
    listed = {file for sums in folder.glob(f"*{SUFFIX}") for file in checked_files(sums)}
    found = sorted(path for path in folder.iterdir() if path.suffix != SUFFIX)
    for path in found:
        if path not in listed:
            raise UserError(f"{path} has no digest beside it, as what the run writes has: delete it and run again")
    return found


def computed_on(results: pd.DataFrame) -> str:
    """A sentence for each machine on which cells were evaluated: processor, threads, GPU, versions, number of cells."""
    cells = results.drop_duplicates(["model", "method", "sparsity_target", "seed"])
    sentences = []
    for key, made in cells.groupby(["machine", "versions", "bits"], sort=True):
        found, versions = (json.loads(str(part)) for part in key[:2])
        by, bits = ", ".join(f"{name} {version}" for name, version in versions.items()), key[2]
        gpu = f" and {found['gpu']}" if "gpu" in found else ""
        cells_on, threads = _counted(len(made), "cell"), _counted(found["threads"], "thread")
        where = f"{found['cpu']} ({found['instructions']}){gpu}"
        sentences.append(f"{cells_on} on {where}, {threads} a job, {bits} bits; with {by}.")
    return f"Computed by commit {', '.join(sorted(set(cells['git_commit'])))}: " + " ".join(sentences) + "\n"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def main(arguments: argparse.Namespace) -> None:
    """Copy the default grid, and each further one beside it that was run (else it stays), make the README's
    table, then fill the pages."""
    publish_files(arguments.root, arguments.target)
    for grid in FURTHER:
        if (arguments.root / grid / "results.parquet").is_file():
            publish_files(arguments.root / grid, arguments.target / grid)
    write_text(SUMMARY, summary(pd.read_csv(arguments.target / "evidence/main.csv")))
    for page in arguments.pages:
        write_text(page, filled(page.read_text(encoding="utf-8"), Path.cwd()))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python tools/publish.py", description=__doc__)
    parser.add_argument("--root", required=True, type=Path, help="the scale's results folder")
    parser.add_argument("--target", required=True, type=Path, help="the folder that is committed")
    parser.add_argument("--pages", required=True, type=Path, nargs="+", help="Markdown pages with marked blocks")
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
