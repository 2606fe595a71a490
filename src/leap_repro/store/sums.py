"""Digests of files that are no artifact's, in a file beside them as `sha256sum` writes and checks it:
a flipped bit in a page of a parquet file is read as another number, without an error."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from leap_repro.errors import UserError, reason
from leap_repro.store.atomic import write_text
from leap_repro.store.hashes import sha256_of

SUFFIX = ".sha256"
"""Of the digests of one table or figure, which has files of several suffixes."""
ALL = "SHA256SUMS"
"""The digests of all files of a published folder."""


def write_sums(sums: Path, files: Iterable[Path]) -> None:
    """Write the digests of files that lie beside `sums`."""
    lines = [f"{sha256_of(file)}  {file.name}\n" for file in files]
    write_text(sums, "".join(lines))


def checked_files(sums: Path) -> list[Path]:
    """The files that `sums` lists; UserError, naming it, if one is missing or was changed, or if
    `sums` cannot be read."""
    files = []
    try:
        lines = sums.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"{sums} cannot be read: {reason(error)}") from error
    for line in lines:
        sha256, _, name = line.partition("  ")
        path = sums.parent / name
        if not name or not path.is_file() or sha256_of(path) != sha256:
            raise UserError(f"{path} is missing or was changed: it differs from its sha256 in {sums}")
        files.append(path)
    return files


def checked_file(path: Path) -> Path:
    """The path of a file that has its digest beside it; UserError if it has none, or was changed."""
    for sums in (path.with_suffix(SUFFIX), path.parent / ALL):
        if sums.is_file():
            if path not in checked_files(sums):
                raise UserError(f"{path} is not listed in {sums}: it cannot be checked")
            return path
    names = f"{path.with_suffix(SUFFIX).name} or {ALL}"
    raise UserError(f"{path} has no digest beside it ({names}): it cannot be checked")
