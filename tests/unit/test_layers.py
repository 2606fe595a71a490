"""Data flows one way: a stage imports the ground floor and itself, never a later stage."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "leap_repro"
STAGES = ("models", "data", "calibration", "prune", "harden", "evaluate", "aggregate", "figures")
GROUND = {"errors", "cli", "seeds", "budget", "artifacts", "fingerprint", "provenance", "config", "masks", "patterns"}
GROUND |= {"atomic", "hub", "inputs", "lock", "options", "plan", "preflight", "progress", "resources", "tensor_files"}
GROUND |= {"texts", "tiles", "tokens", "why"}
ALSO = {"data": {"miniature"}, "figures": {"aggregate"}}
ROOMS = {path.stem for path in SOURCE.iterdir()}


def rooms_imported(text):
    """The modules and packages right under leap_repro that a source text imports, at the top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are invisible to the fingerprint"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "leap_repro" and len(part) > 1 and part[1] in ROOMS}


def rooms_imported_by(package):
    return set().union(*(rooms_imported(path.read_text(encoding="utf-8")) for path in (SOURCE / package).glob("*.py")))


def test_imports_are_found_wherever_they_stand():
    text = "import leap_repro.prune.methods.admm\nfrom leap_repro import masks\ndef f():\n    from leap_repro.data import fetch\n"
    assert rooms_imported(text) == {"prune", "masks", "data"}


def test_every_package_is_a_known_stage_or_the_miniature():
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages == {*STAGES, "miniature"}


def test_every_module_of_the_ground_floor_is_known():
    assert {path.stem for path in SOURCE.glob("*.py")} == GROUND | {"__init__"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_itself_and_the_ground_floor(stage):
    allowed = GROUND | {"models", stage} | ALSO.get(stage, set())
    assert rooms_imported_by(stage) <= allowed


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_later_stage(stage):
    later = set(STAGES[STAGES.index(stage) + 1 :])
    assert not rooms_imported_by(stage) & later


def test_the_ground_floor_stands_on_nothing_above_it():
    for path in SOURCE.glob("*.py"):
        assert rooms_imported(path.read_text(encoding="utf-8")) <= GROUND, path.name


def test_the_miniature_imports_no_stage():
    assert rooms_imported_by("miniature") <= GROUND | {"miniature"}
