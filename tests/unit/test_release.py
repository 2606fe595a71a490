"""What a release names in several places is the same in all, and the files that others' tools read have their form."""

import re
from datetime import date

import pytest
import yaml

import leap_repro


@pytest.fixture
def citation(project):
    return yaml.safe_load((project / "CITATION.cff").read_text(encoding="utf-8"))


@pytest.fixture
def headings(project):
    return re.findall(r"^## (.+)$", (project / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_changelog_has_keep_a_changelogs_form(project, headings):
    assert headings[0] == "[Unreleased]"
    dates = [date.fromisoformat(re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\S+)", heading)[1]) for heading in headings[1:]]
    assert dates == sorted(dates, reverse=True)
    kinds = re.findall(r"^### (.+)$", (project / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_is_that_of_the_newest_release_everywhere(citation, headings):
    assert headings[1] == f"[{leap_repro.__version__}] - {citation['date-released']}"
    assert str(citation["version"]) == leap_repro.__version__


def test_the_catalogues_standardized_usage_has_its_files(project):
    """https://github.com/snakemake/snakemake-workflow-catalog: where they lie, and what they hold."""
    assert (project / "workflow/Snakefile").is_file()
    assert all(path.suffix == ".smk" for path in (project / "workflow/rules").iterdir())
    assert (project / "config/README.md").is_file()
    readme = (project / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    usage = yaml.safe_load((project / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert {*usage} == {"mandatory-flags", "software-stack-deployment", "report"}
    assert any(usage["software-stack-deployment"].values())


def test_issue_forms_have_what_a_forge_asks_of_them(project):
    for path in (project / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= {*form}, path.name
            assert {part["type"] for part in form["body"]} <= {
                "markdown",
                "textarea",
                "input",
                "dropdown",
                "checkboxes",
            }
            ids = [part["id"] for part in form["body"]]
            assert len(set(ids)) == len(ids)


def test_the_config_page_names_every_file_of_the_configuration(project):
    page = (project / "config/README.md").read_text(encoding="utf-8")
    for path in (project / "config").glob("*.yaml"):
        assert f"({path.name})" in page


def test_the_image_copies_what_it_installs(project):
    """The pins are copied before the rest, so that they are a layer of their own; every path is there."""
    lines = (project / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    for names in copied:
        assert all((project / name).exists() for name in names)
    python = re.search(r"^FROM python:(\d+\.\d+)", "\n".join(lines), re.MULTILINE)[1]
    assert f"python={python}" in (project / "envs/cpu.yaml").read_text(encoding="utf-8")
