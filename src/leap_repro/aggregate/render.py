"""One table in four forms: Markdown and HTML to read, CSV to compute with, LaTeX to paste. Best values are bold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from leap_repro.store.atomic import write_text

LATEX_SPECIAL = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "−": "$-$", "↓": r"$\downarrow$"}

HTML_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;margin:1.5rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;font-weight:600;padding-bottom:.6rem}"
    "th,td{padding:.3rem .8rem;text-align:right;white-space:nowrap}"
    "th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}"
    "thead th{border-bottom:2px solid #1a1a1a}tbody td{border-bottom:1px solid #ddd}"
    "p{max-width:50rem;color:#444}"
)


@dataclass
class Table:
    """`shown` holds the cells as text, `numbers` the same rows and columns unrounded, `bold` which to set in bold."""

    caption: str
    shown: pd.DataFrame
    numbers: pd.DataFrame
    bold: set[tuple[int, str]] = field(default_factory=set)
    notes: str = ""

    def markdown(self) -> str:
        """A pipe table with its caption above and its notes below."""
        rows = [self._cells(index, "**{}**".format) for index in range(len(self.shown))]
        right = ["---" if index < 2 else "---:" for index in range(len(self.shown.columns))]
        lines = [list(self.shown.columns), right, *rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.caption}\n\n{body}\n" + (f"\n{self.notes}\n" if self.notes else "")

    def html(self) -> str:
        """A page of its own that needs nothing else: Snakemake's report shows it in a frame."""
        head = "".join(f"<th>{escape(column)}</th>" for column in self.shown.columns)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{cell}</td>" for cell in self._cells(index, "<b>{}</b>".format, escape)) + "</tr>"
            for index in range(len(self.shown))
        )
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(self.caption)}</title>\n'
            f"<style>{HTML_STYLE}</style>\n<table>\n<caption>{escape(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n<p>{escape(self.notes)}</p>\n</html>\n"
        )

    def latex(self) -> str:
        """A booktabs table environment."""
        columns = "ll" + "r" * (len(self.shown.columns) - 2)
        head = " & ".join(_escape(column) for column in self.shown.columns)
        rows = [
            " & ".join(self._cells(index, r"\textbf{{{}}}".format, _escape)) + r" \\"
            for index in range(len(self.shown))
        ]
        body = "\n".join(rows)
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{_escape(self.caption)}}}\n\\begin{{tabular}}{{{columns}}}\n"
            f"\\toprule\n{head} \\\\\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )

    def write(self, stem: Path) -> None:
        """Write <stem>.md, <stem>.html, <stem>.csv and <stem>.tex."""
        write_text(Path(f"{stem}.md"), self.markdown())
        write_text(Path(f"{stem}.html"), self.html())
        write_text(Path(f"{stem}.csv"), self.numbers.to_csv(index=False))
        write_text(Path(f"{stem}.tex"), self.latex())

    def _cells(self, index: int, embolden: Callable[[str], str], escape: Callable[[str], str] = str) -> list[str]:
        row = self.shown.iloc[index]
        return [
            embolden(escape(row[column])) if (index, column) in self.bold else escape(row[column])
            for column in self.shown.columns
        ]


def _escape(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)
