"""What pages say of costs and results is what the plan and the published runs say."""

import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from leap_repro.costs.plan import jobs_of, summary
from leap_repro.pipeline.grid import read_study
from leap_repro.pipeline.reading import read_config


@pytest.fixture(autouse=True)
def scripts(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    yield
    for name in ("measure", "method_choice"):
        sys.modules.pop(name, None)


def test_the_table_to_choose_by_is_the_plan_and_the_published_runs(project):
    found = import_module("method_choice").table()
    assert found == (project / "benchmarks/method_choice.md").read_text(), "run `python benchmarks/method_choice.py`"
    assert found.strip() in (project / "docs/choosing-a-method.md").read_text()


def test_a_training_of_leap_reads_the_papers_tokens_and_magnitude_none():
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in import_module("method_choice").table().splitlines()}
    assert rows["LEAP"][1] == f"{2000 * 256 * 4096 / 1e6:,.0f}"
    assert rows["Magnitude"][1:3] == ["0", "no GPU"]


def test_leap_leads_admm_on_the_miniature_by_as_much_as_the_page_says(project):
    lead = pd.read_csv(project / "figures/miniature/evidence/claims.csv").iloc[0]["value"]
    assert f"leads ADMM by {lead:+.2f} points" in " ".join((project / "docs/choosing-a-method.md").read_text().split())


@pytest.fixture(scope="module")
def paper(project):
    """(jobs of the paper's grid, their sum) with a list of what is cleaned up."""

    def planned(clean_up):
        config = read_config(project=project) | {"scale": "paper"}
        scale = config["scales"]["paper"] | {"clean_up": clean_up}
        jobs = list(jobs_of(read_study(config | {"scales": config["scales"] | {"paper": scale}}), Path("nowhere")))
        return jobs, summary(jobs, lambda job: False)[-1]

    return planned


def test_the_page_on_costs_says_what_the_papers_grid_takes(project, paper):
    _, whole = paper(["tokens"])
    page = " ".join((project / "docs/plan.md").read_text(encoding="utf-8").split())
    assert f"about {whole.hours:.0f} H100-hours, {whole.disk_bytes / 1e9:.0f} GB of disk" in page
    assert f"{whole.gpu_bytes / 1e9:.0f} GB of GPU memory" in page


@pytest.mark.parametrize("clean_up", [[], ["tokens"], ["logits"], ["tokens", "logits"]])
def test_the_page_on_costs_says_what_cleaning_up_leaves(project, paper, clean_up):
    jobs, whole = paper(clean_up)
    left = sum(job.disk_bytes for job in jobs if not job.is_cleaned)
    row = next(
        line
        for line in (project / "docs/plan.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `[{', '.join(clean_up)}]`")
    )
    assert row.split(" | ")[2] == f"{whole.disk_bytes / 1e9:.0f}, {left / 1e9:.0f}"
