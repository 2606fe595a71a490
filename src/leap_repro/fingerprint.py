"""A fingerprint of the first-party code that a job runs: what decides whether its result is stale.

The closure over `leap_repro` imports is read from the syntax trees, without importing anything, so it costs
milliseconds. Comments, formatting and docstrings do not enter; everything that can change a result does. A module that
a config names at run time (a pruner, say) is not in the closure of the stage that loads it: the caller adds it.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = "leap_repro"
SOURCE_ROOT = Path(__file__).resolve().parent.parent


def fingerprint(*modules: str, root: Path = SOURCE_ROOT) -> str:
    """sha256 (16 hexadecimal digits) over the normalised syntax trees of `modules` and all they import.

    Raises ValueError for a module that does not exist under `root`.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(frozenset(modules), root)):
        digest.update(f"{name}:{_tree_digest(_path(name, root))}\n".encode())
    return digest.hexdigest()[:16]


def closure(*modules: str, root: Path = SOURCE_ROOT) -> list[str]:
    """The sorted first-party modules that `modules` run, themselves included."""
    return sorted(_closure(frozenset(modules), root))


@cache
def _closure(modules: frozenset[str], root: Path) -> frozenset[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _path(name, root)
        if path is None:
            raise ValueError(f"no module {name} under {root}")
        found.add(name)
        waiting.extend(_imports(name, root))
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return frozenset(found)


def _path(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _parsed(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


@cache
def _tree_digest(path: Path) -> str:
    return hashlib.sha256(ast.dump(_parsed(path), include_attributes=False).encode()).hexdigest()


@cache
def _imports(name: str, root: Path) -> tuple[str, ...]:
    """First-party modules that `name` imports by absolute name, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(_parsed(_path(name, root))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(sorted(n for n in names if n.split(".")[0] == PACKAGE and _path(n, root)))
