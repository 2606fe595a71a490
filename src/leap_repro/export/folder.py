"""The folder that an export goes into: new, and filled whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leap_repro.errors import UserError


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files are moved to `output` on a clean exit; UserError if that is not empty."""
    refuse_filled(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        yield Path(temporary)
        output.mkdir(exist_ok=True)
        for path in sorted(Path(temporary).iterdir()):
            path.replace(output / path.name)


def refuse_filled(output: Path) -> None:
    """UserError if the folder holds something already."""
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output {output} is not empty: give a new folder, so that no file of another model stays")
