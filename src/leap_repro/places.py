"""Places that a person names: whose home is meant, and whether a folder can be made and written there.
Looked at before anything is computed, so that a run does not end at its last step."""

from __future__ import annotations

import os
from pathlib import Path

from leap_repro.errors import UserError, shown


def expanded(path: Path, key: str) -> Path:
    """The path with ~ replaced by the home folder; UserError, which names the `key`, for one of nobody."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{key} is {shown(str(path))}; there is no such home folder") from error


def check_makable(folder: Path, key: str = "") -> None:
    """UserError, which begins with the `key`, unless the folder is there or can be made, and may be
    written into."""
    place, called = folder.absolute(), f"{key} {shown(str(folder), str)}".strip()
    existing = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "a file" if existing.exists() else "a link to nothing"
        raise UserError(f"{called} cannot be made: {existing} is {what}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{called} cannot be written: no write permission for {existing}")
    longest = os.pathconf(existing, "PC_NAME_MAX")
    if any(len(os.fsencode(name)) > longest for name in place.relative_to(existing).parts):
        raise UserError(f"{called} cannot be made: a name may have {longest} bytes at most")
