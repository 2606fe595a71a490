"""A hub's faults: those that pass by themselves are sat out, any other ends as a sentence that says what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from leap_repro.errors import UserError
from leap_repro.hub.repository import Repository, shown_endpoint

log = logging.getLogger(__name__)
ATTEMPTS = 4
WAIT_SECONDS = 2.0
TRANSIENT = (408, 429, 500, 502, 503, 504)
T = TypeVar("T")


def persistently(call: Callable[[], T]) -> T:
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
def plain_errors(repository: Repository, path: str | None = None) -> Iterator[None]:
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

    what, hub = f"{path} of {repository}" if path else str(repository), shown_endpoint()
    if isinstance(error, errors.GatedRepoError):  # a subclass of RepositoryNotFoundError: it must come first
        return _gated(repository)
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{hub} knows no {repository}, or it is private: check the id; for a private one put a token that "
            "may read it into the environment variable HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {repository.revision!r}: see {repository.page}/commits/main"
    if isinstance(error, errors.EntryNotFoundError) and _status(error):
        return f"{repository} at revision {repository.revision} has no file {path!r}"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return f"{what} is not in the cache and HF_HUB_OFFLINE is set: unset it, or fetch once with a network"
    if isinstance(error, errors.FileMetadataError):
        return f"{hub} does not answer as a model hub does (for {what}): check HF_ENDPOINT"
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
    status, hub = _status(error), shown_endpoint()
    if status == 401:
        return f"{hub} refused the token in HF_TOKEN (401) for {what}: create a new one"
    if status == 403:
        return f"{hub} forbids {what} (403): the token in HF_TOKEN lacks the right to read it"
    if status == 429:
        return f"{hub} still answers 429 (too many requests) for {what}: wait some minutes, or set HF_TOKEN"
    if status is not None:
        return f"{hub} still answers {status} for {what}: try again later"
    if _wrong_size(error):
        return f"{what} arrived with a wrong size {ATTEMPTS} times: a proxy may truncate it; try again later"
    if _lost(error):
        return (
            f"no connection to {hub} for {what} ({type(error).__name__}): check the network, or set HF_ENDPOINT "
            "to a mirror"
        )
    return None
