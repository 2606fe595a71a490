"""Every kind of source answers the same questions, and nobody else asks which kind one is."""

import ast

import pytest

from leap_repro.errors import UserError
from leap_repro.miniature.bundled import bundled_models
from leap_repro.models.sources import SOURCES, meant_by, source_of

ROOMS_OF_SOURCES = ("models/sources.py", "pipeline/sources.py", "data/text.py", "data/tasks.py", "export/scores.py")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def test_what_a_command_line_means_is_of_one_kind(folder):
    assert meant_by(str(folder), "main") == {"source": "path", "path": str(folder)}
    assert meant_by("gemma3-1b-mini", "main") == {"source": "bundled", "name": "gemma3-1b-mini"}
    assert meant_by("a/b", "v1") == {"source": "hub", "id": "a/b", "revision": "v1"}
    with pytest.raises(UserError, match=r"MODEL is 'gpt-5-mini'; it must be .* one of \['gemma3-1b-mini'"):
        meant_by("gpt-5-mini", "main")


def test_where_a_model_lies_is_known_before_it_is_fetched(folder):
    specs = [meant_by(model, "main") for model in models(folder)]
    found = {spec["source"]: source_of(spec).folder(spec) for spec in specs}
    assert found == {"path": folder, "bundled": bundled_models()["gemma3-1b-mini"], "hub": None}


def models(folder):
    return str(folder), "gemma3-1b-mini", "a/b"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"source": "path", "path": "not/there"}, "^path is 'not/there'; it must be a folder that exists$"),
        ({"source": "bundled", "name": "gpt"}, r"^name is 'gpt'; the bundled models are \['gemma3-1b-mini'"),
    ],
)
def test_a_model_that_is_not_where_it_should_be_is_refused(spec, words):
    with pytest.raises(UserError, match=words):
        source_of(spec).folder(spec)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"model source 'ftp' is not one of \['bundled', 'hub', 'path'\]"):
        source_of({"source": "ftp"})


def test_names_and_licences(folder):
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    specs = [meant_by(model, "main") for model in models(folder)]
    assert [source_of(spec).name(spec) for spec in specs] == ["mine", "gemma3-1b-mini", "a/b"]
    assert [source_of(spec).licence(spec, {}) for spec in specs[:2]] == ["apache-2.0", "mit"]


def test_no_other_code_compares_a_source_with_a_kind(project):
    """`== "bundled"` and its like stand where sources live; what only the hub or a path has may be asked for."""
    for path in (project / "src/leap_repro").rglob("*.py"):
        if not path.as_posix().endswith(ROOMS_OF_SOURCES):
            for node in ast.walk(ast.parse(path.read_text())):
                compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                values = [part.value for part in compared if isinstance(part, ast.Constant)]
                assert "bundled" not in values, path
    assert set(SOURCES) == {"bundled", "path", "hub"}
