"""What ends a stage is told with the file that it is about, and only what a user can fix is told in a sentence."""

import errno
import gc
import sys
from pathlib import Path

import pytest

import leap_repro
from leap_repro.__main__ import COMMANDS, main
from leap_repro.cli import COLLECT_AFTER, disk_trouble, few_collections, report_errors
from leap_repro.errors import MOST_SHOWN, reason, shown

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
        (OSError(errno.EIO, "x", "/disk/a"), "cannot use /disk/a: Input/output error"),
        (OSError(errno.ENAMETOOLONG, "x", "/disk/a"), "cannot use /disk/a: File name too long"),
        (FileNotFoundError(errno.ENOENT, "x", "a"), "cannot use a: No such file or directory"),
        (OSError(errno.EFBIG, "x"), "cannot write results/tiny/prune/a: File too large"),
        (OSError(errno.ESTALE, "x"), "cannot write results/tiny/prune/a: Stale file handle"),
        (OSError(errno.EMFILE, "x"), "cannot write results/tiny/prune/a: Too many open files"),
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
        OSError("a library's own words"),
        ConnectionResetError(errno.ECONNRESET, "x"),
        ValueError("x"),
    ],
)
def test_what_says_nothing_of_a_file_is_not_explained(error):
    assert disk_trouble(error, OUTPUT) is None


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (OUTPUT, "error: cannot write results/tiny/prune/a: Stale file handle; fix this and run again"),
        (None, "error: cannot go on: Stale file handle; fix this and run again"),
    ],
)
def test_a_command_ends_in_one_sentence_whether_it_has_an_output_or_not(capsys, output, sentence):
    with pytest.raises(SystemExit) as stopped, report_errors(output):
        raise OSError(errno.ESTALE, "x")
    assert (stopped.value.code, capsys.readouterr().err.strip()) == (2, sentence)


def test_a_mistake_of_ours_is_no_sentence():
    with pytest.raises(ZeroDivisionError), report_errors(OUTPUT):
        1 / 0  # noqa: B018


def test_of_a_long_value_its_beginning_is_shown():
    assert shown("x" * 198) == repr("x" * 198)
    assert len(shown("x" * 5000)) == MOST_SHOWN + 1


def test_the_reason_is_the_first_line_or_the_list_that_it_announces():
    assert reason(ValueError("no such file\nTraceback")) == "no such file"
    assert reason(ValueError("none of:\n (1) a file\n (2) a package")) == "none of: (1) a file (2) a package"
    assert reason(KeyError()) == "KeyError"


def test_a_stage_collects_less_often_and_leaves_its_callers_rule():
    before = gc.get_threshold()
    with few_collections():
        assert gc.get_threshold()[0] == COLLECT_AFTER > before[0]
    assert gc.get_threshold() == before


def command(monkeypatch, capsys, *words):
    """(exit status, stdout, stderr) of `leap-repro WORDS`."""
    monkeypatch.setattr(sys, "argv", ["leap-repro", *words])
    try:
        main()
        status = 0
    except SystemExit as stopped:
        status = stopped.code
    return (status, *capsys.readouterr())


def test_an_unknown_command_is_named_with_those_that_there_are(monkeypatch, capsys):
    status, out, err = command(monkeypatch, capsys, "nonsense")
    assert (status, out) == (2, "")
    assert err.startswith("leap-repro: there is no command 'nonsense'\n")
    assert all(f"  {name} " in err for name in COMMANDS)


def test_without_a_command_the_usage_is_an_error_and_help_is_none(monkeypatch, capsys):
    status, out, err = command(monkeypatch, capsys)
    assert (status, out) == (2, "")
    assert command(monkeypatch, capsys, "--help") == (0, err, "")


def test_the_version_is_the_packages(monkeypatch, capsys):
    assert command(monkeypatch, capsys, "--version") == (0, f"leap-repro {leap_repro.__version__}\n", "")
