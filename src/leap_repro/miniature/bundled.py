"""The released miniatures, which come with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def bundled_models() -> dict[str, Path]:
    """{name: folder} of the released miniatures."""
    released = Path(str(files("leap_repro"))) / "miniature/released"
    return {path.name: path for path in sorted(released.iterdir()) if path.is_dir()}
