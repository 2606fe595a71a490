"""Bring pinned files from a model hub, whole or not at all: the only module that talks to the network.

A file counts as fetched when its digest is the pinned one: the sha256 of the lock file, or, without a lock, what the
hub's own listing of that revision says (sha256 of large files, git's blob id of small ones). Downloads go through
huggingface_hub's cache, so that finished files survive a failed run and HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and
HF_TOKEN mean what they mean everywhere; ours are the digests, which it does not check, and the attempts beyond its own.
Every failure ends as one sentence that says what to do; no token is printed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from leap_repro.errors import UserError
from leap_repro.store.artifacts import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
ATTEMPTS = 4
WAIT_SECONDS = 2.0
TRANSIENT = (408, 429, 500, 502, 503, 504)
MODEL_FILES = re.compile(
    r"(config|generation_config|special_tokens_map|added_tokens|vocab|model\.safetensors\.index)\.json"
    r"|tokenizer[^/]*\.(json|model)|merges\.txt|chat_template\.(json|jinja)|model[^/]*\.safetensors"
)
"""What a model's repository is asked for: weights, tokenizer, configuration at its top; no code, no pickles."""
T = TypeVar("T")


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
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"


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


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def resolve(repository: Repository) -> Repository:
    """The repository at the 40-digit commit that its branch or tag stands for now."""
    with _plain_errors(repository):
        info = _persistently(
            lambda: _api().repo_info(repository.id, repo_type=repository.kind, revision=repository.revision)
        )
    return Repository(repository.kind, repository.id, info.sha)


def listing(repository: Repository) -> list[RemoteFile]:
    """All files of the revision with the hub's own digests."""
    from huggingface_hub.hf_api import RepoFile

    def read() -> list[RepoFile]:
        tree = _api().list_repo_tree(
            repository.id, recursive=True, revision=repository.revision, repo_type=repository.kind
        )
        return [item for item in tree if isinstance(item, RepoFile)]

    with _plain_errors(repository):
        items = read()  # the library itself tries this again and again
    return [RemoteFile(item.path, item.size, item.lfs.sha256 if item.lfs else None, item.blob_id) for item in items]


def matching(files: Iterable[RemoteFile], patterns: Iterable[str], repository: Repository) -> list[RemoteFile]:
    """The files that a pattern names, in the order of patterns and then of paths; UserError for one that names none."""
    files, found = sorted(files, key=lambda file: file.path), {}
    for pattern in patterns:
        hits = [file for file in files if fnmatch.fnmatchcase(file.path, pattern)]
        if not hits:
            raise UserError(f"{repository} at revision {repository.revision} has no file {pattern!r}")
        found |= {file.path: file for file in hits}
    return list(found.values())


def model_files(files: list[RemoteFile], repository: Repository) -> list[RemoteFile]:
    """The files of a hub repository that a model is made of; UserError if config or safetensors are missing."""
    wanted = [file for file in files if MODEL_FILES.fullmatch(file.path)]
    names = {file.path for file in wanted}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            f"{repository} at revision {repository.revision} must hold config.json and model*.safetensors: it has "
            f"{sorted(names)}"
        )
    return wanted


def download(repository: Repository, file: RemoteFile) -> Path:
    """The file in huggingface_hub's cache, its digest checked; a damaged one is fetched anew a few times.

    Raises UserError if it stays damaged.
    """
    for attempt in range(ATTEMPTS):
        with _plain_errors(repository, file.path):
            path = Path(_persistently(lambda again=attempt > 0: _cached(repository, file.path, again)))
        if file.matches(path):
            return path
        log.warning("%s: %s differs from its pinned digest", repository, file.path)
        if _offline():
            raise UserError(
                f"the cached copy of {file.path} of {repository} is damaged, and HF_HUB_OFFLINE forbids to fetch it "
                "anew: unset it once"
            )
    raise UserError(
        f"{file.path} of {repository} at revision {repository.revision} came damaged {ATTEMPTS} times: its digest is "
        f"not the pinned {file.sha256 or file.blob_id}; if the pin is wrong, run `python -m leap_repro.study.pin`"
    )


