"""A fingerprint of the first-party code that a job runs: what decides whether its result is stale.

The closure over `leap_repro` imports is read from the syntax trees, without importing anything, so it costs
milliseconds. Comments, formatting, docstrings and imports for type checkers do not enter; everything that can change a
result does. A module that a config names at run time (a pruner, say) is not in the closure of the stage that loads it:
the caller adds it.
The packages that the closure imports are read from the same trees, and their pinned versions from `envs/`.

Of a method outside this package enters what is the user's own: its file, or of an installed package every module that
it imports from that package. What such code imports besides must be installed: a file that lies beside it could be
edited without anybody noticing.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from leap_repro.errors import UserError

PACKAGE = "leap_repro"
SOURCE_ROOT = Path(__file__).resolve().parents[2]


def fingerprint(*modules: str, root: Path = SOURCE_ROOT) -> str:
    """sha256 (16 hexadecimal digits) over the normalised syntax trees of `modules` and all they import.

    A module is named with its dots, or by the path of its file. Raises ValueError for one that does not exist, and
    UserError for a module outside this package that imports what is not installed.
    """
    digest = hashlib.sha256()
    for name in sorted(closure(*modules, root=root), key=_label):
        digest.update(f"{_label(name)}:{_tree_digest(_file(name, root))}\n".encode())
    return digest.hexdigest()[:16]


def module_digests(*modules: str, root: Path = SOURCE_ROOT) -> dict[str, str]:
    """{module: 8 hexadecimal digits} of the closure: what tells afterwards which module changed."""
    return {_label(name): _tree_digest(_file(name, root))[:8] for name in closure(*modules, root=root)}


def _label(module: str) -> str:
    """How provenance calls a module: where a file of one's own lies does not matter."""
    return Path(module).name if _is_file(module) else module


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
    packages = {PACKAGE, *(name.split(".")[0] for name in modules if not _is_file(name))}
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file(name, root)
        found.add(name)
        imported = _imported_names(name, path)
        waiting.extend(other for other in imported if other.split(".")[0] in packages and _path(other, root))
        if name.split(".")[0] != PACKAGE:
            _require_installed(path, {other.split(".")[0] for other in imported} - packages)
        if "." in name and not _is_file(name) and _path(name.rpartition(".")[0], root):
            waiting.append(name.rpartition(".")[0])
    return frozenset(found)


def _is_file(module: str) -> bool:
    return module.endswith(".py")


def _file(name: str, root: Path) -> Path:
    path = _path(name, root)
    if path is None:
        raise ValueError(f"no module {name} under {root}")
    return path


def _path(name: str, root: Path) -> Path | None:
    if _is_file(name):
        path = Path(name).expanduser()
        return path if path.is_file() else None
    top = name.split(".")[0]
    folder = root if top == PACKAGE else _folder_of(top)
    if folder is None:
        return None
    base = folder.joinpath(*name.split("."))
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
def _folder_of(package: str) -> Path | None:
    """The folder from which Python imports a top-level package or module, if it is there."""
    try:
        spec = find_spec(package)
    except ValueError:  # a module that was not imported from a file
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return Path(places[0]).parent


def _require_installed(file: Path, packages: set[str]) -> None:
    """UserError for what a file outside this package imports that is neither Python's own nor installed."""
    for package in sorted(packages - sys.stdlib_module_names):
        folder = _folder_of(package) or file.resolve().parent
        is_there = (folder / f"{package}.py").exists() or (folder / package).is_dir()
        if is_there and not {"site-packages", "dist-packages"} & set(folder.parts):
            raise UserError(
                f"{file} imports {package} from {folder}, which is not installed, so that its edits would not be "
                "noticed; a method outside leap_repro is one file, or a module of an installed package "
                "(docs/extending.md)"
            )


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
def _imported_names(module: str, path: Path) -> frozenset[str]:
    """All that a module imports, by absolute name, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _source_of(node, module, path)
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
    return frozenset(names - {""})


def _source_of(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The absolute name of what `from … import` imports from; UserError for a relative one in a file by itself."""
    if not node.level:
        return node.module or ""
    if _is_file(module):
        raise UserError(
            f"{path}, line {node.lineno}: a method in a separate file belongs to no package, so "
            "it cannot use relative imports"
        )
    above = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    kept = above[: len(above) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _foreign_imports(name: str, root: Path) -> set[str]:
    return {name.split(".")[0] for name in _imported_names(name, _file(name, root))} - {PACKAGE}
