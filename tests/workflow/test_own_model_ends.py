"""`leap-repro prune` on a model with marks in its name, started twice, ended by a signal: nothing stays at work."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from scratch import REPOSITORY

from leap_repro.miniature.bundled import bundled_models

NAME = "x;&$HOME 'y'"


@pytest.fixture
def here(tmp_path):
    shutil.copytree(bundled_models()["llama3.2-1b-mini"], tmp_path / NAME)
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"Page {number} says that it is a page. " * 60 for number in range(9))
    )
    return tmp_path


def start(folder, *further):
    """The command in a process of its own, with the variables of no other test."""
    sizes = ["--text", "text.txt", "--data", "bundled", "--length", "64", "--sequences", "4", "--cores", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "leap_repro", "prune", NAME, *sizes, *further],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell's & leaves it
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY / "src"), "HOME": str(folder)},
    )


def at_work(folder):
    """The processes, but this one, that run in the folder or below it."""
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{process}/cwd").startswith(str(folder)):
                found.append(int(process))
        except OSError:
            continue
    return found


def wait_until(condition, seconds=120):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_signal_ends_it_with_snakemake_and_its_jobs_and_the_same_command_goes_on(here):
    run = here / "leap-repro-run"
    first = start(here, "--output", "out", "--evaluate", "none")
    wait_until(lambda: list(run.glob("logs/own/models/*.log")) or first.poll() is not None)
    assert first.poll() is None, first.stdout.read()
    second = start(here, "--output", "again")
    words, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert words.startswith("error: another `leap-repro prune` is at work in")
    first.send_signal(signal.SIGTERM)
    words, _ = first.communicate(timeout=90)
    assert first.returncode == 2
    assert words.strip().endswith("error: stopped; the same command continues")
    wait_until(lambda: not at_work(run), 10)
    assert not (here / "out").exists()
    third = start(here, "--output", "out", "--evaluate", "none")
    words, _ = third.communicate(timeout=300)
    assert third.returncode == 0, words
    assert (here / "out/model.safetensors").is_file()
