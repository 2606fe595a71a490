"""What ends a stage is told with the file that it is about, and only what a user can mend is told in a sentence."""

import errno
import gc
from pathlib import Path

import pytest

from leap_repro.cli import COLLECT_AFTER, disk_trouble, few_collections
from leap_repro.errors import reason

OUTPUT = Path("results/tiny/prune/a")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "x"), "cannot write results/tiny/prune/a: No space left on device"),
        (OSError(errno.ENOSPC, "x", str(OUTPUT / ".payload-1/a")), "cannot write results/tiny/prune/a: No space left"),
        (PermissionError(errno.EACCES, "x", str(OUTPUT)), "cannot write results/tiny/prune/a: Permission denied"),
        (OSError(errno.ENOSPC, "x", "data/a", None, str(OUTPUT / "a")), "cannot write results/tiny/prune/a: No space"),
        (OSError(errno.EROFS, "x", "/ro/hub/models"), "cannot use /ro/hub/models: Read-only file system"),
        (PermissionError(errno.EACCES, "x", b"/ro/hub"), "cannot use /ro/hub: Permission denied"),
        (
            RuntimeError("Error while serializing: (os error 28)"),
            "cannot write results/tiny/prune/a",
        ),
    ],
)
def test_the_file_that_cannot_be_used_is_named(error, sentence):
    assert disk_trouble(error, OUTPUT).startswith(sentence)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EPERM, "operation not permitted"),
        RuntimeError("cannot (os error 13)"),
        FileNotFoundError(errno.ENOENT, "x", "a"),
        ValueError("x"),
    ],
)
def test_what_says_nothing_of_a_file_is_not_explained(error):
    assert disk_trouble(error, OUTPUT) is None


def test_the_reason_is_the_first_line_or_the_list_that_it_announces():
    assert reason(ValueError("no such file\nTraceback")) == "no such file"
    assert reason(ValueError("none of:\n (1) a file\n (2) a package")) == "none of: (1) a file (2) a package"
    assert reason(KeyError()) == "KeyError"


def test_a_stage_collects_less_often_and_leaves_its_callers_rule():
    before = gc.get_threshold()
    with few_collections():
        assert gc.get_threshold()[0] == COLLECT_AFTER > before[0]
    assert gc.get_threshold() == before
