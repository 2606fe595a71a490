"""A run on the machine that tests is the published one, to the byte: one model, the method that amplifies rounding most
among those that solve, and a whole training."""

import subprocess
import sys

import pytest
import yaml
from scratch import REPOSITORY, checkout_of, environment, snakemake

MODEL, METHODS, SPARSITY = "qwen2.5-0.5b-mini", ["dense", "admm", "leap"], 0.6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkout in which the cells of one model were run from nothing, with the released configuration otherwise."""
    checkout = checkout_of(tmp_path_factory.mktemp("published") / "checkout")
    fewer = {"methods": METHODS, "extended": [], "sparsities": [SPARSITY]}
    (checkout / "fewer.yaml").write_text(yaml.safe_dump({"scales": {"miniature": fewer}}))
    target = f"results/miniature/aggregate/{MODEL}/manifest.json"
    snakemake(checkout, target, "--configfile", "fewer.yaml")
    return checkout


@pytest.mark.slow
def test_masks_and_numbers_are_the_published_ones(run):
    record = REPOSITORY / "figures/miniature/results.parquet"
    command = [sys.executable, "-m", "leap_repro.report.verify", "--record", str(record)]
    done = subprocess.run(command, cwd=run, env=environment(), capture_output=True, text=True, check=False)
    assert "3 cells compared with the published run: 3 identical (3 masks identical)" in done.stdout, done.stdout
    assert done.returncode == 0
