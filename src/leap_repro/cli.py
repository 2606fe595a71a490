"""What every stage's command line shares: logging to stderr, one-sentence errors."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import re
import sys
from collections.abc import Callable

from leap_repro.errors import UserError

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def run_stage(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, run `main`, and turn a UserError into one sentence on stderr and exit status 2.

    A disk that is full or may not be written is told in one sentence too.
    """
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    for library in ("httpx", "httpx2"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        trouble = disk_trouble(error)
        if trouble is None:
            raise
        print(f"error: cannot write {arguments.output}: {trouble}; mend that and run again", file=sys.stderr)
        sys.exit(2)


def disk_trouble(error: Exception) -> str | None:
    """The system's words if a file cannot be written, else None; safetensors gives the error's number as text only."""
    number = error.errno if isinstance(error, OSError) else None
    found = re.search(r"\(os error (\d+)\)", str(error))
    if number is None and found:
        number = int(found[1])
    return os.strerror(number) if number in CANNOT_WRITE else None


def json_argument(text: str) -> dict:
    """An argparse type for a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {text!r}")
    return value
