"""`python examples/real/publish.py`: copy tables and figure of the run into published/ and into the page."""

from __future__ import annotations

import shutil
from pathlib import Path

from leap_repro.errors import UserError
from leap_repro.report.pages import filled
from leap_repro.store.atomic import write_text

TABLES = Path("results/real/tables")
HERE = Path(__file__).parent
PUBLISHED = HERE / "published"


def main() -> None:
    """Copy everything that score.smk and trials.py wrote; UserError if they have not run."""
    if not (TABLES / "verdict.csv").is_file():
        raise UserError(f"{TABLES} holds no verdict.csv: run score.smk first")
    shutil.rmtree(PUBLISHED, ignore_errors=True)
    shutil.copytree(TABLES, PUBLISHED)
    page = HERE / "README.md"
    write_text(page, filled(page.read_text(encoding="utf-8"), HERE.parents[1]))


if __name__ == "__main__":
    main()
