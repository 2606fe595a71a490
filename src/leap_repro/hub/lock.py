"""The lock file: which commit and which bytes every hub source of the config stands for.

`leap-repro pin` writes it; every later fetch obeys it. An entry that contradicts the config is refused
by name, so that neither can drift from the other unseen. No heavy imports: every dry run reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.hub.client import listing
from leap_repro.hub.repository import RemoteFile, Repository
from leap_repro.store.atomic import write_json

LOCK_FILE = Path("hub.lock.json")
PIN = "`leap-repro pin`"
COMMIT = re.compile("[0-9a-f]{40}")
Lock = dict[str, dict[str, Any]]


def read_lock(path: Path = LOCK_FILE) -> Lock:
    """{"<kind>/<id>": {"asked", "revision", "files"}}; empty without a file, UserError for one that is not a lock."""
    if not path.is_file():
        return {}
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
        for entry in lock.values():
            _ = entry["asked"], entry["revision"], [(file["bytes"], file["sha256"]) for file in entry["files"].values()]
        return lock
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is not a lock file ({type(error).__name__}): delete it and run {PIN}") from error


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock, sorted, atomically."""
    write_json(path, lock)


def key(repository: Repository) -> str:
    """The name of a repository's entry."""
    return f"{repository.kind}s/{repository.id}"


def entry_of(repository: Repository, asked: str, files: list[RemoteFile]) -> dict[str, Any]:
    """What the lock says of a resolved repository and its files, all with their sha256."""
    return {
        "asked": asked,
        "revision": repository.revision,
        "files": {file.path: {"bytes": file.bytes, "sha256": file.sha256} for file in files},
    }


def hub_parts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a config's source that lie on the hub: itself, or its task sets. Each has an id and a revision."""
    own = list(spec["sets"].values()) if "sets" in spec else [spec] if spec.get("source") == "hub" else []
    return own + [part for part in spec.get("further", {}).values() if "id" in part]


def repositories(spec: dict[str, Any], kind: str) -> Iterator[Repository]:
    """The repositories of `hub_parts`, in that order."""
    for part in hub_parts(spec):
        yield Repository(kind, part["id"], part["revision"])


def obey(lock: Lock, asked: Repository) -> tuple[Repository, list[RemoteFile] | None]:
    """The repository at its pinned commit and, if it is locked, its pinned files.

    Raises UserError if the lock contradicts the config, or if an unlocked revision is only a name.
    """
    entry = lock.get(key(asked))
    if entry is None:
        if not COMMIT.fullmatch(asked.revision):
            raise UserError(
                f"{asked}: revision {asked.revision!r} is a name, which may move: run {PIN} "
                f"to lock it into {LOCK_FILE}, or give the commit's 40 digits"
            )
        return asked, None
    if asked.revision not in (entry["asked"], entry["revision"]):
        raise UserError(
            f"{asked}: the configuration requests revision {asked.revision}, but {LOCK_FILE} pins {entry['revision']} "
            f"(requested as {entry['asked']!r}): correct the configuration, or run {PIN}"
        )
    files = [RemoteFile(path, file["bytes"], file["sha256"]) for path, file in entry["files"].items()]
    return Repository(asked.kind, asked.id, entry["revision"]), files


def pinned_files(lock: Lock, asked: Repository) -> tuple[Repository, list[RemoteFile]]:
    """The commit and the files to choose from: those of the lock, else all that the hub lists at that commit."""
    repository, files = obey(lock, asked)
    return repository, listing(repository) if files is None else files


def check_lock(lock: Lock, specs: dict[str, list[dict[str, Any]]]) -> None:
    """UserError for the first source ({kind: specs}) that the lock contradicts, or that is pinned by neither."""
    for kind, sources in specs.items():
        for spec in sources:
            for repository in repositories(spec, kind):
                obey(lock, repository)


def lock_digest(lock: Lock, spec: dict[str, Any], kind: str) -> str:
    """A digest of the entries that a source depends on, for the params of its rule; "" if it depends on none."""
    entries = [lock.get(key(repository)) for repository in repositories(spec, kind)]
    if not any(entries):
        return ""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def check_expected(name: str, expected: dict[str, int] | None, found: dict[str, int]) -> None:
    """UserError if a size that the config expects differs from what came."""
    for what, number in (expected or {}).items():
        if found.get(what) != number:
            raise UserError(f"{name}: expect.{what} is {number}, but the fetched one has {found.get(what)}")
