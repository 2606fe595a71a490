"""Rows as tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from gpu.rows import Row

Columns = dict[str, Callable[[Row], Any]]
"""What stands in a row's cell, by the heading of its column."""


def table(rows: Iterable[Row], columns: Columns) -> str:
    """A pipe table of the rows, empty without one; columns without any value are left out."""
    cells = [[_shown(value(row)) for value in columns.values()] for row in rows]
    if not cells:
        return ""
    used = [index for index in range(len(columns)) if any(line[index] for line in cells)]
    head = [list(columns)[index] for index in used]
    body = [[line[index] for index in used] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)


def fields(*names: str, **headings: str) -> Columns:
    """Columns of the rows' own fields, by their names in words or by other headings."""
    words = {name: name.replace("_", " ") for name in names} | headings
    return {word: lambda row, name=name: row.get(name) for name, word in words.items()}


def of_part(part: str, columns: Columns) -> Callable[[list[Row]], str]:
    """The table of a part's rows."""
    return lambda rows: table((row for row in rows if row["part"] == part), columns)
