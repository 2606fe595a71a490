"""sparse.json: which tensors of a compressed export lie in which form and file, and what every file's sha256 is.

The weight files are called sparse-….safetensors, so that nothing that knows dense checkpoints only takes them for one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from leap_repro.errors import UserError, reason
from leap_repro.export.forms import FORMS, QUANTISED, Form, Packed, form_of
from leap_repro.store.hashes import sha256_of
from leap_repro.store.sealed import DIGEST, read_sealed, write_sealed

INDEX_FILE = "sparse.json"
PREFIX = "sparse-"
KNOWN = f"{sorted(FORMS)} of version 1, and of version 2 {Packed.name!r} with values {sorted(QUANTISED)}"
FILE_NAME = re.compile(rf"{PREFIX}[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
"""What a weight file may be called: a name within the folder. Anything else could be read, or written by `unpack`,
outside of it."""
Parts = dict[str, Tensor]
"""{part: tensor} of a pruned tensor."""


@dataclass
class Index:
    """`files`: {name: {"bytes", "sha256"}}; `tensors`: {key: {"file", "shape", "kept"}} of those in parts, whose
    parts are called <key>.<part>; every other tensor lies in its file under its own name.

    With quantised `values` an entry has besides how many kept values `became_zero`, and whether the parts are those of
    the tensor `transposed`, inputs last, which then is their `shape`.
    """

    format: str
    files: dict[str, dict]
    tensors: dict[str, dict]
    version: int = 0
    values: str | None = None

    def __post_init__(self) -> None:
        self.version = self.version or (2 if self.values else 1)

    @property
    def form(self) -> Form:
        """How the tensors are parted."""
        return form_of(self.format, self.values)

    def encode(self, key: str, file: str, tensor: Tensor, mask: Tensor, transposed: bool) -> Parts:
        """A pruned tensor's parts, noted here; `transposed`: its inputs come before its outputs."""
        entry: dict[str, Any] = {"file": file, "kept": int(mask.sum())}
        if self.values and transposed:
            tensor, mask = tensor.mT.contiguous(), mask.mT.contiguous()
            entry["transposed"] = True
        parts = self.form.encode(key, tensor, mask)
        if self.values:
            entry["became_zero"] = int(tensor.count_nonzero() - parts["kept"].count_nonzero())
        self.tensors[key] = entry | {"shape": list(tensor.shape)}
        return parts

    def decode(self, key: str, parts: Parts) -> Tensor:
        """The tensor as it is in the checkpoint; ValueError or RuntimeError if the parts do not fit together."""
        entry = self.tensors[key]
        tensor = self.form.decode(parts, entry["shape"])
        return tensor.mT.contiguous() if entry.get("transposed") else tensor

    def write(self, folder: Path) -> None:
        """Count and hash the files, write the index."""
        for path in sorted(folder.glob(f"{PREFIX}*.safetensors")):
            self.files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        write_sealed(folder / INDEX_FILE, {name: value for name, value in asdict(self).items() if value is not None})


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
        raise UserError(f"{path} is not an index of a compressed export: {reason(error)}") from error
    if not _is_known(index):
        said = f"format {index.format!r}, version {index.version!r}, values {index.values!r}"
        raise UserError(f"{path} has {said}; this version reads {KNOWN}")
    unlisted = {file.name for file in folder.glob(f"{PREFIX}*.safetensors")} - set(index.files)
    if unlisted:
        raise UserError(f"{path} does not name {min(unlisted)}, which is beside it: it belongs to another export")
    return index


def _is_known(index: Index) -> bool:
    """Whether format, version and values, each of which may be of any kind, are those of one layout."""
    said = [index.format, index.version, index.values]
    return said in [[name, 1, None] for name in FORMS] + [[Packed.name, 2, values] for values in QUANTISED]


def _check_entries(index: Index) -> None:
    """ValueError, TypeError or KeyError, by name, for a file or tensor that is not well described."""
    for name, entry in index.files.items():
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"the file name {name!r} is not of the form {PREFIX}<name>.safetensors")
        if not isinstance(entry["sha256"], str):
            raise TypeError(f"the sha256 of {name} is not a text")
    for name, entry in index.tensors.items():
        turned, is_known = entry.get("transposed", False), entry["file"] in index.files
        if not is_known or not _is_shape(entry["shape"]) or turned not in (False, len(entry["shape"]) > 1):
            raise ValueError(f"the entry of {name} is not valid")


def _is_shape(shape: Any) -> bool:
    """Whether it is a list of sizes whose product a file of this world can hold."""
    sizes = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    return sizes and math.prod(shape) < 2**48


def verified(folder: Path, index: Index, name: str) -> Path:
    """The weight file of that name; UserError if it is missing or not the one that was written."""
    path = folder / name
    if not path.is_file() or sha256_of(path) != index.files[name]["sha256"]:
        raise UserError(f"{path} is missing or differs from the sha256 in {INDEX_FILE}: copy it again")
    return path


def read_file(folder: Path, index: Index, name: str) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """({key: dense tensor}, metadata) of one weight file.

    Raises UserError if the file is missing or damaged, or does not hold what the index says.
    """
    path = verified(folder, index, name)
    with said_by(path):
        with safe_open(path, framework="pt") as file:
            tensors, metadata = {key: file.get_tensor(key) for key in file.offset_keys()}, file.metadata()
        for key, entry in index.tensors.items():
            if entry["file"] == name:
                parts = {part: tensors.pop(f"{key}.{part}") for part in index.form.parts}
                tensors[key] = index.decode(key, parts)
    return tensors, metadata


@contextmanager
def said_by(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a file's content into a UserError that names it."""
    try:
        yield
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} does not hold what {INDEX_FILE} says: {reason(error)}") from error
