"""The one exception for mistakes that a user can mend: its message is a single clear sentence."""

from __future__ import annotations


class UserError(ValueError):
    """Raised with one sentence that names the key or file, its value, and what is allowed."""


def reason(error: BaseException) -> str:
    """The first line of another library's error message: enough to know why, short enough for one sentence. What only
    announces a list brings the list along."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines) if lines[0].rstrip().endswith(":") else lines[0]
