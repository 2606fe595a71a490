"""The documentation site builds without a warning, its links lead to files of it, and the notebook runs.

Needs envs/docs.txt: without it these tests are skipped, and `.ci/run` installs it.
"""

import json
import os
import re
import sys
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from subprocess import run
from urllib.parse import unquote

import pytest

pytest.importorskip("mkdocs", reason="the site's packages are not installed: pip install -r envs/docs.txt")
TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a strict build fails at a warning, such as a link that leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = run(command, cwd=TOP, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


class Links(HTMLParser):
    """What a page refers to, and which places in it can be referred to."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.places = [], {"", "__skip"}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.targets += [named[key] for key in ("href", "src") if named.get(key)]
        self.places |= {named[key] for key in ("id", "name") if named.get(key)}


def test_every_link_of_the_site_leads_to_a_file_and_a_place_of_it(site):
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    pages.pop(site / "404.html")  # its links begin at the site's address
    assert len(pages) > 60
    for path, links in pages.items():
        for target in links.targets:
            if not re.match(r"\w+:", target):
                name, _, place = unquote(target).partition("#")
                file = (path.parent / name).resolve() if name else path
                file = file / "index.html" if file.is_dir() else file
                assert file.is_file(), f"{path.relative_to(site)}: {target}"
                assert file not in pages or place in pages[file].places, f"{path.relative_to(site)}: {target}"


def test_nothing_is_loaded_from_another_server(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?https?://", text), path


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("docs/api/library", "prune_model"),
        ("docs/api/methods", "drop_smallest_in_groups"),
        ("docs/notebooks/prune-a-miniature", "evaluate_model"),
        ("config", "scales"),
        ("benchmarks/one_shot", "SparseGPT"),
        ("CHANGELOG", "Unreleased"),
    ],
)
def test_a_page_has_its_content_and_is_found_by_the_search(site, page, words):
    assert words in (site / page / "index.html").read_text(encoding="utf-8")
    found = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))["docs"]
    assert any(entry["location"].startswith(f"{page}/") for entry in found)


def test_folders_and_notebooks_are_pages():
    spec = spec_from_file_location("hooks", TOP / "docs/site/hooks.py")
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.shown_as("figures/miniature") == "figures/miniature/README.md"
    assert hooks.shown_as("docs/notebooks/a.ipynb") == "docs/notebooks/a.md"
    assert hooks.shown_as("docs/plan.md") == "docs/plan.md"
    assert "* [main.md](main.md)\n" in hooks.listing(TOP / "figures/miniature")


def test_a_list_right_below_a_paragraph_is_a_list(site):
    """As on the forge; Python's Markdown would want an empty line between the two."""
    text = (site / "docs/index.html").read_text(encoding="utf-8")
    assert text.count("<li>") >= (TOP / "docs/README.md").read_text(encoding="utf-8").count("\n* ")


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path):
    """On a copy with one wrong link."""
    from shutil import copytree, ignore_patterns

    copy = copytree(TOP, tmp_path / "copy", ignore=ignore_patterns(".*", "results", "build", "tests", "src", "logs"))
    (copy / "src").symlink_to(TOP / "src")
    with (copy / "docs/plan.md").open("a", encoding="utf-8") as page:
        page.write("\n[nowhere](nowhere.md) and [no such part](memory.md#nothing)\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = run(command, cwd=copy, capture_output=True, text=True)
    assert built.returncode != 0
    assert "nowhere.md" in built.stderr
    assert "#nothing" in built.stderr


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """Every cell, with its assertions; what is stored in it was printed by the same code."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    path = TOP / "docs/notebooks/prune-a-miniature.ipynb"
    notebook = nbformat.read(path, as_version=4)
    stored = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count and cell.outputs for cell in stored)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
