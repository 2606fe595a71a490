"""What the repository shows is what a run wrote: pages against published files, tables against published results."""

import re

import pandas as pd
import pytest

from leap_repro.aggregate.layout import wide
from leap_repro.aggregate.publish import BLOCK, filled, publish_files

PUBLISHED = "figures/miniature"


def pages(project):
    return [project / "README.md", *sorted((project / "docs").rglob("*.md"))]


def test_every_page_shows_its_files_to_the_letter(project):
    shown = 0
    for page in pages(project):
        text = page.read_text(encoding="utf-8")
        assert filled(text, project) == text, page
        shown += len(BLOCK.findall(text))
    assert shown >= 3


def test_every_marker_is_closed(project):
    for page in pages(project):
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"<!-- /?\S+\.md -->", text)) == 2 * len(BLOCK.findall(text)), page


def test_every_link_to_a_file_leads_somewhere(project):
    for page in pages(project):
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), (page, link)


@pytest.mark.parametrize("grid", ["", "extended/"])
def test_the_published_main_table_follows_from_the_published_results(project, grid):
    folder = project / PUBLISHED / grid
    means = wide(pd.read_parquet(folder / "results.parquet")).pivot_table(
        index=["sparsity_target", "method"], columns="model", values="average", sort=False
    )
    table = pd.read_csv(folder / "main.csv").set_index(["sparsity_target", "method"])
    assert len(table) == len(means)
    for model in means.columns:
        assert table[model].to_dict() == pytest.approx(means[model].to_dict(), nan_ok=True)
    assert table["Mean"].to_dict() == pytest.approx(means.mean(axis=1, skipna=False).to_dict(), nan_ok=True)


def test_a_block_without_its_file_is_refused(refused, tmp_path):
    with refused("lost.md"):
        filled("<!-- lost.md -->\n<!-- /lost.md -->", tmp_path)


def test_blocks_are_replaced_and_the_rest_stays(tmp_path):
    (tmp_path / "a.md").write_text("| new |\n")
    page = "before\n<!-- a.md -->\n| old |\n<!-- /a.md -->\nafter\n"
    assert filled(page, tmp_path) == page.replace("old", "new")


def test_an_unfinished_run_is_refused(refused, tmp_path):
    with refused("results.parquet"):
        publish_files(tmp_path, tmp_path / "target")
