"""The server that forks a process for each job: a job cannot tell it from a process of its own, and
neither is left."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from snakemake.benchmark import BenchmarkRecord

from leap_repro.pipeline.launch import server
from leap_repro.pipeline.launch.client import ADDRESS, python
from leap_repro.pipeline.launch.worker import THREADS

SOURCE = Path(server.__file__).parents[3]
STAGE = """
import argparse, json, os, sys, tempfile, time
from pathlib import Path

from leap_repro.errors import UserError

def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("--output", type=Path, default=Path("out"))
    return parser

def main(arguments):
    seen = {"pid": os.getpid(), "parent": os.getppid(), "folder": os.getcwd(), "word": os.environ.get("WORD")}
    seen |= {"visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "torch": "torch" in sys.modules}
    print(json.dumps(seen | {"arguments": sys.argv[1:], "temporary": tempfile.gettempdir()}), flush=True)
    globals()[arguments.what]()

def tell():
    print(sys.stdin.read(), file=sys.stderr)

def refuse():
    raise UserError("there are no tokens")

def leave():
    sys.exit(7)

def fail():
    raise RuntimeError("broken")

def work():
    held = bytearray(300 * 2**20)
    held[::4096] = b"1" * len(held[::4096])
    while time.process_time() < 0.5:
        pass

def stay():
    if not Path("stayed").exists():
        Path("stayed").touch()
        time.sleep(600)
"""
ADDED = """
import sys
from leap_repro.pipeline import stages

stages.__path__.append({folder!r})
if "leap_repro.pipeline" in sys.orig_argv:
    stages.STAGES += ("stage",)
"""
"""Python reads it in every process: one stage more, which the server has not imported."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """PYTHONPATH of the server and the jobs."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "stage.py").write_text(STAGE)
    (folder / "sitecustomize.py").write_text(ADDED.format(folder=str(folder)))
    return f"{folder}:{SOURCE}"


@contextmanager
def running(source):
    """A server of this process: it, and the environment in which its jobs find it."""
    before, children = dict(os.environ), set(psutil.Process().children())
    os.environ.update(dict.fromkeys(THREADS, "1") | {"PYTHONPATH": source, "WORD": "a\nb"})
    del os.environ["PYTEST_CURRENT_TEST"]  # another in every phase of a test
    server.start(1, source)
    (process,) = set(psutil.Process().children()) - children
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def started(source):
    """The process of a server, which has imported everything as soon as it answers."""
    with running(source) as process:
        yield process


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the jobs run."""
    monkeypatch.chdir(tmp_path)


def launch(*arguments, **variables):
    """A job, as a rule starts it."""
    command = [sys.executable, "-m", "leap_repro.pipeline", *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return subprocess.Popen(command, env=environment | variables, text=True, **pipes)


def ended(process, status=0, given=""):
    """(what the stage saw, stderr) of a job that has ended."""
    output, errors = process.communicate(given, timeout=120)
    assert process.returncode == status, errors
    return json.loads(output.splitlines()[-1]), errors


def wait_until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_forked_job_is_as_good_as_a_process_of_its_own(started, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    variables = {"TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "0"}
    seen, errors = ended(launch("stage", "tell", "--output", "o u t", **variables), given="said")
    assert (seen["parent"], seen["torch"]) == (started.pid, True)
    assert seen["arguments"] == ["tell", "--output", "o u t"]
    assert (seen["folder"], seen["temporary"], seen["visible"]) == (str(tmp_path), str(folder), "")
    assert (seen["word"], errors) == ("a\nb", "said\n")


@pytest.mark.parametrize(
    ("what", "status", "last"),
    [
        ("refuse", 2, "error: there are no tokens"),
        ("leave", 7, ""),
        ("fail", 1, "RuntimeError: broken"),
    ],
)
def test_how_a_job_ends_is_said_with_its_own_words_and_status(started, what, status, last):
    seen, errors = ended(launch("--benchmark", "row.tsv", "stage", what), status)
    assert seen["parent"] == started.pid
    assert errors.strip().rpartition("\n")[2] == last
    assert not Path("row.tsv").exists()


def test_a_job_dies_with_the_process_that_asked_for_it_and_the_other_way_round(started):
    asking = launch("stage", "stay")
    forked = psutil.Process(json.loads(asking.stdout.readline())["pid"])
    asking.send_signal(signal.SIGKILL)
    forked.wait(10)
    Path("stayed").unlink()
    asking = launch("stage", "stay")
    psutil.Process(json.loads(asking.stdout.readline())["pid"]).kill()
    assert asking.wait(10) == 128 + signal.SIGKILL


def test_jobs_run_side_by_side_and_one_that_is_killed_does_not_touch_another(started):
    first = launch("stage", "stay")
    wait_until(Path("stayed").exists)
    seen, _ = ended(launch("stage", "tell"))
    assert seen["parent"] == started.pid
    first.kill()
    assert ended(launch("stage", "tell"))[0]["parent"] == started.pid


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"OMP_NUM_THREADS": "2"}, "the server has another OMP_NUM_THREADS"),
        ({"HF_ENDPOINT": "http://localhost"}, "the server has another HF_ENDPOINT"),
    ],
)
def test_what_a_fork_cannot_give_runs_in_a_process_of_its_own(started, variables, why):
    process = launch("stage", "tell", **variables)
    seen, errors = ended(process)
    assert seen["pid"] == process.pid
    assert why in errors


def test_code_that_was_edited_runs_in_a_process_of_its_own(tmp_path, monkeypatch):
    package = tmp_path / "leap_repro"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(server.leap_repro, "__file__", str(package / "__init__.py"))
    request = {"stage": "harden", "arguments": [], "python": python(), "environment": dict(os.environ)}
    inherited = server.Inherited.here()
    assert inherited.differs(request) is None
    assert "Python" in inherited.differs(request | {"python": "3.9.1 in /usr"})
    assert "native" in inherited.differs(request | {"arguments": ["--bits", "native"]})
    assert "long" in inherited.differs(request | {"stage": "miniature"})
    (package / "__init__.py").write_text("VALUE = 1\n")
    assert inherited.differs(request) == "the code has been edited since the server imported it"


def test_a_job_whose_server_is_killed_runs_by_itself(source):
    with running(source) as killed:
        process = launch("stage", "stay")
        forked = psutil.Process(json.loads(process.stdout.readline())["pid"])
        wait_until(Path("stayed").exists)
        killed.kill()
        seen, errors = ended(process)
        assert seen["pid"] == process.pid
        assert "the server was gone" in errors
        assert not forked.is_running() or forked.status() == psutil.STATUS_ZOMBIE
        process = launch("stage", "tell")
        seen, errors = ended(process)
        assert seen["pid"] == process.pid
        assert "the server did not take this job" in errors


def test_a_row_has_snakemakes_columns_and_the_jobs_own_measures(started):
    for variables in ({}, {ADDRESS: "/nowhere"}):
        seen, _ = ended(launch("--benchmark", "rows/row.tsv", "stage", "work", **variables))
        assert (seen["parent"] == started.pid) != bool(variables)
        with Path("rows/row.tsv").open() as file:
            (row,) = csv.DictReader(file, delimiter="\t")
        assert list(row) == BenchmarkRecord.get_header()
        assert 0.4 < float(row["cpu_time"]) < 10
        assert float(row["s"]) >= 0.4
        assert 300 < float(row["max_rss"]) < 1000
        assert float(row["max_vms"]) >= float(row["max_rss"])
        assert row["max_pss"] == "NA"


def catches(process, number):
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_the_server_ends_with_the_process_that_started_it(source, tmp_path):
    code = f"import os; from leap_repro.pipeline.launch import server; server.start(1, {source!r})\n"
    code += f"print(os.environ[{ADDRESS!r}], flush=True); input()"
    environment = os.environ | {"PYTHONPATH": source, "TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    for end in (lambda process: process.communicate("\n"), lambda process: process.kill()):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)
        folder = Path(process.stdout.readline().strip()).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        (child,) = psutil.Process(process.pid).children()
        wait_until(lambda child=child: catches(child, server.ENDING))
        end(process)
        process.wait(10)
        child.wait(10)
        assert not folder.exists()


def test_without_a_socket_there_is_no_server(monkeypatch, tmp_path):
    monkeypatch.delenv(ADDRESS, raising=False)
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(server.tempfile, "tempdir", str(long))
    server.start(1, str(SOURCE))
    assert ADDRESS not in os.environ
