"""What is asked of a hub: a repository at a revision, and its files with their digests."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from leap_repro.store.hashes import sha256_of


@dataclass(frozen=True)
class Repository:
    """`kind` is "model" or "dataset"; `revision` is a commit of 40 digits, or a branch or tag before it is resolved."""

    kind: str
    id: str
    revision: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def page(self) -> str:
        """Where a browser finds it."""
        return f"{shown_endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository: bytes, and its sha256 or (small files of an unlocked revision) its git blob id."""

    path: str
    bytes: int
    sha256: str | None = None
    blob_id: str | None = None

    def matches(self, file: Path) -> bool:
        """Whether a file on this machine is this one, to the last bit."""
        if file.stat().st_size != self.bytes:
            return False
        return sha256_of(file) == self.sha256 if self.sha256 else _blob_id(file) == self.blob_id


def _blob_id(file: Path) -> str:
    """Git's name for a file's content: the sha1 over a short header and the bytes."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, else the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def shown_endpoint() -> str:
    """The same for messages: without a user's name and password, if it holds them."""
    return re.sub(r"(?<=://)[^/]*@", "", endpoint())
