"""One run at a time in a run folder, however the one before it ended."""

import subprocess
import sys

import pytest

from leap_repro.own_model.__main__ import main, parser
from leap_repro.own_model.turn import turn, unlock
from leap_repro.own_model.workflow import failure

LOCKED = """\
Building DAG of jobs...
LockException:
Error: Directory cannot be locked. Please make sure that no other Snakemake process is trying to create the same files
in the following directory:
/somewhere
"""


def test_a_second_is_refused_until_the_first_has_ended(tmp_path, refused):
    code = "import sys, time; from pathlib import Path; from leap_repro.own_model.turn import turn\n"
    code += "with turn(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        asked = parser().parse_args(["llama3.2-1b-mini", "--output", "out", "--run-folder", str(tmp_path)])
        with refused("another `leap-repro prune` is at work in", str(tmp_path), "--run-folder"):
            main(asked)
        assert [path.name for path in tmp_path.iterdir()] == [".leap-repro.lock"]
    finally:
        first.kill()
        first.communicate()
    with turn(tmp_path):
        pass


def test_whoever_was_given_the_lock_holds_the_folder(tmp_path, refused):
    with turn(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "600"], pass_fds=[lock])
    try:
        with refused("another"), turn(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_the_lock_of_a_snakemake_that_was_cut_off_is_told_and_taken_away(tmp_path, capsys):
    assert "`leap-repro prune --unlock`" in failure(LOCKED)
    locks = tmp_path / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    main(parser().parse_args(["--unlock", "--run-folder", str(tmp_path)]))
    assert "is unlocked" in capsys.readouterr().out
    assert not locks.exists()


def test_a_folder_in_use_or_without_a_run_is_not_unlocked(tmp_path, refused):
    with refused("holds no run"):
        unlock(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    with turn(tmp_path), refused("another"):
        unlock(tmp_path)
    assert (tmp_path / ".snakemake/locks").is_dir()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.leap-repro.lock").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match="symbolic"), turn(tmp_path / "run"):
        pass
    assert not (tmp_path / "nothing").exists()
