"""The pruning methods of this package, one file each: a file that ends with `METHOD = …` is a method, and there is no
other list. A method may also be outside the package: in a file of your own, or in an installed package."""

from __future__ import annotations

import pkgutil
from contextlib import suppress
from functools import cache
from typing import Any

from leap_repro.errors import UserError
from leap_repro.prune.declaration import Declaration
from leap_repro.prune.loading import installed_methods, is_path, load_file, load_module, own_file


@cache
def names() -> tuple[str, ...]:
    """The names of this package's methods, as `module:` in the configuration uses them."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


@cache
def known_names() -> tuple[str, ...]:
    """The names of this package's and of installed packages' methods; UserError if both have a method of one name."""
    installed = installed_methods()
    for name in sorted(set(installed) & set(names())):
        raise UserError(
            f"the installed module {installed[name].module} registers the pruning method {name!r}, which is a "
            "method of this package: uninstall the module, or rename its method"
        )
    return (*names(), *sorted(installed))


def declarations() -> dict[str, Declaration[Any]]:
    """The declarations of this package's methods, without those whose files cannot be loaded."""
    found = {}
    for name in names():
        with suppress(UserError):
            found[name] = declaration(name)
    return found


def declaration(name: str) -> Declaration[Any]:
    """The declaration of the method `name`: one of `known_names`, or the path of a file (`.py`).

    UserError if there is no such method, if its file cannot be loaded or declares none, or if two have one name.
    """
    if is_path(name):
        file = own_file(name)
        if file.stem in known_names():
            raise UserError(f"the method file {file} has the name of another method, {file.stem!r}: rename it")
        return load_file(file)
    if name not in known_names():
        raise UserError(f"no pruning method {__name__}.{name}; the methods are {list(known_names())}")
    return load_module(module_of(name))


def module_of(name: str) -> str:
    """The code of a method, for fingerprints: a dotted module, or the path of a file, from the root."""
    if is_path(name):
        return str(own_file(name))
    return f"{__name__}.{name}" if name in names() else installed_methods()[name].module
