"""A dry run ends with its costs; a real run stops before its first job at what this machine lacks, or warns."""

import re

import pytest
from scratch import checkout_of, snakemake

GATED = "results/paper/models/llama3.2-1b/manifest.json"


@pytest.fixture(scope="module")
def papers_checkout(tmp_path_factory):
    return checkout_of(tmp_path_factory.mktemp("plan") / "checkout")


@pytest.fixture(scope="module")
def nobody(tmp_path_factory):
    """No network, no token, no cache."""
    home = str(tmp_path_factory.mktemp("home"))
    return {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": home, "HF_TOKEN": "", "HF_HUB_OFFLINE": ""}


def test_a_dry_run_of_the_papers_grid_prints_its_costs_without_network(papers_checkout, nobody):
    text = snakemake(papers_checkout, "-n", "--config", "scale=paper", variables=nobody)
    lines = re.findall(r"^([a-z].*?) {2,}([\d.< ]+)$", text.partition("Plan of this run, scale paper")[2], re.MULTILINE)
    rows = {name: [float(number.removeprefix("<")) for number in numbers.split()] for name, numbers in lines}
    assert rows["evaluate"][0] == 80
    assert rows["prune sparsegpt-2-4"][0] == 5  # MaskLLM's warm start, in no table
    assert (rows["prune magnitude"][2], rows["prune leap"][2]) == (0, 1)  # GPUs
    assert rows["prune leap"][3] > rows["prune wanda"][3] > 0  # GB of GPU memory
    assert rows["all"][4] == pytest.approx(sum(row[4] for name, row in rows.items() if name != "all"), abs=1)  # hours


def test_a_run_stops_before_its_first_job(papers_checkout, nobody):
    text = snakemake(papers_checkout, GATED, "--config", "scale=paper", variables=nobody, check=False)
    assert "these models are gated, and there is no token to fetch them: llama3.2-1b;" in text
    assert "--config preflight=warn" in text
    assert "Traceback" not in text
    assert not (papers_checkout / "logs/paper/models/llama3.2-1b.log").exists()


def test_it_goes_on_all_the_same_if_told_to(papers_checkout, nobody):
    arguments = (GATED, "--config", "scale=paper", "preflight=warn")
    text = snakemake(papers_checkout, *arguments, variables=nobody, check=False)
    assert "Warning: these models are gated, and there is no token to fetch them: llama3.2-1b" in text
    assert "no connection to http://127.0.0.1:9" in (papers_checkout / "logs/paper/models/llama3.2-1b.log").read_text()
