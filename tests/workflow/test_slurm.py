"""The tiny grid on a real Slurm: what jobs ask for, how they fail, and what an interrupted run leaves behind."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from scratch import checksums, edit, snakemake, start_again
from slurm_cluster import slurm, why_not

from leap_repro.costs.requests import request
from leap_repro.costs.resources import model_sizes
from leap_repro.pipeline.grid import read_study

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=f"needs a Slurm: {why_not()}")]

PROFILE = ["--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1"]
PARTITIONS = "{gpus: 1, partition: cpu, gpu_partition: gpu}"
WANDA = "results/tiny/{}/mini/wanda/0.5/0"
PATIENCE = 1800
"""Seconds that a run may take on a busy machine; on two quiet cores all runs together take three minutes."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm") / "cluster") as environment:
        yield environment


@contextlib.contextmanager
def started(folder, cluster, *arguments):
    """A running Snakemake that submits from `folder`; it writes to the file `output` there."""
    command = [sys.executable, "-m", "snakemake", "--nocolor", *PROFILE, *arguments]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=cluster,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE)


def submit(folder, cluster, *arguments):
    """Run Snakemake to its end: (exit status, output)."""
    with started(folder, cluster, *arguments) as process:
        status = process.wait(timeout=PATIENCE)
    return status, (folder / "output").read_text()


def jobs_of(folder, cluster):
    """What Slurm recorded of every job submitted from `folder`, oldest first: its names, its words."""
    shown = subprocess.run(["scontrol", "-o", "show", "jobs"], env=cluster, capture_output=True, text=True, check=True)
    jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in shown.stdout.splitlines()]
    return sorted((job for job in jobs if job.get("WorkDir") == str(folder)), key=lambda job: int(job["JobId"]))


def wait_for(folder, cluster, *states):
    """The jobs of `folder`, as soon as there are some and each is in one of `states`."""
    for _ in range(2 * PATIENCE):
        jobs = jobs_of(folder, cluster)
        if jobs and all(job["JobState"] in states for job in jobs):
            return jobs
        time.sleep(0.5)
    raise AssertionError(f"{jobs}\n{(folder / 'output').read_text()}")


def kinds(jobs):
    """How many Slurm jobs ran which rules."""
    return Counter(job["Comment"].removeprefix("rule_").split("_wildcards")[0] for job in jobs)


@pytest.fixture(scope="module")
def over_time(finished, cluster, tmp_path_factory):
    """(checkout, its Snakemake, which runs beside the other tests): a job that first sleeps through its minute."""
    folder = start_again(finished, tmp_path_factory.mktemp("over-time"))
    edit(folder, "src/leap_repro/costs/requests.py", "BASE_MINUTES = 20", "BASE_MINUTES = 0.5")
    python = folder / "tools/python"
    python.parent.mkdir()
    mark = python.with_name("slept")
    python.write_text(f'#!/bin/sh\n[ -e {mark} ] || {{ touch {mark}; exec sleep 900; }}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    target = ["--retries", "5", "results/tiny/models/mini/manifest.json"]  # a busy machine may need more than two
    with started(folder, cluster | {"PATH": f"{python.parent}:{cluster['PATH']}"}, *target) as process:
        yield folder, process


@pytest.fixture(scope="module")
def grid(finished, cluster, over_time, tmp_path_factory):
    """(checkout, its Slurm jobs): the whole tiny grid, run on the cluster."""
    folder = start_again(finished, tmp_path_factory.mktemp("grid"))
    edit(folder, "config.yaml", "    threads: 1\n", f"    threads: 1\n    cluster: {PARTITIONS}\n")
    status, output = submit(folder, cluster)
    assert status == 0, output
    return folder, jobs_of(folder, cluster)


def test_the_results_are_those_of_a_local_run(finished, grid):
    assert checksums(grid[0]) == checksums(finished)


def test_short_jobs_share_a_cluster_job(grid):
    grouped = {"data_fetch_data": 1, "model_build_tokens_fetch_model": 1, "score_evaluate_harden": 4}
    found = kinds(grid[1])
    assert found.pop(next(name for name in found if name.startswith("tables_"))) == 1
    assert found == {"prune": 4, **grouped}  # 11 for 29 of Snakemake's jobs
    assert {job["JobState"] for job in grid[1]} == {"COMPLETED"}


def asked(job):
    """The request of a Slurm job, in the words of `requests.Request`."""
    hours, minutes, _ = map(int, job["TimeLimit"].split(":"))
    gpu = int(job.get("TresPerJob", "gres:gpu:0").rpartition(":")[2])
    memory = int(job["MinMemoryNode"].removesuffix("M"))
    found = {"mem_mb": memory, "runtime": 60 * hours + minutes, "gpu": gpu, "slurm_partition": job["Partition"]}
    return found | {"nodes": int(job["NumNodes"].split("-")[0])}


def test_requests_come_from_the_rules(grid):
    folder, jobs = grid
    config = yaml.safe_load((folder / "config.yaml").read_text())
    study = read_study(config)
    size = model_sizes(study, Path("nowhere"), "mini")
    prune = "rule_prune_wildcards_mini_"
    found = {job["Comment"].removeprefix(prune): asked(job) for job in jobs if job["Comment"].startswith(prune)}
    cells = {"dense_0_0": "dense", "wanda_0.5_0": "wanda", "admm_0.5_0": "admm", "leap_0.5_0": "leap"}
    expected = {cell: vars(request("prune", study, size, method)) for cell, method in cells.items()}
    assert [expected[cell].pop("processes") for cell in cells] == [1, 1, 1, 1]
    assert found == expected
    assert {cell: values["slurm_partition"] for cell, values in found.items()} == {
        cell: "cpu" if cell.startswith("dense") else "gpu" for cell in cells
    }


def test_a_group_asks_for_its_largest_job_and_for_the_time_of_all(grid):
    by_kind = {kind: asked(job) for job in grid[1] for kind in kinds([job])}
    score, data = by_kind["score_evaluate_harden"], by_kind["data_fetch_data"]
    assert (score["gpu"], score["slurm_partition"]) == (1, "gpu")
    assert (data["gpu"], data["slurm_partition"]) == (0, "cpu")
    assert data["runtime"] == 4 * 20
    assert data["mem_mb"] == 1500 + 2500


def test_a_training_goes_over_two_nodes_and_is_that_of_one_process_but_for_rounding(checkout, cluster):
    manifest = "results/tiny/prune/mini/leap/0.5/0/manifest.json"
    folder = (checkout / manifest).parent
    edit(checkout, "config.yaml", "micro_batch_size: 2", "micro_batch_size: 1")
    snakemake(checkout, manifest)
    alone = load_file(folder / "payload/pruned.safetensors")
    shutil.rmtree(folder)
    several = "gpus: {leap: 2}\n    cluster: {gpus: 1, gpus_per_node: 1, partition: cpu, gpu_partition: both}\n"
    edit(checkout, "config.yaml", "    threads: 1\n", f"    threads: 1\n    {several}")
    status, output = submit(checkout, cluster, manifest)
    assert status == 0, output
    (job,) = jobs_of(checkout, cluster)
    assert (job["NodeList"], job["TresPerNode"]) == ("n[1-2]", "gres:gpu:1")
    assert (asked(job)["gpu"], asked(job)["nodes"]) == (2, 2)
    leased = re.findall(r"leased (\S+)$", (checkout / "logs/tiny/prune/mini/leap/0.5/0.log").read_text(), re.MULTILINE)
    assert sorted(leased) == ["pretended-0", "pretended-1"]
    assert json.loads((folder / "provenance.json").read_text())["machine"]["processes"] == 2
    together = load_file(folder / "payload/pruned.safetensors")
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, together[name], rtol=0, atol=1e-5)


