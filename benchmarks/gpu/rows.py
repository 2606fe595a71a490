"""What is measured, a JSON object on a line, written the moment it is known.

A row's key says what was measured. What has a row of this machine and commit is not measured again.
A measurement that fails leaves a row with `error`: the next goes on, the next run tries it again.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ERROR = "error"
LONGEST_ERROR = 300


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """The rows of some files in order; a last line that was cut off is left out."""
    found = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                print(f"{path}: left out a line that is no JSON: {line[:60]!r}", file=sys.stderr)
    return found


class Rows:
    """The rows of one run: `facts` stand in each; nothing begins `seconds` after the start."""

    def __init__(
        self,
        path: Path,
        facts: Row,
        known: Iterable[Row] = (),
        seconds: float = inf,
    ) -> None:
        self.path, self.facts, self.end = path, facts, time.monotonic() + seconds
        earlier = [*known, *read_rows([path] if path.exists() else [])]
        self.rows = [row for row in earlier if facts.items() <= row.items() and ERROR not in row]

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def measured(self, key: Row) -> Row | None:
        """The row of this key, if it is there."""
        return next((row for row in self.rows if key.items() <= row.items()), None)

    def measure(self, key: Row, work: Callable[[], Row], again: bool = False) -> None:
        """Add the row of `key` with what `work` returns, unless the time is over, or it is there and not
        asked for `again`."""
        if self.measured(key) and not again:
            return
        if self.left <= 0:
            print(f"no time left for {json.dumps(key)}", file=sys.stderr, flush=True)
            return
        began = time.monotonic()
        try:
            found = work()
        except Exception as error:
            self.failed(key, error)
        else:
            self._add(key | found | {"took_seconds": time.monotonic() - began})

    def failed(self, key: Row, error: Exception) -> None:
        """Add a row that says why there is none."""
        traceback.print_exception(error)
        self._add(key | {ERROR: f"{type(error).__name__}: {error}"[:LONGEST_ERROR]})

    def _add(self, row: Row) -> None:
        """Print the row, and put it onto the disk before anything else happens."""
        whole = {name: rounded(value) for name, value in row.items()} | self.facts
        if ERROR not in whole:
            self.rows.append(whole)
        line = json.dumps(whole)
        print(line, flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def rounded(value: Any) -> Any:
    """Six significant digits of every number in it."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return value
