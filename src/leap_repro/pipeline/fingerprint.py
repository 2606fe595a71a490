"""A fingerprint of the first-party code that a job runs: what decides whether its result is stale.

The closure over `leap_repro` imports is read from the syntax trees, without importing anything, so it costs
milliseconds. Comments, formatting, docstrings and imports for type checkers do not enter; everything that can change a
result does. A module that a config names at run time (a pruner, say) is not in the closure of the stage that loads it:
the caller adds it.
The packages that the closure imports are read from the same trees, and their pinned versions from `envs/`.
"""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

PACKAGE = "leap_repro"
SOURCE_ROOT = Path(__file__).resolve().parents[2]


def fingerprint(*modules: str, root: Path = SOURCE_ROOT) -> str:
    """sha256 (16 hexadecimal digits) over the normalised syntax trees of `modules` and all they import.

    Raises ValueError for a module that does not exist under `root`.
    """
    digest = hashlib.sha256()
    for name in closure(*modules, root=root):
        digest.update(f"{name}:{_tree_digest(_path(name, root))}\n".encode())
    return digest.hexdigest()[:16]


def module_digests(*modules: str, root: Path = SOURCE_ROOT) -> dict[str, str]:
    """{module: 8 hexadecimal digits} of the closure: what tells afterwards which module changed."""
    return {name: _tree_digest(_path(name, root))[:8] for name in closure(*modules, root=root)}


def closure(*modules: str, root: Path = SOURCE_ROOT) -> list[str]:
    """The sorted first-party modules that `modules` run, themselves included."""
    return sorted(_closure(frozenset(modules), root))


CAN_CHANGE_A_NUMBER = {
    "torch": ("torch",),
    "triton": ("triton",),
    "transformers": ("transformers", "tokenizers"),
    "tokenizers": ("tokenizers",),
    "safetensors": ("safetensors",),
    "lm_eval": ("lm_eval", "datasets"),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "pandas": ("pandas", "pyarrow"),
    "pyarrow": ("pyarrow",),
    "matplotlib": ("matplotlib",),
}
"""Import name -> the packages behind it whose version can change a result. A progress bar is not among them."""


def packages(*modules: str, root: Path = SOURCE_ROOT) -> list[str]:
    """The sorted packages (keys of `envs/requirements.txt`) that can change what the closure of `modules` computes."""
    imported = {name for module in closure(*modules, root=root) for name in _foreign_imports(module, root)}
    return sorted({package for name in imported for package in CAN_CHANGE_A_NUMBER.get(name, ())})


def read_pins(requirements: Path) -> dict[str, str]:
    """{package: version} of the lines `package==version`; extras and comments are left out."""
    pins = re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s#;]+)", requirements.read_text(encoding="utf-8"), re.MULTILINE
    )
    return dict(pins)


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


class _WithoutTypes(ast.NodeTransformer):
    """Drops what stands under `if TYPE_CHECKING:`, which never runs."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        only_types = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        return node.orelse if only_types else node


@cache
def _parsed(path: Path) -> ast.Module:
    tree = _WithoutTypes().visit(ast.parse(path.read_text(encoding="utf-8")))
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
def _imported_names(path: Path) -> frozenset[str]:
    """All that a module imports by absolute name, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def _imports(name: str, root: Path) -> list[str]:
    names = _imported_names(_path(name, root))
    return [name for name in names if name.split(".")[0] == PACKAGE and _path(name, root)]


def _foreign_imports(name: str, root: Path) -> set[str]:
    return {name.split(".")[0] for name in _imported_names(_path(name, root))} - {PACKAGE}
