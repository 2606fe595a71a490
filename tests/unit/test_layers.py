"""Data flows one way: every room stands on lower floors only, and no two modules import each other.

The floors, from the ground up. A room may import itself, the rooms below it that are named, and nothing else.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "leap_repro"
GROUND = {"errors", "cli", "seeds", "checked", "progress", "places"}
STORE = GROUND | {"store", "sparsity"}
STAGE = STORE | {"models"}
PIPELINE = STAGE | {"hub", "miniature", "portable", "data", "calibration", "prune", "harden", "evaluate", "pipeline"}
FLOORS = {
    # what everything shares
    "errors": set(),
    "cli": GROUND,
    "seeds": GROUND,
    "checked": GROUND,
    "progress": GROUND,
    "places": GROUND,
    "portable": GROUND,
    "store": GROUND,
    "sparsity": GROUND | {"store"},
    "hub": STORE,
    "miniature": STORE,
    # what is done, in the order in which data flow
    "models": STORE | {"hub", "miniature"},
    "data": STAGE | {"hub", "miniature"},
    "calibration": STAGE,
    "prune": STAGE | {"portable"},
    "harden": STAGE,
    "evaluate": STAGE | {"portable"},
    "export": STAGE | {"evaluate", "runtime"},
    "runtime": STAGE,
    "library": STAGE
    | {"miniature", "portable", "data", "calibration", "prune", "harden", "evaluate", "export"}
    | {"runtime"},
    # what only the workflow needs
    "pipeline": PIPELINE,
    "costs": PIPELINE,
    "report": PIPELINE,
    "own_model": PIPELINE | {"costs", "export"},
    "__main__": GROUND,
}
PRUNE = {
    "declaration": {"job"},
    "job": {"declaration", "layerwise"},
    "loading": {"declaration"},
    "layerwise": {"declaration", "job"},
    "learned": {"declaration", "job"},
    "methods": {"declaration", "job", "loading", "layerwise", "learned"},
}
"""The rooms within prune. A declaration names the job for type checkers only."""


def imported_by(path):
    """Every name that a source file imports, at its top or in a function; relative imports are refused."""
    return imported(path.read_text(encoding="utf-8"))


def imported(text):
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are invisible to the fingerprint"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def rooms(names, below="leap_repro"):
    """The modules and packages right under `below` that are among the imported names."""
    depth = below.count(".") + 1
    parts = [name.split(".") for name in names if name.startswith(f"{below}.")]
    return {part[depth] for part in parts}


def files_of(room):
    path = SOURCE / room
    return [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.rglob("*.py"))


def modules_at_the_top():
    """{module: what it imports as soon as it is imported itself}, without what is for type checkers only."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(("leap_repro", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        found[name] = imported(ast.unparse(tree))
    return {name: {other for other in found if other in names and other != name} for name, names in found.items()}


def test_imports_are_found_wherever_they_stand():
    text = "import leap_repro.prune.methods.admm\nfrom leap_repro.store import masks\ndef f():\n"
    text += "    import leap_repro.data\n"
    assert rooms(imported(text)) == {"prune", "store", "data"}
    assert rooms(imported(text), "leap_repro.prune") == {"methods"}


def test_every_room_has_its_floor():
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}
    assert packages | modules == set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_stands_on_the_floors_below_it(room):
    for path in files_of(room):
        above = rooms(imported_by(path)) - FLOORS[room] - {room}
        assert not above, f"{path.relative_to(SOURCE)} imports {sorted(above)}"


@pytest.mark.parametrize("room", PRUNE)
def test_a_room_of_prune_stands_on_those_below_it(room):
    for path in files_of(f"prune/{room}"):
        above = rooms(imported_by(path), "leap_repro.prune") - PRUNE[room] - {room}
        assert not above, f"{path.relative_to(SOURCE)} imports {sorted(above)}"


def test_no_module_imports_one_that_imports_it():
    """However long the way round."""
    imports, waiting = modules_at_the_top(), []
    while imports:
        waiting = [name for name, others in imports.items() if not others]
        assert waiting, f"a circle among {sorted(imports)}"
        imports = {name: others - set(waiting) for name, others in imports.items() if name not in waiting}
