"""Pin repositories of a hub: their commits, and the sha256 of every file that is asked of them, into the lock file."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from leap_repro.hub.client import download, listing, matching, model_files, resolve
from leap_repro.hub.lock import Lock, entry_of, key, write_lock
from leap_repro.hub.repository import RemoteFile, Repository
from leap_repro.store.hashes import sha256_of

log = logging.getLogger(__name__)
Wanted = dict[Repository, list[str] | None]
"""The repositories to pin, each with the patterns of its files; None: what a model is made of."""


def pin_repository(asked: Repository, patterns: list[str] | None) -> tuple[Repository, list[RemoteFile]]:
    """Resolve one repository; the sha256 of small files, which the hub does not list, comes from fetching them."""
    repository = resolve(asked)
    files = listing(repository)
    wanted = model_files(files, repository) if patterns is None else matching(files, patterns, repository)
    return repository, [
        file if file.sha256 else replace(file, sha256=sha256_of(download(repository, file))) for file in wanted
    ]


def pin_all(wanted: Wanted, lock: Lock, path: Path) -> Lock:
    """Pin every repository, then write the lock in one go: entries of others stay as they are."""
    for asked, patterns in tqdm(wanted.items(), desc="pinning", unit="repository"):
        repository, files = pin_repository(asked, patterns)
        lock[key(repository)] = entry_of(repository, asked.revision, files)
        log.info("%s: %s, %d files", repository, repository.revision, len(files))
    write_lock(path, lock)
    return lock
