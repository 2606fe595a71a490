"""The launcher as the rules call it: what a stage sees, alone and among others, and what is left when it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from leap_repro.pipeline.__main__ import torchrun

STAGE = """
import argparse, json, os, sys, time

def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--model")
    return parser

def main(arguments):
    tell()

def tell():
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    names += ("CUDA_VISIBLE_DEVICES",)
    seen = {name: os.environ.get(name) for name in names} | {"pid": os.getpid(), "arguments": sys.argv[1:]}
    os.write(1, f"{json.dumps(seen)}\\n".encode())  # in one go: another process writes there too
    if "refuse" in sys.argv and os.environ["RANK"] == "1":
        print("error: there are no tokens", file=sys.stderr)
        sys.exit(2)
    time.sleep(600 if "stay" in sys.argv else 0)
"""
ADDED = """
from leap_repro.pipeline import stages

stages.__path__.append({folder!r})
stages.STAGES += ("stage",)
"""
"""Python reads it in every process: one stage more."""


@pytest.fixture
def launch(tmp_path):
    """A function that starts the launcher on a stage that tells what it sees, with pretended devices."""
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "sitecustomize.py").write_text(ADDED.format(folder=str(tmp_path)))
    started = []

    def start(*arguments, pretended="2", **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment |= {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "TMPDIR": str(tmp_path)}
        environment |= {"LEAP_REPRO_PRETEND_DEVICES": pretended, "OMP_NUM_THREADS": "4"} | variables
        command = [sys.executable, "-m", "leap_repro.pipeline", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def ended(process, status=0):
    """(what each of its processes saw, by rank; stderr) of a launcher that has ended."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    return sorted(map(json.loads, output.splitlines()), key=lambda seen: seen["RANK"] or ""), errors


def test_one_process_becomes_the_stage_on_a_device_of_its_own(launch):
    process = launch("--gpus", "1", "stage", "--model", "a b")
    (seen,), errors = ended(process)
    assert seen["pid"] == process.pid
    assert seen["arguments"] == ["--model", "a b"]
    assert (seen["RANK"], seen["OMP_NUM_THREADS"]) == (None, "4")
    assert errors.endswith("leap_repro.pipeline: leased pretended-0\n")


def test_a_job_that_asked_for_no_gpu_sees_none(launch):
    (seen,), errors = ended(launch("stage", CUDA_VISIBLE_DEVICES="0"))
    assert (seen["CUDA_VISIBLE_DEVICES"], errors) == ("", "")


@pytest.mark.parametrize("gpus", ["0", "2"])
def test_several_processes_are_torchruns_and_share_the_threads(launch, gpus):
    seen, _ = ended(launch("--gpus", gpus, "--processes", "2", "stage", "one"))
    assert [(rank["RANK"], rank["LOCAL_RANK"], rank["WORLD_SIZE"]) for rank in seen] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]
    assert len({(rank["MASTER_ADDR"], rank["MASTER_PORT"]) for rank in seen}) == 1
    assert [(rank["OMP_NUM_THREADS"], rank["arguments"]) for rank in seen] == [("2", ["one"])] * 2


def test_the_refusal_of_one_process_is_the_last_word_of_all(launch):
    _, errors = ended(launch("--processes", "2", "stage", "refuse"), status=2)
    assert errors.splitlines()[-1] == "error: there are no tokens"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_killed_launcher_leaves_no_process_and_no_device_taken(launch, processes):
    first = launch("--gpus", processes, "--processes", processes, "stage", "stay")
    stages = [json.loads(first.stdout.readline())["pid"] for _ in range(int(processes))]
    second = launch("--gpus", "2", "--processes", "2", "stage")
    time.sleep(1)
    assert second.poll() is None  # it waits
    family = psutil.Process(first.pid).children(recursive=True)
    assert {process.pid for process in family} >= set(stages) - {first.pid}
    first.send_signal(signal.SIGKILL)
    first.wait()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert len(ended(second)[0]) == 2


def test_every_process_holds_the_lock_of_its_own_device(launch, tmp_path):
    """Not only the launcher: a device is taken until the last process on it has let go of it."""
    first = launch("--gpus", "2", "--processes", "2", "stage", "stay")
    seen = [json.loads(first.stdout.readline()) for _ in range(2)]
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    for rank in seen:
        file = tmp_path / f"leap-repro-devices-{os.getuid()}" / f"pretended-{rank['LOCAL_RANK']}"
        (inode,) = [lock[5].split(":")[-1] for lock in locks if lock[1] == "FLOCK" and lock[4] == str(rank["pid"])]
        assert inode == str(file.stat().st_ino)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--processes", "2", "--gpus", "1"], "2 processes need as many GPUs, or none at all: this job was given 1"),
        (["--processes", "3", "--nodes", "2"], "3 processes cannot be divided evenly among 2 nodes"),
        (["--processes", "2", "--nodes", "2"], "2 nodes need Slurm"),
        (["--processes", "4", "--gpus", "4"], "this job needs 4 GPUs and may use 2 here"),
    ],
)
def test_what_cannot_be_started_is_refused(launch, arguments, sentence):
    output, errors = ended(launch(*arguments, "stage"), status=2)
    assert not output
    assert errors.splitlines()[-1].startswith(f"error: {sentence}")


def test_a_job_that_asked_for_a_gpu_does_not_compute_on_the_cpu_unseen(launch):
    _, errors = ended(launch("--gpus", "1", "stage", pretended="0"), status=2)
    assert "this job requested GPUs (1), but NVIDIA's driver finds none" in errors


def test_processes_of_several_nodes_meet_where_slurms_variables_say(monkeypatch):
    variables = {"SLURM_JOB_ID": "123456", "SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = torchrun(2, 4, ["stage", "--seed", "0"])
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[-5:] == ["-m", "leap_repro.pipeline.launch.worker", "stage", "--seed", "0"]
    options = dict(zip(command[3:-5:2], command[4:-5:2], strict=True))
    assert options == {
        "--nnodes": "2",
        "--node-rank": "1",
        "--master-addr": "10.0.0.7",
        "--master-port": "23456",
        "--nproc-per-node": "4",
    }
