"""What every stage's command line shares: logging to stderr, deterministic torch, one-sentence errors."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable

from leap_repro.errors import UserError


def run_stage(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the arguments, run `main`, and turn a UserError into one sentence on stderr and exit status 2."""
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def json_argument(text: str) -> dict:
    """An argparse type for a JSON object."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, not {text!r}")
    return value
