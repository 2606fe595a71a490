"""What the options and the switches of one method must be to one another: what a schema of single values cannot say.

The modules that run a method check the same, but that is after the first jobs; here it is before any. No heavy imports,
so the defaults that matter are repeated; a test compares them with the modules'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from leap_repro.errors import UserError
from leap_repro.patterns import UNSTRUCTURED

if TYPE_CHECKING:
    from leap_repro.config import Method

DEFAULTS = {
    "admm": {"iterations": 20, "mask_iterations": 15, "group": "matrix"},
    "thanos": {"alpha": 0},
    "leap": {"batch_size": 256, "micro_batch_size": 8},
    "maskllm": {"batch_size": 256, "micro_batch_size": 8},
    "patch": {"batch_size": 256, "micro_batch_size": 8},
}
THRESHOLDED = {"leap", "patch"}
"""The modules whose logits may be hardened by their sign."""


def check_finite(value: Any, key: str = "") -> None:
    """UserError for the first nan or infinity anywhere in a configuration: no comparison of a schema refuses nan."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"config: {key} is {value}; it must be a finite number")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        check_finite(part, f"{key}.{name}".lstrip("."))


def option_errors(name: str, method: Method) -> Iterator[str]:
    """A sentence for each thing about a line of `methods:` that contradicts another of its own."""
    if method.module == "dense" and set(method.sparsities) != {"0"}:
        yield f"methods.{name}.sparsities is {list(map(float, method.sparsities))}; dense allows only [0]"
    if method.warm_start and method.tokens != "mask_training":
        yield f"methods.{name}.warm_start is {method.warm_start!r}; only methods that train a mask have one"
    if method.hardening != "exact" and method.module not in THRESHOLDED:
        yield f"methods.{name}.hardening is {method.hardening!r}; only the modules {sorted(THRESHOLDED)} have a choice"
    if method.variant_of == name:
        yield f"methods.{name}.variant_of is {name!r}; it must be another method"
    yield from _contradictions(f"methods.{name}.options", DEFAULTS.get(method.module, {}) | method.options)


def _contradictions(key: str, options: dict[str, Any]) -> Iterator[str]:
    pattern = options.get("pattern", UNSTRUCTURED)
    if "batch_size" in options and options["batch_size"] % options["micro_batch_size"]:
        whole = f"a multiple of micro_batch_size, which is {options['micro_batch_size']}"
        yield f"{key}.batch_size is {options['batch_size']}; it must be {whole}"
    if "mask_iterations" in options and options["mask_iterations"] > options["iterations"]:
        most = options["iterations"]
        yield f"{key}.mask_iterations is {options['mask_iterations']}; it may be {most} at most, which is iterations"
    if options.get("group", "matrix") != "matrix" and pattern != UNSTRUCTURED:
        yield f"{key}.group is {options['group']!r}; the pattern {pattern!r} allows only 'matrix'"
    if options.get("alpha") and pattern == UNSTRUCTURED:
        yield f"{key}.alpha is {options['alpha']}; without an N:M pattern it must be 0"
