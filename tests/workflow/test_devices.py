"""GPUs in the workflow, with pretended ones: who computes on which and when, and a training on two."""

import json
import re
import shutil
from datetime import datetime
from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file
from scratch import edit, snakemake, start_again

LEAP = "results/tiny/prune/mini/leap/0.5/0"
LEASED = re.compile(r"^(\S+ \S+) leap_repro.pipeline: leased (.*)$", re.MULTILINE)
PRUNED = [f"results/tiny/prune/mini/{cell}/manifest.json" for cell in ("dense/0/0", "wanda/0.5/0", "admm/0.5/0")]


def leases(folder):
    """(device, start, end) of every job that leased one: from its own words until its result was whole."""
    found = []
    for log in folder.glob("logs/tiny/*/mini/*/*/*.log"):
        for start, devices in LEASED.findall(log.read_text()):
            manifest = folder / "results" / log.relative_to(folder / "logs").with_suffix("") / "manifest.json"
            began = datetime.strptime(start, "%Y-%m-%d %H:%M:%S,%f").timestamp()
            found += [(device, began, manifest.stat().st_mtime) for device in devices.split(", ")]
    return found


@pytest.mark.parametrize("count", [1, 2])
def test_jobs_that_run_at_once_have_devices_of_their_own(finished, tmp_path, count):
    """The words of those that had to wait for a device would show that Snakemake started more than there are."""
    folder = start_again(finished, tmp_path)
    leases_of_its_own = tmp_path / "temporary"
    leases_of_its_own.mkdir()
    variables = {"LEAP_REPRO_PRETEND_DEVICES": str(count), "TMPDIR": str(leases_of_its_own)}
    output = snakemake(folder, *PRUNED, variables=variables)
    found = leases(folder)
    assert len(found) == 2  # not dense
    assert {device for device, _, _ in found} == {f"pretended-{index}" for index in range(count)}
    for (device, start, end), (other, other_start, other_end) in combinations(found, 2):
        assert device != other or end <= other_start or other_end <= start
    assert f'Resource("gpu", {count})' in output
    assert not [log for log in folder.glob("logs/**/*.log") if "waiting for" in log.read_text()]


def test_a_training_on_two_processes_is_that_of_one_but_for_rounding(checkout):
    """Without a GPU here two processes of the CPU; the result says so, and is fresh for one process as well."""
    edit(checkout, "config.yaml", "micro_batch_size: 2", "micro_batch_size: 1")
    manifest = f"{LEAP}/manifest.json"
    snakemake(checkout, manifest)
    alone = load_file(checkout / LEAP / "payload/pruned.safetensors")
    edit(checkout, "config.yaml", "    threads: 1\n", "    threads: 1\n    gpus: {leap: 2}\n")
    assert "Nothing to be done" in snakemake(checkout, "-n", manifest)
    shutil.rmtree(checkout / LEAP)
    output = snakemake(checkout, manifest)
    assert "--processes 2" in output
    together = load_file(checkout / LEAP / "payload/pruned.safetensors")
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(tensor, together[name], rtol=0, atol=1e-5)
    assert json.loads((checkout / LEAP / "provenance.json").read_text())["machine"]["processes"] == 2


def test_more_gpus_than_the_machine_has_are_refused_before_any_job(checkout):
    edit(checkout, "config.yaml", "micro_batch_size: 2", "micro_batch_size: 1")
    edit(checkout, "config.yaml", "    threads: 1\n", "    threads: 1\n    cluster: {gpus: 1}\n    gpus: {leap: 2}\n")
    text = snakemake(checkout, variables={"LEAP_REPRO_PRETEND_DEVICES": "1x80"}, check=False)
    assert "a cell of leap is trained on 2 GPUs, but 1 may be used here: set `gpus: {leap: 1}` under the scale" in text
    assert "Finished jobid" not in text
