"""Whether a rule reads only those statistics of its inputs that its declaration asks for: found in its file, when it is
declared, and not after the first block of a job."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from leap_repro.errors import UserError

GIVEN_BY = {
    "column_norms": ("norms", "moments", "gram"),
    "means": ("moments",),
    "variances": ("moments",),
    "gram": ("gram",),
    "hessian": ("gram",),
}
"""{what a rule may read of `layer.statistics`: the values of `statistics=` with which it is there}"""


def require_asked_for(rule: Callable[..., Any], asked: str | None) -> None:
    """UserError if the file of `rule` reads statistics that `asked` does not give. Of a rule without a file (made in an
    interpreter) nothing is known before it runs."""
    module = inspect.getmodule(rule)
    try:
        tree = ast.parse(inspect.getsource(module)) if module else ast.Module([], [])
    except (OSError, TypeError, SyntaxError):
        return
    for name, line in _statistics_read(tree):
        if asked not in GIVEN_BY[name]:
            said = f"statistics={asked!r}" if asked else "no statistics"
            needed = f'statistics="{GIVEN_BY[name][0]}"'
            raise UserError(f"line {line} reads statistics.{name}, but METHOD has {said}: it must have {needed}")


def _statistics_read(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(name, line) of every `….statistics.<name>` and `statistics.<name>`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in GIVEN_BY:
            owner = node.value
            named = getattr(owner, "attr", None) or getattr(owner, "id", None)
            if named == "statistics":
                yield node.attr, node.lineno
