"""JSON files that carry a digest of themselves, so that a changed bit is noticed by who reads them.

The text of such a file is that of its content and of nothing else: sorted, indented, with the sha256 of the rest under
`digest`. So it is read by writing it again: any other text is a changed one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from leap_repro.errors import UserError
from leap_repro.store.atomic import write_text

DIGEST = "digest"


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping as JSON with its digest, atomically."""
    write_text(path, _sealed(json.loads(json.dumps(content))))


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the digest.

    Raises UserError, naming the file, if it cannot be read, has no digest or is not what was written.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read (it holds no JSON object)")
    if content.pop(DIGEST, None) is None:
        raise UserError(f"{path} has no digest: it was made by an earlier release or was changed")
    if _sealed(content) != text:
        raise UserError(f"{path} was changed since it was written: it differs from the digest in it")
    return content


def _sealed(content: dict[str, Any]) -> str:
    """The text of the file: `content` as JSON reads it back."""
    rest = json.dumps(content, sort_keys=True)
    sealed = content | {DIGEST: hashlib.sha256(rest.encode()).hexdigest()}
    return json.dumps(sealed, indent=1, sort_keys=True) + "\n"
