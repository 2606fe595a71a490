"""One table in four forms: Markdown and HTML to read, CSV to compute with, LaTeX to paste. Best values are bold.

HTML, CSV and LaTeX are pandas'. Markdown is ours: tabulate, which pandas calls, pads every cell to its column's width,
so that one longer number would change every line of a table that lies in the repository.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from leap_repro.store.atomic import write_text
from leap_repro.store.sums import SUFFIX, write_sums

LATEX_SPECIAL = {mark: rf"\{mark}" for mark in "&%_#${}"}
LATEX_SPECIAL |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
LATEX_SPECIAL |= {
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "↓": r"$\downarrow$",
    "ρ": r"$\rho$",
    "†": r"\dag{}",
}
"""What LaTeX would take for a command, or has no letter for."""
MARKDOWN_SPECIAL = {"|": r"\|", "<": "&lt;", "$": r"\$", "`": r"\`", "\\": "\\\\", "\n": " ", "\r": " "}
"""What would end a cell, begin a tag or a comment, or be set as a formula or as code."""

HTML_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;margin:1.5rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;font-weight:600;padding-bottom:.6rem}"
    "th,td{padding:.3rem .8rem;text-align:right;white-space:nowrap}"
    "th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}"
    "thead th{border-bottom:2px solid #1a1a1a}tbody td{border-bottom:1px solid #ddd}"
    "p{max-width:50rem;color:#444}"
)

LONG_WORDS = "th:nth-child(-n+N),td:nth-child(-n+N){text-align:left;white-space:normal}"


@dataclass
class Table:
    """`shown` holds the cells as text, `numbers` the same rows and columns unrounded, `bold` which to set in bold. The
    first `words` columns are words, on the left; the others are numbers, on the right."""

    caption: str
    shown: pd.DataFrame
    numbers: pd.DataFrame
    bold: set[tuple[int, str]] = field(default_factory=set)
    notes: str = ""
    words: int = 2

    def markdown(self) -> str:
        """A pipe table with its caption above and its notes below."""
        text = self._text("**{}**".format, _markdown)
        right = ["---" if index < self.words else "---:" for index in range(len(text.columns))]
        body = "\n".join("| " + " | ".join(line) + " |" for line in [text.columns, right, *text.to_numpy()])
        notes = f"\n{_markdown(self.notes)}\n" if self.notes else ""
        return f"{_markdown(self.caption)}\n\n{body}\n{notes}"

    def html(self) -> str:
        """A page of its own that needs nothing else: Snakemake's report shows it in a frame."""
        table = self._text("<b>{}</b>".format, escape).to_html(index=False, escape=False, border=0)
        tag, rest = table.split("\n", 1)
        wrapped = LONG_WORDS.replace("N", str(self.words)) if self.words > 2 else ""
        return (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(self.caption)}</title>\n'
            f"<style>{HTML_STYLE}{wrapped}</style>\n{tag}\n<caption>{escape(self.caption)}</caption>\n{rest}\n"
            f"<p>{escape(self.notes)}</p>\n</html>\n"
        )

    def latex(self) -> str:
        """A booktabs table environment."""
        columns = "l" * self.words + "r" * (len(self.shown.columns) - self.words)
        style = self._text(r"\textbf{{{}}}".format, _latex).style.hide(axis="index")
        caption = _latex(self.caption)
        return style.to_latex(hrules=True, position_float="centering", column_format=columns, caption=caption)

    def write(self, stem: Path) -> None:
        """Write <stem>.md, <stem>.html, <stem>.csv and <stem>.tex, and <stem>.sha256 with their digests."""
        texts = {
            "md": self.markdown(),
            "html": self.html(),
            "csv": self.numbers.to_csv(index=False),
            "tex": self.latex(),
        }
        files = {Path(f"{stem}.{suffix}"): text for suffix, text in texts.items()}
        for file, text in files.items():
            write_text(file, text)
        write_sums(Path(f"{stem}{SUFFIX}"), files)

    def _text(self, embolden: Callable[[str], str], escape: Callable[[str], str] = str) -> pd.DataFrame:
        """Every cell as it is shown, head and all escaped, the best in bold."""
        rows = [
            [
                embolden(escape(cell)) if (index, column) in self.bold else escape(cell)
                for column, cell in zip(self.shown.columns, row, strict=True)
            ]
            for index, row in enumerate(self.shown.to_numpy())
        ]
        return pd.DataFrame(rows, columns=[escape(column) for column in self.shown.columns])


def _latex(text: str) -> str:
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def _markdown(text: str) -> str:
    return "".join(MARKDOWN_SPECIAL.get(character, character) for character in text)
