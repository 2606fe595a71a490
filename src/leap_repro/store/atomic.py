"""Single files, written whole or not at all: under a hidden name first, so that no reader sees half of one.

Ours, because the libraries for it are no longer kept, and because what writes most of these files (pyarrow, matplotlib,
safetensors) wants a path, not an open file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside `path`, with its suffix; on a clean exit what was written there takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
