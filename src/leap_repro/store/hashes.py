"""The sha256 of files; of large ones worked out once and then believed, within bounds that docs/trust.md states.

What was found is kept in a hidden file beside the artifact: for which inode, size and modification time, and how often
it has been believed since. Whatever changes a file through the file system changes one of the three; a bit that flips
on the disk changes none, so every EVERY-th reading, and every one that is to be sure, hashes again. The jobs that make
numbers final are sure: a hash that is good then was good when the others read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from leap_repro.store.atomic import share

LARGE = 64 * 2**20
"""Bytes; a smaller file is hashed at every reading, in a tenth of a second."""
EVERY = 16
KNOWN = ".known-sha256.json"
SETTLED = 2 * 10**9
"""Nanoseconds: a file that changed less than that ago may change again within one tick of its clock."""


def sha256_of(path: Path) -> str:
    """The sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_as_recorded(folder: Path, path: Path, sha256: str, to_be_sure: bool = False) -> bool:
    """Whether a file of the artifact in `folder` has this sha256: as was found before, where that may be believed."""
    found = path.stat()
    if found.st_size < LARGE:
        return sha256_of(path) == sha256
    known, name = _read(folder / KNOWN), str(path.relative_to(folder))
    state = [found.st_ino, found.st_size, found.st_mtime_ns]
    last = known.get(name, {})
    same = last.get("state") == state and last["sha256"] == sha256
    if not to_be_sure and same and last["believed"] < EVERY - 1:
        entry = last | {"believed": last["believed"] + 1}
    else:
        entry = {"state": state, "believed": 0, "sha256": sha256_of(path)}
    if time.time_ns() - found.st_mtime_ns > SETTLED:
        _write(folder / KNOWN, known | {name: entry})
    return entry["sha256"] == sha256


def _read(path: Path) -> dict[str, Any]:
    """What is known; nothing if the file is not there or not readable."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {name: entry for name, entry in known.items() if _is_entry(entry)}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_entry(entry: Any) -> bool:
    """Whether it is what this module writes."""
    kinds = {"state": list, "believed": int, "sha256": str}
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())


def _write(path: Path, known: dict[str, Any]) -> None:
    """Replace what is known; jobs that do so at once may lose a count, and a folder that is read only knows nothing."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{KNOWN}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1, sort_keys=True)
        os.replace(share(Path(temporary)), path)
    except OSError:
        return
