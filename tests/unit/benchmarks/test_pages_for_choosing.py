"""What pages say of costs and results is what the plan and the published runs say."""

import sys
from importlib import import_module

import pandas as pd
import pytest


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
