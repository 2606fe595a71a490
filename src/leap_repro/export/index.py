"""sparse.json: which tensors of a compressed export lie in which form and file, and what every file's sha256 is.

The weight files are called sparse-….safetensors, so that nothing that knows dense checkpoints only takes them for one.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from leap_repro.errors import UserError, reason
from leap_repro.export.forms import FORMS, Form
from leap_repro.store.hashes import sha256_of
from leap_repro.store.sealed import DIGEST, read_sealed, write_sealed

INDEX_FILE = "sparse.json"
PREFIX = "sparse-"
VERSION = 1
FILE_NAME = re.compile(rf"{PREFIX}[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
"""What a weight file may be called: a name within the folder. Anything else could be read, or written by `unpack`,
outside of it."""


@dataclass
class Index:
    """`files`: {name: {"bytes", "sha256"}}; `tensors`: {key: {"file", "shape", "kept"}} of those in parts, whose
    parts are called <key>.<part>; every other tensor lies in its file under its own name."""

    format: str
    files: dict[str, dict]
    tensors: dict[str, dict]
    version: int = VERSION

    @property
    def form(self) -> Form:
        """How the tensors are parted."""
        return FORMS[self.format]

    def write(self, folder: Path) -> None:
        """Count and hash the files, write the index."""
        for path in sorted(folder.glob(f"{PREFIX}*.safetensors")):
            self.files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        write_sealed(folder / INDEX_FILE, asdict(self))


def read_index(folder: Path) -> Index:
    """The index of a compressed export; UserError if there is none, if it was changed, if a weight file lies there that
    it does not name, or if it is of a form or version that is unknown here."""
    path = folder / INDEX_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if DIGEST in content:  # what an earlier release wrote has none
            content = read_sealed(path)
        index = Index(**content)
        _check_entries(index)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no index of a compressed export: {reason(error)}") from error
    if index.format not in [*FORMS] or index.version != VERSION:  # in a list, for it may be of any kind
        known = f"this reads {sorted(FORMS)}, version {VERSION}"
        raise UserError(f"{path} says format {index.format!r}, version {index.version}; {known}")
    unlisted = {file.name for file in folder.glob(f"{PREFIX}*.safetensors")} - set(index.files)
    if unlisted:
        raise UserError(f"{path} does not name {min(unlisted)}, which lies beside it: it is of another export")
    return index


def _check_entries(index: Index) -> None:
    """ValueError, TypeError or KeyError, by name, for a file or tensor that is not well described."""
    for name, entry in index.files.items():
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"the file name {name!r} is not of the form {PREFIX}<name>.safetensors")
        if not isinstance(entry["sha256"], str):
            raise TypeError(f"the sha256 of {name} is no text")
    for name, entry in index.tensors.items():
        if entry["file"] not in index.files or not _is_shape(entry["shape"]):
            raise ValueError(f"{name} is not well described")


def _is_shape(shape: Any) -> bool:
    """Whether it is a list of sizes whose product a file of this world can hold."""
    sizes = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    return sizes and math.prod(shape) < 2**48


def read_file(folder: Path, index: Index, name: str) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """({key: dense tensor}, metadata) of one weight file.

    Raises UserError if the file is missing or damaged, or does not hold what the index says.
    """
    path = folder / name
    if not path.is_file() or sha256_of(path) != index.files[name]["sha256"]:
        raise UserError(f"{path} is missing or differs from the sha256 in {INDEX_FILE}: copy it again")
    try:
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {key: file.get_tensor(key) for key in file.offset_keys()}, file.metadata()
        for key, entry in index.tensors.items():
            if entry["file"] == name:
                parts = {part: tensors.pop(f"{key}.{part}") for part in index.form.parts}
                tensors[key] = index.form.decode(parts, entry["shape"])
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not hold what {INDEX_FILE} says: {reason(error)}") from error
    return tensors, metadata
