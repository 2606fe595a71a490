"""Load a method's file: one of this package, a file of one's own, or a module of an installed package.

A file that cannot be loaded, or that declares nothing, is named with its own error, and only when it is asked for.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from leap_repro.errors import UserError, reason
from leap_repro.places import expanded
from leap_repro.prune.declaration import Declaration

GROUP = "leap_repro.methods"
"""The entry points by which an installed package offers methods: `<name> = "<module>"`."""
OWN_FILES = "leap_repro_methods"
"""The package below which files of one's own stand among Python's modules, so that they hide nobody else's."""


def is_path(name: str) -> bool:
    """Whether `module:` names a file, and not a method by its name."""
    return name.endswith(".py")


def own_file(name: str) -> Path:
    """The file that `module:` names; UserError if there is none. A relative path starts at the working directory."""
    path = expanded(Path(name), "module").resolve()
    if not path.is_file():
        raise UserError(f"there is no file {name} with a pruning method in {Path.cwd()}")
    return path


@cache
def installed_methods() -> dict[str, EntryPoint]:
    """{name: entry point} of the methods of installed packages; UserError if two packages use one name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other.module != point.module:
            both = " and ".join(sorted([other.module, point.module]))
            raise UserError(f"two installed packages have a pruning method {point.name!r}: {both}; uninstall one")
    return found


def load_module(name: str) -> Declaration[Any]:
    """What a module of this package, or of an installed one, declares; UserError if it cannot be had."""
    return _declared(lambda: import_module(name), _file_of(name) or Path(name))


def load_file(file: Path) -> Declaration[Any]:
    """What a file of one's own declares; UserError if it cannot be had, or if another with its name is loaded."""
    return _declared(lambda: _executed(file), file)


def _file_of(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except Exception:  # of a package above it, which importing it will name
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _executed(file: Path) -> ModuleType:
    """The file's module, made once; no byte code is left beside the file, which could be that of an older text."""
    name = f"{OWN_FILES}.{file.stem}"
    if name in sys.modules:
        if sys.modules[name].__file__ != str(file):
            raise UserError(f"another method has the same name, {sys.modules[name].__file__}: rename one of the two")
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    try:
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _declared(read: Callable[[], ModuleType], file: Path) -> Declaration[Any]:
    try:
        method = getattr(read(), "METHOD", None)
    except (Exception, SystemExit) as error:
        raise UserError(f"the method file {file}{_line(error, file)}: {_own_words(error)}") from error
    if method is None:
        raise UserError(f"the method file {file} declares no METHOD: it must end with one")
    if not isinstance(method, Declaration):
        kinds = "LayerWise, Reconstruction, Learned or a class derived from Declaration"
        raise UserError(f"the method file {file}: METHOD is of type {type(method).__name__}; it must be {kinds}")
    return method


def _line(error: BaseException, file: Path) -> str:
    """ ", line <number>" of the last of the file's lines that was run, or that is no Python."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f", line {lines[-1]}" if lines else ""


def _own_words(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    words = error.msg if isinstance(error, SyntaxError) else reason(error)
    kind = type(error).__name__
    return words if words == kind else f"{kind}: {words}"
