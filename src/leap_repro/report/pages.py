"""Pages show what a run wrote, never what someone typed: each block between `<!-- NAME -->` and `<!-- /NAME -->` is the
file NAME, a path from the top of the repository."""

from __future__ import annotations

import re
from pathlib import Path

from leap_repro.errors import UserError

BLOCK = re.compile(r"<!-- (?P<name>\S+\.md) -->\n.*?<!-- /(?P=name) -->", re.DOTALL)


def filled(page: str, top: Path) -> str:
    """A page's text, every marked block replaced by the file of its name under `top`; UserError if there is none."""

    def block(match: re.Match[str]) -> str:
        path = top / match["name"]
        if not path.is_file():
            raise UserError(f"a page shows {match['name']}, which is no file: publish a run that writes it")
        return f"<!-- {match['name']} -->\n{path.read_text(encoding='utf-8').strip()}\n<!-- /{match['name']} -->"

    return BLOCK.sub(block, page)
