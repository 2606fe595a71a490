"""The folder that an export goes into: new, and filled whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leap_repro.errors import UserError
from leap_repro.places import check_makable


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a temporary folder, whose files are moved to `output` on a clean exit.

    Raises UserError as `refuse_filled`.
    """
    refuse_filled(output)
    output = output.resolve()
    around = _around(output)
    around.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:32]}-", dir=around) as temporary:
        yield Path(temporary)
        output.mkdir(exist_ok=True)
        for path in sorted(Path(temporary).iterdir()):
            path.replace(output / path.name)


def refuse_filled(output: Path) -> None:
    """UserError if the folder cannot be made or written, or holds something already."""
    check_makable(output, "--output")
    check_makable(_around(output.resolve()), f"--output {output}:")
    if output.is_dir() and any(output.iterdir()):
        raise UserError(f"--output {output} is not empty: give a new folder, so that no file of another model remains")


def _around(output: Path) -> Path:
    """From where files can be renamed into `output`: beside it, unless it is a disk of its own."""
    return output if output.is_mount() else output.parent
