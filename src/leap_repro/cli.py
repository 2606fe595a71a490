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

from leap_repro.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
FORBIDDEN = (errno.EACCES, errno.EPERM)
COLLECT_AFTER = 10_000
"""New objects between two looks for cyclic garbage. Python's 700 makes a stage look again and again while it imports
libraries whose objects all stay: 5 % of an evaluation."""


def run_stage(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, run `main`, and turn a UserError into one sentence on stderr and exit status 2.

    A disk that is full, and a file that may not be used, are told in one sentence too.
    """
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    for library in ("httpx", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with report_errors(), few_collections():
        try:
            main(arguments)
        except UserError:
            raise
        except Exception as error:
            trouble = disk_trouble(error, arguments.output)
            if trouble is None:
                raise
            raise UserError(f"{trouble}; mend that and run again") from error


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
def report_errors() -> Iterator[None]:
    """Turn a UserError into one sentence on stderr and exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def disk_trouble(error: Exception, output: Path) -> str | None:
    """What file cannot be used and why, in the system's words, if that is what the error says; else None.

    An error that names no file met a full disk while `output` was written; safetensors gives its number as text only.
    """
    number = error.errno if isinstance(error, OSError) else None
    named = (error.filename2 or error.filename) if isinstance(error, OSError) else None  # of a copy, its target
    found = re.search(r"\(os error (\d+)\)", str(error))
    if number is None and found:
        number = int(found[1])
    if number is None or number not in (FULL if named is None else FULL + FORBIDDEN):
        return None
    if named is None or Path(os.fsdecode(named)).absolute().is_relative_to(output.absolute()):
        return f"cannot write {output}: {os.strerror(number)}"
    return f"cannot use {os.fsdecode(named)}: {os.strerror(number)}"


def json_argument(text: str) -> dict:
    """An argparse type for a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {text!r}")
    return value
