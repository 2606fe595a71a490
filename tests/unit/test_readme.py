"""What the README shows is what a run wrote: its tables are the published files, and those agree with the parquet."""

from pathlib import Path

import pandas as pd
import pytest

from leap_repro.aggregate.publish import BLOCK, filled

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PUBLISHED = REPOSITORY / "figures/miniature"


def test_readme_shows_the_published_tables():
    assert {match["name"] for match in BLOCK.finditer(README)} >= {"main.md", "time.md"}
    assert filled(README, PUBLISHED) == README


def test_readme_shows_published_figures():
    for name in ("density.png", "accuracy.png"):
        assert f"figures/miniature/{name}" in README
        assert (PUBLISHED / name).is_file()


def test_published_table_is_that_of_the_published_results():
    results = pd.read_parquet(PUBLISHED / "results.parquet")
    table = pd.read_csv(PUBLISHED / "main.csv").set_index(["sparsity_target", "method"])
    averages = results[results["task"] == "average"].set_index(["sparsity_target", "method", "model"])["value"]
    assert len(averages) == 55
    for (sparsity, method, model), value in averages.items():
        assert table.loc[(sparsity, method), model] == pytest.approx(value)


def test_averages_are_the_means_of_their_six_tasks():
    results = pd.read_parquet(PUBLISHED / "results.parquet")
    accuracy = results[results["metric"] == "acc"]
    for _, cell in accuracy.groupby(["model", "method", "sparsity_target", "seed"]):
        by_task = cell.set_index("task")["value"]
        assert by_task["average"] == pytest.approx(by_task.drop("average").mean())
        assert len(by_task) == 7


def test_readme_has_one_fenced_block_for_run_and_for_test():
    for heading, last in (("## Run", "snakemake --cores"), ("## Test", "pytest")):
        section = README.split(f"\n{heading}\n")[1].split("\n## ")[0]
        blocks = section.split("```")
        assert len(blocks) >= 3, heading
        commands = blocks[1].strip().splitlines()[1:]
        assert commands[-1].startswith(last)
