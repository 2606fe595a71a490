"""Bring pinned files from a model hub, whole or not at all: the only module that talks to the network.

A file counts as fetched when its digest is the pinned one: the sha256 of the lock file, or, without a lock, what the
hub's own listing of that revision says (sha256 of large files, git's blob id of small ones). Downloads go through
huggingface_hub's cache, so that finished files survive a failed run and HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and
HF_TOKEN mean what they mean everywhere; ours are the digests, which it does not check, and the attempts beyond its own.
Every failure ends as one sentence that says what to do; no token is printed.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from leap_repro.errors import UserError
from leap_repro.hub.faults import ATTEMPTS, persistently, plain_errors
from leap_repro.hub.repository import RemoteFile, Repository, endpoint
from leap_repro.hub.session import guard_token

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
MODEL_FILES = re.compile(
    r"(config|generation_config|special_tokens_map|added_tokens|vocab|model\.safetensors\.index)\.json"
    r"|(preprocessor|video_preprocessor|image_processor|processor)_config\.json"
    r"|tokenizer[^/]*\.(json|model)|merges\.txt|chat_template\.(json|jinja)|model[^/]*\.safetensors"
)
"""The files that are fetched of a model: weights, tokenizer, processor, configuration; no code, no pickles."""


def _api() -> HfApi:
    from huggingface_hub import HfApi

    guard_token()
    return HfApi(endpoint=endpoint())


def resolve(repository: Repository) -> Repository:
    """The repository at the 40-digit commit that its branch or tag stands for now."""
    with plain_errors(repository):
        info = persistently(
            lambda: _api().repo_info(repository.id, repo_type=repository.kind, revision=repository.revision)
        )
    if info.sha is None:
        raise UserError(f"the hub names no commit for {repository} at {repository.revision!r}")
    return Repository(repository.kind, repository.id, info.sha)


def listing(repository: Repository) -> list[RemoteFile]:
    """All files of the revision with the hub's own digests."""
    from huggingface_hub.hf_api import RepoFile

    def read() -> list[RepoFile]:
        tree = _api().list_repo_tree(
            repository.id, recursive=True, revision=repository.revision, repo_type=repository.kind
        )
        return [item for item in tree if isinstance(item, RepoFile)]

    with plain_errors(repository):
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
        with plain_errors(repository, file.path):
            path = Path(persistently(lambda again=attempt > 0: _cached(repository, file.path, again)))
        if file.matches(path):
            return path
        log.warning("%s: %s differs from its pinned digest", repository, file.path)
        if _offline():
            raise UserError(
                f"the cached copy of {file.path} of {repository} is damaged, and HF_HUB_OFFLINE forbids fetching it "
                "again: unset it once"
            )
    raise UserError(
        f"{file.path} of {repository} at revision {repository.revision} arrived damaged {ATTEMPTS} times: its digest "
        f"is not the pinned {file.sha256 or file.blob_id}; if the pin is wrong, run `leap-repro pin`"
    )


def _cached(repository: Repository, path: str, force: bool) -> str:
    from huggingface_hub import hf_hub_download

    guard_token()
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
