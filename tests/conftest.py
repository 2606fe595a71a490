"""The order of the test files, for `pytest -n`: the longest first, so that no worker ends alone with one of them."""

from pathlib import Path

LONGEST_FIRST = ("test_slurm.py", "test_kills.py", "test_staleness.py")


def pytest_collection_modifyitems(items):
    """The longest files, then the other workflow files, then the units; a file's own tests keep their order."""
    items.sort(key=lambda item: _place(item.path))


def _place(path: Path) -> tuple[int, bool]:
    rank = LONGEST_FIRST.index(path.name) if path.name in LONGEST_FIRST else len(LONGEST_FIRST)
    return rank, path.parent.name != "workflow"
