"""Single files, written whole or not at all: under a hidden name first, so that no reader sees half of one.

Ours, because the libraries for it are no longer kept, and because what writes most of these files (pyarrow, matplotlib,
safetensors) wants a path, not an open file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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


def place(source: Path, target: Path) -> None:
    """Put a file where it is needed too: a second name for the same bytes where the file systems allow it, else a copy.

    Safe for what is replaced and never edited, as everything here is; an edit in place would be seen under both names.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def share(path: Path) -> Path:
    """Give a file, or a folder, the permissions that the umask would have given it; returns the path.

    safetensors and tempfile make theirs for the owner alone, whatever the umask says.
    """
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())
    return path


@cache
def _umask() -> int:
    """The process's umask; one can only ask for it by setting it, so it is asked once."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
