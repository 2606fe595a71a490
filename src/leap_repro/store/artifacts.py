"""How a stage leaves its result: `payload/` first, then `provenance.json`, then `manifest.json`, each atomically.

A folder that holds a manifest is whole: the payload is written into a temporary folder, moved into place in one rename
and hashed, and the manifest comes last. It says *what* the result is (files, sizes, sha256, facts) and nothing
of how it came about, so that code which changes without changing a result leaves the manifest identical and reruns
nothing downstream. How it came about (code fingerprint, versions, inputs) is in `provenance.json`. Both carry a digest
of themselves (`sealed.py`), and a payload that holds anything the manifest does not list is refused: what reads whole
folders (a tokenizer, task sets) would read that too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.store.atomic import share, write_json
from leap_repro.store.hashes import is_as_recorded, sha256_of
from leap_repro.store.sealed import read_sealed, write_sealed

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
PAYLOAD = "payload"
DELETED = "deleted.json"
"""What was deleted of a whole artifact on purpose: {payload file: bytes}."""
SUFFIX = ".safetensors"
MASK_FILE = f"mask{SUFFIX}"
"""The hard mask of a cell: here, because its sha256 is asked for without any need to unpack it."""
NOT_OURS = (".snakemake_timestamp",)
"""What Snakemake leaves in every folder that is an output."""


@dataclass
class Artifact:
    """One stage's result in a folder: `read` opens an existing one, `writing` makes a new one. `to_be_sure`: its large
    files are hashed at every reading (`hashes.py`)."""

    folder: Path
    facts: dict[str, Any]
    files: dict[str, dict[str, Any]]
    to_be_sure: bool = False

    @property
    def payload(self) -> Path:
        return self.folder / PAYLOAD

    def file(self, name: str) -> Path:
        """The path of a payload file, its sha256 checked against the manifest; UserError if it is damaged."""
        path = self.payload / name
        if name not in self.files:
            raise UserError(f"{self.folder / MANIFEST} lists no file {name!r}; it has {sorted(self.files)}")
        if not path.is_file() and (self.folder / DELETED).is_file():
            raise UserError(
                f"{path} was deleted by clean_up: to make it again, run `snakemake --cores all --force "
                f"{self.folder / MANIFEST}` by itself, then what you ran before"
            )
        recorded = self.files[name]["sha256"]
        if not path.is_file() or not is_as_recorded(self.folder, path, recorded, self.to_be_sure):
            raise UserError(
                f"{path} is missing or differs from its manifest's sha256: delete {self.folder} and run again"
            )
        return path

    def delete(self, names: list[str]) -> int:
        """Delete these payload files for good, which a reader is told; returns the bytes that there were."""
        there = {name: self.files[name]["bytes"] for name in names if (self.payload / name).is_file()}
        if there:
            write_json(self.folder / DELETED, there)
        for name in there:
            (self.payload / name).unlink()
        return sum(there.values())

    def verified_payload(self, without: str | None = None) -> Path:
        """The payload folder after every file in it has been checked, but those with the suffix `without`."""
        for name in self.files:
            if without is None or not name.endswith(without):
                self.file(name)
        return self.payload

    @property
    def manifest_sha256(self) -> str:
        return sha256_of(self.folder / MANIFEST)

    def provenance(self) -> dict[str, Any]:
        """How it came about, as `provenance.json` says; UserError if that is not there or was changed."""
        return _read(self.folder / PROVENANCE)

    @classmethod
    def read(cls, folder: str | Path, to_be_sure: bool = False) -> Artifact:
        """Open the artifact in `folder` (or the one of a manifest's path); UserError if there is no whole one, or if
        its manifest was changed or does not list all that is there."""
        folder = Path(folder)
        if folder.name == MANIFEST:
            folder = folder.parent
        manifest = _read(folder / MANIFEST)
        if manifest.keys() != {"facts", "files"}:
            raise UserError(f"{folder / MANIFEST} is not a manifest, it has {sorted(manifest)}: delete {folder}")
        unlisted = next(_unlisted(folder / PAYLOAD, manifest["files"]), None)
        if unlisted is not None:
            raise UserError(f"{unlisted} is not in the {MANIFEST} of {folder}: delete it, or {folder} and run again")
        return cls(folder, manifest["facts"], manifest["files"], to_be_sure)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.parent} holds no {path.name}: it is incomplete")
    try:
        return read_sealed(path)
    except UserError as error:
        raise UserError(f"{error}: delete {path.parent} and run again") from error


def _unlisted(payload: Path, files: Iterable[str]) -> Iterator[Path]:
    """What lies in the payload and is neither one of the files nor a folder above one; links are followed."""
    listed = {payload / name for name in files}
    listed |= {parent for path in listed for parent in path.parents}
    for folder, folders, names in os.walk(payload, followlinks=True):
        for name in sorted([*folders, *names]):
            path = Path(folder, name)
            if path not in listed and name not in NOT_OURS:
                yield path


def _clear_remains(folder: Path) -> None:
    """Take away what a killed job left half written: temporary names, which all begin with a dot."""
    for path in folder.glob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _listing(payload: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(path for path in payload.rglob("*") if path.is_file())
    return {str(path.relative_to(payload)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}


@contextmanager
def writing(folder: str | Path, provenance: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (temporary payload folder, facts to fill); publish payload, provenance and manifest on a clean exit."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in (MANIFEST, DELETED):
        (folder / left).unlink(missing_ok=True)
    _clear_remains(folder)
    temporary = share(Path(tempfile.mkdtemp(prefix=".payload-", dir=folder)))
    facts: dict[str, Any] = {}
    try:
        yield temporary, facts
        files = _listing(temporary)
        shutil.rmtree(folder / PAYLOAD, ignore_errors=True)
        os.replace(temporary, folder / PAYLOAD)
        write_sealed(folder / PROVENANCE, provenance)
        write_sealed(folder / MANIFEST, {"facts": facts, "files": files})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
