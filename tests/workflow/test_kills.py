"""Killed at any moment, run again: the bytes of an undisturbed run, in every stage, whatever is killed.

Most kills hit jobs in processes of their own, which last longer than those that a server forks: a job of 0.1 s is hard
to hit. What a kill leaves does not depend on it; the last test kills what only a run with a server has.
"""

import collections
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from killer import EARLY, LATE, LEARNED, RULES, WITH_SERVER, WITHOUT, Killer
from scratch import (
    REPOSITORY,
    checkout_of,
    checksums,
    edit,
    environment,
    looks_whole,
    planned,
    snakemake,
    start,
    start_again,
    write_inputs,
)

from leap_repro.store.artifacts import MANIFEST, Artifact

PLAN = {
    "models": [EARLY, LATE],
    "data": [EARLY, LATE],
    "calibration": [EARLY, LATE],
    "prune wanda": [LATE],
    "prune sparsegpt": [EARLY],
    **{kind: [EARLY, LATE] for kind in LEARNED},
    "harden": [EARLY, LATE],
    "evaluate": [EARLY, LATE],
    "report": [EARLY, EARLY, EARLY],
    "figures": [EARLY],
}
LEAST_KILLS = 20
MOST_RUNS = 20
LEAP = "mini/leap/0.5/0"
GOAL = f"results/tiny/harden/{LEAP}/{MANIFEST}"
SERVER = "leap_repro.pipeline.launch.server"
PAGE = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(a checkout in which the grid has been run without any disturbance, the Killer that looked on)."""
    folder = checkout_of(tmp_path_factory.mktemp("kills") / "undisturbed", REPOSITORY / "tests/config/learned.yaml")
    write_inputs(folder)
    edit(folder, RULES, WITH_SERVER, WITHOUT)
    killer = Killer(folder)
    process = start(folder)
    killer.watch(process)
    assert process.returncode == 0, (folder / "output.txt").read_text()[-3000:]
    return folder, killer


@pytest.fixture(scope="module")
def killed(undisturbed, tmp_path_factory):
    """(a checkout run to its end under kills, the Killer, what looked whole after each of the runs)."""
    ignore = shutil.ignore_patterns("results", "logs", ".snakemake", "output.txt")
    folder = shutil.copytree(undisturbed[0], tmp_path_factory.mktemp("kills") / "killed", ignore=ignore)
    killer = Killer(folder, {kind: list(moments) for kind, moments in PLAN.items()}, undisturbed[1].lives)
    left = []
    while len(left) < MOST_RUNS:
        process = start(folder, "--keep-going", "--retries", "1")
        killer.watch(process)
        left.append(looks_whole(folder))
        if process.returncode == 0:
            break
    assert process.returncode == 0, (folder / "output.txt").read_text()[-3000:]
    return folder, killer, left


@pytest.mark.slow
def test_kills_hit_running_processes_of_every_stage(killed):
    folder, killer, left = killed
    hits = collections.Counter(killer.hits)
    assert hits.total() >= LEAST_KILLS, killer.plan
    assert {kind for kind, _ in hits} == set(PLAN), killer.plan
    assert all(hits[kind, LATE] for kind in LEARNED)
    assert (folder / "output.txt").read_text().count("Error in rule") == hits.total()
    assert len(left) > 1


@pytest.mark.slow
def test_what_looks_whole_after_a_kill_has_the_bytes_of_an_undisturbed_run(undisturbed, killed):
    expected = checksums(undisturbed[0])
    for found in killed[2]:
        assert found.items() <= expected.items()
    assert checksums(killed[0]) == expected
    assert planned(killed[0]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEARNED)
def test_a_killed_training_resumed_from_a_checkpoint_and_left_none(killed, kind):
    log = (killed[0] / f"logs/tiny/prune/mini/{kind.split()[1]}/0.5/0.log").read_text()
    assert int(re.search(r"resumed after step (\d+) of 40", log)[1]) >= 2
    assert not list((killed[0] / "results/.scratch").glob("*/state-*"))


@pytest.fixture
def stopped(undisturbed, tmp_path):
    """(a checkout in which Snakemake has LEAP's mask to make, its process, once the training is under way)."""
    folder = shutil.copytree(undisturbed[0], tmp_path / "stopped")
    for stage in ("prune", "harden"):
        shutil.rmtree(folder / f"results/tiny/{stage}/{LEAP}")
    shutil.rmtree(folder / "logs")
    process = start(folder, GOAL, apart=True)
    wait_for_a_checkpoint(folder, process)
    return folder, process


def wait_for_a_checkpoint(folder, process):
    """Until a training has left one."""
    while not list((folder / "results/.scratch").glob("*/state-*")):
        assert process.poll() is None, (folder / "output.txt").read_text()[-3000:]
        time.sleep(0.01)


def what_to_type(heading):
    """The lines of the block of code under a heading of the page."""
    return re.search(rf"^## {heading}\n.*?^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1].splitlines()


def assert_as_before(folder, undisturbed):
    """The same bytes; the repeated jobs took another time, which only the table of times says."""
    assert checksums(folder) == checksums(undisturbed[0])
    assert planned(folder) == {"build_time_table": 1, "all": 1}


@pytest.mark.slow
def test_snakemake_stopped_by_sigterm_finishes_its_jobs_starts_none_and_goes_on(undisturbed, stopped):
    folder, process = stopped
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 1
    assert Artifact.read(folder / f"results/tiny/prune/{LEAP}").verified_payload()
    assert not (folder / f"results/tiny/harden/{LEAP}").exists()
    assert planned(folder, GOAL) == {"harden": 1}
    snakemake(folder, GOAL)
    assert_as_before(folder, undisturbed)


@pytest.mark.slow
def test_a_machine_that_dies_loses_a_few_steps_and_the_page_says_what_to_type(undisturbed, stopped):
    folder, process = stopped
    subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=True)
    assert process.wait(30) == -signal.SIGKILL
    assert "--unlock" in snakemake(folder, GOAL, check=False)
    for line in what_to_type("The run was interrupted"):
        subprocess.run(["bash", "-c", f"{line} {GOAL}"], cwd=folder, env=environment(), check=True, capture_output=True)
    assert "resumed after step" in (folder / f"logs/tiny/prune/{LEAP}.log").read_text()
    assert_as_before(folder, undisturbed)


def training(folder, snakemake_process):
    """{"client", "child", "server"}: who waits for LEAP's training, once it is under way, who does it, and who forked
    that one, which writes into the same log."""
    log = folder / f"logs/tiny/prune/{LEAP}.log"
    while not (log.exists() and "steps:" in log.read_text()):
        assert snakemake_process.poll() is None, (folder / "output.txt").read_text()[-3000:]
        time.sleep(0.01)
    family = psutil.Process(snakemake_process.pid).children(recursive=True)
    (server,) = [
        process for process in family if SERVER in process.cmdline() and SERVER not in process.parent().cmdline()
    ]
    writing = [process for process in family if Path(f"/proc/{process.pid}/fd/2").resolve() == log.resolve()]
    (child,) = [process for process in writing if process.parent() == server]
    (client,) = [process for process in writing if "leap_repro.pipeline" in process.cmdline()]
    return {"client": client, "child": child, "server": server}


@pytest.mark.slow
def test_a_run_with_a_server_survives_what_only_it_has(undisturbed, tmp_path):
    folder = start_again(undisturbed[0], tmp_path)
    edit(folder, RULES, WITHOUT, WITH_SERVER)
    for victim, status in (("client", 1), ("child", 1), ("server", 0)):
        shutil.rmtree(folder / "logs", ignore_errors=True)
        process = start(folder, "--keep-going")
        training(folder, process)[victim].kill()
        assert process.wait(300) == status, (victim, (folder / "output.txt").read_text()[-3000:])
    assert "the server was gone" in (folder / f"logs/tiny/prune/{LEAP}.log").read_text()
    assert checksums(folder) == checksums(undisturbed[0])
    assert planned(folder) == {}
