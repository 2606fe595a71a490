"""`python -m leap_repro.report.front_page`: write the first page of the report, the main table and the forest plot.

The page is one piece of HTML without other files; workflow/report/workflow.rst includes it.
"""

from __future__ import annotations

import argparse
import base64
import re
from html import escape
from pathlib import Path

from leap_repro.cli import run_stage
from leap_repro.errors import UserError
from leap_repro.store.atomic import write_text

BODY = re.compile(r"<table.*</table>|<p>.*?</p>", re.DOTALL)
CONTAINER = "div.items-center.h-screen.overflow-auto"
"""What holds a page in Snakemake's report. It centres what it holds, and cuts off the top of what is taller than it."""
STYLE = (
    f"{CONTAINER}:has(.front){{align-items:flex-start}}"
    ".front{width:calc(100vw - 21rem);position:relative;z-index:9;background:#fff;overflow-x:auto;font-size:12px}"
    ".front table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".front th,.front td{padding:.1rem .5rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}"
    ".front th:nth-child(-n+2),.front td:nth-child(-n+2){text-align:left}"
    ".front caption{text-align:left;font-weight:600}.front img{max-width:min(100%,60rem);margin-top:1rem}"
)


def front_page(table: str, figures: list[tuple[str, bytes]]) -> str:
    """`table` is a page that a table wrote: of it comes the table itself, then `figures`, (what each shows, PNG), then
    the table's notes. UserError if the page holds no table."""
    parts = BODY.findall(table)
    if not parts or not parts[0].startswith("<table"):
        raise UserError("the main table's page holds no table: build it again")
    images = [
        f'<img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for title, png in figures
    ]
    return "\n".join([f'<style>{STYLE}</style>\n<div class="front">', parts[0], *images, *parts[1:], "</div>\n"])


def main(arguments: argparse.Namespace) -> None:
    """Read table and figures, write the page."""
    figures = [(path.stem, path.read_bytes()) for path in arguments.figures]
    write_text(arguments.output, front_page(arguments.table.read_text(encoding="utf-8"), figures))


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m leap_repro.report.front_page", description=__doc__)
    parser.add_argument("--table", required=True, type=Path, help="the main table as HTML")
    parser.add_argument("--figures", nargs="*", default=[], type=Path, help="PNG figures below the table")
    parser.add_argument("--output", required=True, type=Path)
    return parser


if __name__ == "__main__":
    run_stage(main, parser())
