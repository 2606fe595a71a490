"""Every pruning method, one file each: a file that ends with `METHOD = …` is a method, there is no other list."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from leap_repro.errors import UserError

if TYPE_CHECKING:
    from leap_repro.prune.declaration import Declaration


@cache
def names() -> tuple[str, ...]:
    """The names of all methods, as `module:` in the config says them."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def declaration(name: str) -> Declaration:
    """What the method says of itself; UserError if there is no such method, or its file declares none."""
    if name not in names():
        raise UserError(f"no pruning method {__name__}.{name}; the methods are {list(names())}")
    method = getattr(import_module(f"{__name__}.{name}"), "METHOD", None)
    if method is None:
        raise UserError(f"{__name__}.{name} declares no METHOD: it must end with one")
    return method


def module_of(name: str) -> str:
    """The dotted module whose code a method runs, for fingerprints."""
    return f"{__name__}.{name}"
