"""Pages speak of what there is: links, paths, modules, commands, option tables."""

import ast
import importlib
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import option_tables
import pytest
from snakemake.cli import get_argument_parser

from leap_repro.prune.methods import declaration, names

TOP = Path(__file__).resolve().parents[2]
PAGES = ("*.md", "figures/*.md", "config/*.md", "docs/**/*.md", "examples/*/*.md")
EVERY_PAGE = [page for pattern in PAGES for page in sorted(TOP.glob(pattern))]
PLACES = ("", "src/leap_repro/", "benchmarks/", "tests/unit/prune/")
each_page = pytest.mark.parametrize("page", EVERY_PAGE, ids=[str(page.relative_to(TOP)) for page in EVERY_PAGE])


@each_page
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_reachable_from_the_documentation_map():
    """By links from page to page; benchmarks/*.md and what a run wrote are reached from the pages that cite them."""
    waiting, seen = [TOP / "docs/README.md"], set()
    while waiting:
        page = waiting.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s:]+\.(?:md|ipynb))[^)]*\)", page.read_text(encoding="utf-8"))
        waiting += {(page.parent / link).resolve() for link in links} - seen
    wanted = [
        page for pattern in ("docs/**/*.md", "examples/*/README.md", "docs/**/*.ipynb") for page in TOP.glob(pattern)
    ]
    missing = {*wanted, TOP / "figures/README.md", TOP / "config/README.md"} - seen
    assert not missing, "link to these in docs/README.md, which is the site's navigation"


@each_page
def test_every_config_value_of_a_command_is_one(page):
    """Snakemake reads every word after --config as name=value, and ends in a traceback for a target."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for values in re.findall(r"(?:^|`)snakemake [^`\n#]*?--config ([^`\n#]*)", text, re.MULTILINE):
        for word in shlex.split(values.split(" -")[0]):
            assert "=" in word, values


@each_page
def test_every_snakemake_command_of_a_page_is_one_that_snakemake_understands(page):
    """A bare `--cores`, for one, it does not."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(r"(?:^|`)snakemake (-[^`\n#]*)", text, re.MULTILINE):
        if "--reporter" not in command:  # options of a plugin are known where it is installed
            get_argument_parser().parse_args(shlex.split(command.replace("<", "").replace(">", "").replace("…", "")))


@each_page
def test_every_source_file_of_a_page_is_there(page):
    """`prune/job.py` means src/leap_repro/prune/job.py."""
    for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/[\w-]+\.(?:py|smk|yaml))`", page.read_text(encoding="utf-8")):
        generated = path.startswith("my-")
        assert generated or any((TOP / place / path).is_file() for place in PLACES), path


@each_page
def test_every_module_of_a_page_is_there(page):
    for command in re.findall(r"python -m (leap_repro[\w.]*\w)", page.read_text(encoding="utf-8")):
        assert find_spec(command) is not None, command


@each_page
def test_every_import_of_a_pages_python_works(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                found = importlib.import_module(node.module)
                assert all(hasattr(found, part.name) or find_spec(f"{node.module}.{part.name}") for part in node.names)


@pytest.mark.parametrize("name", [name for name in names() if name != "dense"])
def test_the_option_table_of_a_methods_page_is_its_declaration(name):
    page = TOP / f"docs/methods/{name}.md"
    assert page.is_file(), f"{name} needs a page docs/methods/{name}.md: see CONTRIBUTING.md"
    text = page.read_text(encoding="utf-8")
    assert f"<!-- options of {name} -->" in text, "the page needs the markers of its option table: see CONTRIBUTING.md"
    again = "`python tools/option_tables.py docs/methods/*.md` writes it anew"
    assert option_tables.table(declaration(name).options) in text, again
    assert option_tables.filled(text) == text, again


def test_every_option_of_a_method_is_on_its_page_or_on_the_page_of_shared_options():
    shared = (TOP / "docs/methods/options.md").read_text(encoding="utf-8")
    assert option_tables.filled(shared) == shared, "`python tools/option_tables.py docs/methods/*.md` writes it anew"
    rows = {name: option_tables.table(kind) for name, kind in option_tables.SHARED.items()}
    for name in names():
        options = declaration(name).options
        own = option_tables.table(options)
        linked = "".join(table for heading, table in rows.items() if f"[{heading}](options.md#" in own)
        for option in options.model_fields:
            assert f"| `{option}` |" in own + linked, (name, option)


def test_every_option_says_what_it_is_for():
    for name in names():
        for option, field in declaration(name).options.model_fields.items():
            assert field.description, f"{name}: {option} has no description"
