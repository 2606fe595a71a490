"""Who computes on which GPU of this machine: a lock on a file for each, which the kernel frees when its holder dies.

A job takes its devices exclusively and then shares them with the processes that it starts: so another's exclusive lock
fails until the last of them is gone, however it ended. Nothing here is a daemon, and nothing needs to be cleaned up.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from leap_repro.errors import UserError
from leap_repro.pipeline.launch.devices import Device

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
SAY_SECONDS = 300.0
LEASED = "LEAP_REPRO_LEASED"
"""The files of a job's devices, for the processes that it starts: a JSON list, in the order of their local ranks."""


@dataclass(frozen=True)
class Lease:
    """Devices that are this process's while `locks` (file descriptors, by device) are open."""

    devices: list[Device]
    files: list[Path]
    locks: list[int]


def lease(count: int, candidates: list[Device], folder: Path | None = None) -> Lease:
    """`count` of the candidates, as soon as so many are free; jobs that choose among the same ones come in turn.

    Raises UserError if there are not so many, or if `folder`, where the locks are, cannot be written or
    is not ours alone: it lies where everybody may make one of that name.
    """
    if count > len(candidates):
        raise UserError(f"this job needs {count} GPUs and may use {len(candidates)} here: {_names(candidates)}")
    folder = folder or Path(tempfile.gettempdir()) / f"leap-repro-devices-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        return _when_free(count, candidates, folder)
    except OSError as error:
        raise _unusable(folder, str(error.strerror)) from error


def share(file: Path) -> int:
    """The file descriptor of a lock on the file of a device that this process's parent holds; it survives an exec."""
    lock = _open(file)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def leased_files(lease: Lease) -> str:
    """What LEASED must be for the processes that share this lease."""
    return json.dumps([str(file) for file in lease.files])


def _when_free(count: int, candidates: list[Device], folder: Path) -> Lease:
    queue = hashlib.sha256(_names(sorted(candidates, key=lambda device: device.name)).encode()).hexdigest()[:16]
    waiting = _Waiting(count, [_file(folder, device) for device in candidates])
    with _locked(folder / f"queue-{queue}", waiting):
        while True:
            with _locked(folder / "taking"):
                taken = _take(count, candidates, folder)
            if taken:
                return taken
            waiting.say()
            time.sleep(LOOK_SECONDS)


def _take(count: int, candidates: list[Device], folder: Path) -> Lease | None:
    """`count` free devices, or none and nothing held. Two who try at once would hide devices from each other, and a
    lock is not made shared in one go: hence one at a time."""
    taken: list[tuple[Device, Path, int]] = []
    for device in candidates:
        file = _file(folder, device)
        lock = _open(file)
        if len(taken) < count and _free(lock):
            taken.append((device, file, lock))
        else:
            os.close(lock)
    if len(taken) < count:
        for _, _, lock in taken:
            os.close(lock)
        return None
    for _, _, lock in taken:
        with suppress(OSError):  # for people only; the disk may be full
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        fcntl.flock(lock, fcntl.LOCK_SH)
    return Lease(*map(list, zip(*taken, strict=True)))


def _free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass
class _Waiting:
    """Says that a job waits, at once and then now and again."""

    count: int
    files: list[Path]
    said: float | None = None

    def say(self) -> None:
        now = time.monotonic()
        if self.said is None or now - self.said >= SAY_SECONDS:
            self.said = now
            holders = ", ".join(filter(None, map(_holder, self.files))) or "unknown"
            log.info("waiting for %d of %d GPUs; processes that hold them: %s", self.count, len(self.files), holders)


def _holder(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


@contextmanager
def _locked(file: Path, waiting: _Waiting | None = None) -> Iterator[None]:
    lock = _open(file)
    try:
        if not _free(lock):
            if waiting:
                waiting.say()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open(file: Path) -> int:
    """A file descriptor that processes started with exec keep; what starts others closes it (subprocess does)."""
    folder = _private(file.parent)
    try:
        how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(file.name, how, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    os.set_inheritable(descriptor, True)
    return descriptor


def _private(folder: Path) -> int:
    """A file descriptor of the folder; UserError if others could have put links into it, by which files
    of ours would be written over."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077:
        return descriptor
    os.close(descriptor)
    whose = f"it is user {found.st_uid}'s with the mode {stat.S_IMODE(found.st_mode):o}"
    raise _unusable(folder, f"{whose}, not yours with 700")


def _unusable(folder: Path, why: str) -> UserError:
    way = "remove it, or set TMPDIR to a folder of your own"
    return UserError(f"cannot keep the locks of GPUs in {folder}: {why}; {way}")


def _file(folder: Path, device: Device) -> Path:
    return folder / re.sub(r"[^\w.-]", "_", device.name)


def _names(candidates: list[Device]) -> str:
    return ", ".join(device.name for device in candidates) or "none"
