"""The pages that show a first run on published models: their commands are planned, and cost what the pages say."""

import csv
import re
import shlex
import shutil
import subprocess

import pytest
from scratch import REPOSITORY, checkout_of, environment, snakemake

PAGES = ("your-pruner", "reproduce-one-number")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = checkout_of(tmp_path_factory.mktemp("first") / "checkout")
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    return folder


def blocks(page, kind):
    text = (REPOSITORY / f"docs/{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_command_of_the_page_is_planned_and_costs_what_the_page_says(checkout, page):
    files = [block for block in blocks(page, "bash") if not block.startswith("snakemake")]
    for block in files:
        subprocess.run(["bash", "-euc", block], cwd=checkout, env=environment(), check=True, timeout=60)
    command = next(block for block in blocks(page, "bash") if block.startswith("snakemake"))
    output = snakemake(checkout, *shlex.split(command)[3:], "-n", "--quiet", "all")
    (table,) = blocks(page, "text")
    assert table in output


def test_the_other_numbers_of_the_pages_are_the_tables():
    (table,) = blocks("reproduce-one-number", "text")
    jobs, _, _, _, hours, disk = table.splitlines()[-1].split()[1:]
    text = " ".join((REPOSITORY / "docs/reproduce-one-number.md").read_text(encoding="utf-8").split())
    assert f"{jobs} jobs, {float(disk):.0f} GB of disk and {float(hours):.0f} GPU-hours" in text
    with open(REPOSITORY / "src/leap_repro/report/data/published_results.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "LLaMA-3.2 1B" and row["task"] == "average_6"]
    found = {row["method"]: row["value"] for row in rows if row["sparsity"] == "0.6"}
    assert f"accuracy of {found['LEAP']} for LEAP and {found['ADMM']} for ADMM" in text
