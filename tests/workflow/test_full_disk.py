"""A full disk: one sentence, nothing that looks whole, and the same bytes once there is room. On a small tmpfs."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from scratch import checksums, command, environment, run_here, snakemake

from leap_repro.store.artifacts import MANIFEST, PROVENANCE
from leap_repro.store.hashes import sha256_of

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES_FOR_SNAKEMAKE = 40
"""Enough for its locks and logs, too little for the moved weights of a model."""
WANDA = "mini/wanda/0.5/0"
ADMM = "mini/admm/0.5/0"  # with moved weights
STAGES = {
    "models": "pipeline models ",
    "data": "--role tasks",
    "calibration": "--recipe windows",
    "calibration-packed": "--recipe packed",
    "prune": "--module wanda",
    "prune-leap": "--module leap",
    "harden": f"--cell {WANDA}",
    "evaluate": f"--cell results/tiny/harden/{WANDA}",
    "collect": "leap_repro.report.collect",
    "join": "leap_repro.report.join",
    "table": "leap_repro.report.tables main",
    "time-table": "leap_repro.report.times",
    "density": "leap_repro.report.figures.density",
    "accuracy": "leap_repro.report.figures.accuracy",
}
NOT_REPEATED = {"collect", "time-table"}
"""Their content differs in a second run: the commit of the code's checkout, the jobs that have ended since."""


class Disk:
    """A tmpfs whose size can be set."""

    def __init__(self, folder):
        self.folder = folder

    def mount(self, option):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", self.folder], capture_output=True)

    def leave(self, pages):
        """Grow or shrink to so many free pages."""
        state = os.statvfs(self.folder)
        used = state.f_blocks - state.f_bfree
        assert not self.mount(f"remount,size={(used + pages) * PAGE}").returncode


@pytest.fixture
def disk(tmp_path):
    """A tmpfs of 64 MiB; skipped where none may be mounted."""
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    if os.geteuid() != 0 or disk.mount("size=64m").returncode:
        pytest.skip("a file system of its own cannot be mounted here: it takes root and the right to mount")
    yield disk
    subprocess.run(["umount", "--lazy", disk.folder], check=True)


@pytest.fixture(scope="module")
def commands(finished):
    """The command line of every job of the tiny grid, as Snakemake would run it, but for the row of what it took."""
    text = snakemake(finished, "-n", "-p", "-F").replace("$(dirname ", "$(")
    found = re.findall(r"python -m (.*) 2> ", re.sub(r" --benchmark \S+", "", text))
    return [re.sub(r"\$\((\S+)/\S+\)", r"\1", line) for line in found]


def bytes_of(output):
    """{file: sha256} of a result: the files of a folder but its provenance, or those that begin with a path."""
    files = output.rglob("*") if output.is_dir() else output.parent.glob(f"{output.name}*")
    return {
        str(path.relative_to(output.parent)): sha256_of(path)
        for path in files
        if path.is_file() and path.name not in (PROVENANCE, ".snakemake_timestamp")
    }


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_so_leaves_nothing_that_looks_whole_and_finishes_once_there_is_room(
    finished, disk, commands, monkeypatch, capsys, stage
):
    arguments = shlex.split(next(line for line in commands if STAGES[stage] in f"{line} "))
    place = arguments.index("--output") + 1
    expected = bytes_of(finished / arguments[place])
    output = disk.folder / "out" / Path(arguments[place]).name
    arguments[place] = str(output)
    if "--scratch" in arguments:
        arguments[arguments.index("--scratch") + 1] = str(disk.folder / "scratch")
    monkeypatch.chdir(finished)
    (disk.folder / "ballast").write_bytes(bytes(PAGE))
    refusals = 0
    for pages in (0, *(2**power for power in range(14))):
        disk.leave(pages)
        status, sentence = run_here(arguments, monkeypatch, capsys)
        if status == 0:
            break
        refusals += 1
        assert status == 2
        assert re.fullmatch(r"error: .* cannot .*No space left on device.*|error: cannot write .*", sentence)
        assert str(disk.folder) in sentence
        assert not (output / MANIFEST).exists()
        if not output.is_dir() and stage not in NOT_REPEATED:
            assert bytes_of(output).items() <= expected.items()
    assert refusals
    found = bytes_of(output)
    assert found.keys() == expected.keys()
    assert stage in NOT_REPEATED or found == expected


@pytest.mark.slow
def test_a_run_of_snakemake_fails_with_that_sentence_and_goes_on_once_there_is_room(finished, disk):
    folder = shutil.copytree(finished, disk.folder / "checkout", symlinks=True)
    expected = checksums(finished)
    for stage in ("prune", "harden"):
        shutil.rmtree(folder / f"results/tiny/{stage}/{ADMM}")
    goal = f"results/tiny/harden/{ADMM}/{MANIFEST}"
    disk.leave(PAGES_FOR_SNAKEMAKE)
    refused = subprocess.run(command(goal), cwd=folder, env=environment(), capture_output=True, text=True)
    assert "of disk and" in refused.stdout + refused.stderr, "the preflight sees it before the first job"
    run = command("--show-failed-logs", goal, "--config", "preflight=warn")
    done = subprocess.run(run, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert f"error: cannot write results/tiny/prune/{ADMM}: No space left on device" in done.stdout + done.stderr
    assert checksums(folder).items() < expected.items()
    assert not (folder / f"results/tiny/prune/{ADMM}/{MANIFEST}").exists()
    disk.leave(4096)
    snakemake(folder, goal, "--config", "preflight=warn")
    assert checksums(folder) == expected
