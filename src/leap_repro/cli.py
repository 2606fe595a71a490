"""What every stage's command line shares: logging to stderr, one-sentence errors."""

from __future__ import annotations

import argparse
import errno
import gc
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from leap_repro.errors import UserError, shown

OF_NO_FILE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG),
    *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
)
"""Errors that say enough without a file's name: a disk or a limit is at fault, no program."""
COLLECT_AFTER = 10_000
"""New objects between two looks for cyclic garbage. Python's 700 makes a stage look again and again while it imports
libraries whose objects all stay: 5 % of an evaluation."""


def run_stage(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments and run `main`; what a user can change is told in one sentence.

    An argument @FILE stands for the lines of that file.
    """
    parser.fromfile_prefix_chars = "@"
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    for library in ("httpx", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with report_errors(getattr(arguments, "output", None)), few_collections():
        main(arguments)


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for cyclic garbage after COLLECT_AFTER new objects; whoever calls a stage keeps its own rule."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def report_errors(output: Path | None = None) -> Iterator[None]:
    """Turn a UserError into one sentence on stderr and exit status 2; and so a file that cannot be
    used, or a disk that is full while `output` is written."""
    try:
        yield
    except UserError as error:
        _end_with(str(error))
    except Exception as error:
        trouble = disk_trouble(error, output)
        if trouble is None:
            raise
        _end_with(f"{trouble}; fix this and run again")


def _end_with(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def disk_trouble(error: Exception, output: Path | None) -> str | None:
    """What file cannot be used and why, in the system's words, if that is what the error says; else None.

    An error that names no file met a full disk while `output` was written; safetensors gives its number as text only.
    """
    number = error.errno if isinstance(error, OSError) else None
    named = (error.filename2 or error.filename) if isinstance(error, OSError) else None  # of a copy, its target
    found = re.search(r"\(os error (\d+)\)", str(error))
    if number is None and found:
        number = int(found[1])
    if number is None or not (isinstance(named, str | bytes | os.PathLike) or number in OF_NO_FILE):
        return None
    place = None if named is None or isinstance(named, int) else Path(os.fsdecode(named))
    if output and (place is None or place.absolute().is_relative_to(output.absolute())):
        return f"cannot write {output}: {os.strerror(number)}"
    what = f"cannot use {place}" if place else "cannot go on"
    return f"{what}: {os.strerror(number)}"


def json_argument(text: str) -> dict:
    """An argparse type for a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {shown(text)}")
    return value
