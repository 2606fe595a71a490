"""The report's first page: a table's own page and figures, in one piece."""

import base64
import re
from pathlib import Path

import pandas as pd
import pytest
from snakemake.report import html_reporter

from leap_repro.report import front_page
from leap_repro.report.render import Table

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture
def page():
    shown = pd.DataFrame({"Method": ["LEAP", "ADMM"], "Average": ["60.0", "<58>"]})
    return Table("Main & all", shown, shown, {(0, "Average")}, notes="What Δ is.").html()


def test_the_page_has_the_table_then_the_figures_then_the_notes(page):
    found = front_page.front_page(page, [("forest", PNG), ('a "b"', b"2")])
    table = page[page.index("<table") : page.index("</table>") + len("</table>")]
    image = f'<img alt="forest" src="data:image/png;base64,{base64.b64encode(PNG).decode()}">'
    assert "<b>60.0</b>" in table
    assert "Main &amp; all" in table
    places = [found.index(part) for part in (table, image, 'alt="a &quot;b&quot;"', "<p>What Δ is.</p>")]
    assert places == sorted(places)


def test_the_page_needs_nothing_else_and_is_no_whole_document(page):
    found = front_page.front_page(page, [("forest", PNG)])
    assert found.count("<table") == found.count("</table>") == 1
    for foreign in ("<html", "<head", "<title", "http", "href"):
        assert foreign not in found
    assert found.count("<div") == found.count("</div>") == 1


def test_a_tall_page_begins_at_its_top_in_snakemakes_report(page):
    """Snakemake centres a page in an element of these classes, which cuts off the top of a tall one."""
    template = Path(html_reporter.__file__).parent / "template/components/content.js"
    classes = front_page.CONTAINER.split(".")[1:]
    holders = [set(found.split()) for found in re.findall(r'className: "([^"]*)"', template.read_text())]
    assert any(set(classes) <= holder for holder in holders), "another Snakemake: look at a report of 25 rows"
    assert f"{front_page.CONTAINER}:has(.front){{align-items:flex-start}}" in front_page.front_page(page, [])


def test_a_page_without_a_table_is_refused(refused):
    for page in ("", "<p>nothing</p>", "<!doctype html><p>a</p><table>"):
        with refused("no table"):
            front_page.front_page(page, [])


def test_the_command_reads_the_files_and_writes_the_page(page, tmp_path):
    (tmp_path / "main.html").write_text(page, encoding="utf-8")
    (tmp_path / "forest.png").write_bytes(PNG)
    given = ["--table", "main.html", "--figures", "forest.png", "--output", "front.html"]
    given = [str(tmp_path / text) if "." in text else text for text in given]
    front_page.main(front_page.parser().parse_args(given))
    expected = front_page.front_page(page, [("forest", PNG)])
    assert (tmp_path / "front.html").read_text(encoding="utf-8") == expected
