"""The exception for mistakes that a user can fix; its message is one clear sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST_SHOWN = 200
"""Characters of a value that a sentence shows."""


class UserError(ValueError):
    """Raised with one sentence that names the key or file, its value, and what is allowed."""


def shown(value: Any, as_text: Callable[[Any], str] = repr) -> str:
    """The value in the form of an error sentence: `as_text(value)`, cut to MOST_SHOWN characters."""
    text = as_text(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def reason(error: BaseException) -> str:
    """The first line of another library's error message, which fits into a sentence.

    If the first line only introduces a list, the list follows.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines) if lines[0].rstrip().endswith(":") else lines[0]