def test_a_failing_job_is_reported_with_the_end_of_its_log(checkout, cluster):
    """Of a group of two the first fails: the second's log, which is not there, must not hide the first's."""
    shutil.rmtree(checkout / "logs")
    damaged = checkout / WANDA.format("prune") / "payload/mask.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for stage in ("harden", "evaluate"):
        shutil.rmtree(checkout / WANDA.format(stage))
    target = f"{WANDA.format('evaluate')}/manifest.json"
    status, output = submit(checkout, cluster, "--retries", "0", target)
    assert status == 1
    assert f"error: {damaged.relative_to(checkout)} is missing or differs" in output
    (job,) = jobs_of(checkout, cluster)
    assert job["JobState"] == "FAILED"
    assert f"log: {job['StdOut']} (check log file(s) for error details)" in output


def test_a_job_over_its_memory_is_tried_again_with_more(checkout, cluster):
    edit(checkout, "src/leap_repro/costs/requests.py", "BASE_MB = 1500", "BASE_MB = 300")
    manifest = checkout / WANDA.format("prune") / "manifest.json"
    manifest.unlink()
    status, output = submit(checkout, cluster, str(manifest.relative_to(checkout)))
    assert status == 0, output
    killed, second, *third = jobs_of(checkout, cluster)
    assert "Exceeded job memory limit" in Path(killed["StdOut"]).read_text()
    assert (killed["JobState"], [second, *third][-1]["JobState"]) == ("FAILED", "COMPLETED")  # cgroups: OUT_OF_MEMORY
    assert asked(second)["mem_mb"] == 2 * asked(killed)["mem_mb"]


def test_an_interrupt_cancels_the_cluster_jobs(finished, cluster, tmp_path):
    folder = start_again(finished, tmp_path)
    with started(folder, cluster) as process:
        wait_for(folder, cluster, "RUNNING")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) != 0
    jobs = wait_for(folder, cluster, "CANCELLED")
    assert not list(folder.glob("results/tiny/**/manifest.json")), jobs


def test_a_run_whose_login_node_died_goes_on_from_what_its_jobs_finished(finished, checkout, cluster):
    for stage in ("prune/mini/leap", "harden/mini/leap", "evaluate/mini/leap", "aggregate", "tables", "figures"):
        shutil.rmtree(checkout / "results/tiny" / stage)
    with started(checkout, cluster) as process:
        wait_for(checkout, cluster, "RUNNING")
        process.kill()
        process.wait()
    (orphan,) = wait_for(checkout, cluster, "COMPLETED")
    assert "prune" in orphan["Comment"]
    assert submit(checkout, cluster)[0] == 1  # locked
    assert submit(checkout, cluster, "--unlock")[0] == 0
    status, output = submit(checkout, cluster)
    assert status == 0, output
    assert not kinds(jobs_of(checkout, cluster)[1:])["prune"]
    assert checksums(checkout) == checksums(finished)


def test_a_job_over_its_time_is_tried_again_with_more(cluster, over_time):
    folder, process = over_time
    assert process.wait(timeout=PATIENCE) == 0, (folder / "output").read_text()
    first, second, *third = jobs_of(folder, cluster)
    assert (first["JobState"], [second, *third][-1]["JobState"]) == ("TIMEOUT", "COMPLETED")
    assert asked(second)["runtime"] == 2 * asked(first)["runtime"]