def place(cached: Path, target: Path) -> None:
    """Put a cached file where it is needed: a second name for the same bytes where that is possible, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(cached), target)
    except OSError:
        shutil.copyfile(cached, target)


def _cached(repository: Repository, path: str, force: bool) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(
        repository.id,
        path,
        repo_type=repository.kind,
        revision=repository.revision,
        endpoint=endpoint(),
        force_download=force and not _offline(),
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.is_offline_mode()


def _persistently(call: Callable[[], T]) -> T:
    """Call again after faults that pass by themselves (lost connections, wrong sizes, 408, 429, 5xx), a few times."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if attempt == ATTEMPTS - 1 or not _passing(_root(error)):
                raise
            log.warning("%s; attempt %d of %d", type(_root(error)).__name__, attempt + 1, ATTEMPTS)
            time.sleep(WAIT_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def _root(error: BaseException) -> BaseException:
    """What lies under huggingface_hub's wrappers "not in the cache" and "force download failed"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    wraps = isinstance(error, LocalEntryNotFoundError) or type(error) is ValueError
    return error.__cause__ if wraps and error.__cause__ else error


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _passing(error: BaseException) -> bool:
    from huggingface_hub.errors import FileMetadataError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled | FileMetadataError):
        return False
    return _status(error) in TRANSIENT or (_status(error) is None and (_lost(error) or _wrong_size(error)))


def _lost(error: BaseException) -> bool:
    import httpx2

    return isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError)


def _wrong_size(error: BaseException) -> bool:
    return isinstance(error, OSError) and "Consistency check failed" in str(error)


@contextmanager
def _plain_errors(repository: Repository, path: str | None = None) -> Iterator[None]:
    """Turn the library's errors into one sentence each."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = _sentence(_root(error), repository, path)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def _sentence(error: BaseException, repository: Repository, path: str | None) -> str | None:
    """What went wrong and what to do; None for an error that is not the hub's."""
    from huggingface_hub import errors

    what = f"{path} of {repository}" if path else str(repository)
    if isinstance(error, errors.GatedRepoError):  # a subclass of RepositoryNotFoundError: it must come first
        return _gated(repository)
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{endpoint()} knows no {repository}, or it is private: check the id; for a private one put a token that "
            "may read it into the environment variable HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {repository.revision!r}: see {repository.page}/commits/main"
    if isinstance(error, errors.EntryNotFoundError) and _status(error):
        return f"{repository} at revision {repository.revision} has no file {path!r}"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return f"{what} is not in the cache and HF_HUB_OFFLINE is set: unset it, or fetch once with a network"
    if isinstance(error, errors.FileMetadataError):
        return f"{endpoint()} does not answer as a model hub does (for {what}): check HF_ENDPOINT"
    return _sentence_by_status(error, what)


def _gated(repository: Repository) -> str:
    from huggingface_hub import get_token

    if get_token():
        return (
            f"{repository} is gated and the account of the token in HF_TOKEN has no access to it: accept its terms at "
            f"{repository.page} with that account, then run again"
        )
    return (
        f"{repository} is gated: accept its terms at {repository.page}, make a token with read access and put it into "
        "the environment variable HF_TOKEN"
    )


def _sentence_by_status(error: BaseException, what: str) -> str | None:
    status = _status(error)
    if status == 401:
        return f"{endpoint()} refused the token in HF_TOKEN (401) for {what}: make a new one"
    if status == 403:
        return f"{endpoint()} forbids {what} (403): the token in HF_TOKEN lacks the right to read it"
    if status == 429:
        return f"{endpoint()} still answers 429 (too many requests) for {what}: wait some minutes, or set HF_TOKEN"
    if status is not None:
        return f"{endpoint()} still answers {status} for {what}: try again later"
    if _wrong_size(error):
        return f"{what} came with a wrong size {ATTEMPTS} times: a proxy may cut it; try again later"
    if _lost(error):
        return (
            f"no connection to {endpoint()} for {what} ({type(error).__name__}): check the network, or let HF_ENDPOINT "
            "name a mirror"
        )
    return None
