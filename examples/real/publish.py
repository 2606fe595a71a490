"""`python examples/real/publish.py`: copy tables and figure of the run into published/ and into the page.

`--results` and `--example` name another example's, e.g. results/bridge and examples/bridge.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from leap_repro.errors import UserError
from leap_repro.report.pages import filled
from leap_repro.store.atomic import write_text

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Copy everything that score.smk and trials.py wrote; UserError if they have not run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results/real"))
    parser.add_argument("--example", type=Path, default=HERE, help="folder of the page")
    given = parser.parse_args()
    tables, published = given.results / "tables", given.example / "published"
    if not (tables / "verdict.csv").is_file():
        raise UserError(f"{tables} holds no verdict.csv: run score.smk first")
    shutil.rmtree(published, ignore_errors=True)
    shutil.copytree(tables, published)
    page = given.example / "README.md"
    write_text(page, filled(page.read_text(encoding="utf-8"), HERE.parents[1]))


if __name__ == "__main__":
    main()
