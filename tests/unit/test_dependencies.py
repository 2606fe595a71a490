"""Every package that the code imports is declared in pyproject.toml, and every declared one is pinned in envs/."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

LOCAL = {"leap_repro"}
NAMED_OTHERWISE = {"yaml": "pyyaml"}
"""{import name: package}, where the package is called otherwise."""


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def declared(project):
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    lines = tomllib.loads(text)["project"]["dependencies"]
    return {normalised(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines}


def imported_by(folder):
    """{top-level name: a file that imports it}, without Python's own modules."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0]: path for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | LOCAL}


@pytest.mark.parametrize("folder", ["src", "tools"])
def test_what_is_imported_is_declared(project, declared, folder):
    beside = {path.stem for path in (project / folder).glob("*.py")}
    for name, path in imported_by(project / folder).items():
        assert name in beside or normalised(NAMED_OTHERWISE.get(name, name)) in declared, f"{path} imports {name}"


def test_the_names_of_packages_are_right():
    """As far as they are installed here (Triton is for Linux)."""
    providers = packages_distributions()
    for name, package in NAMED_OTHERWISE.items():
        assert package in {normalised(found) for found in providers[name]}


def test_what_is_declared_is_pinned(project, declared):
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==", (project / "envs/requirements.txt").read_text(), re.M)
    assert declared <= {normalised(name) for name in pins}
