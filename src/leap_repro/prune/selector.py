"""What every layer-wise selector can be told, and what its masks then promise to hardening and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from leap_repro.errors import UserError
from leap_repro.patterns import UNSTRUCTURED, Pattern, parse_pattern

ROUNDINGS = ("exact", "as_released")


@dataclass(frozen=True)
class SelectorOptions:
    """`pattern` "unstructured" or N:M ("2:4": of each 4 consecutive inputs 2 are dropped); `rounding` "exact" (every
    matrix keeps numel - round(s numel) weights) or "as_released" (the rounding of the method's public code)."""

    pattern: str = UNSTRUCTURED
    rounding: str = "exact"

    def __post_init__(self) -> None:
        parse_pattern(self.pattern)
        if self.rounding not in ROUNDINGS:
            raise UserError(f"rounding is {self.rounding!r}; allowed are {ROUNDINGS}")

    @property
    def n_of_m(self) -> Pattern | None:
        """The N:M pattern, or None where the mask is unstructured."""
        return parse_pattern(self.pattern)

    @property
    def as_released(self) -> bool:
        """Whether counts are rounded as in the method's public code."""
        return self.rounding == "as_released"

    @property
    def facts(self) -> dict[str, str]:
        """The manifest's `pattern` and `budget_scope` (job.py). An N:M mask meets its budget however it was rounded."""
        promised = self.n_of_m is not None or not self.as_released
        return {"pattern": self.pattern, "budget_scope": "tensor" if promised else "none"}


def check_shape(name: str, columns: int, sparsity: Fraction, pattern: Pattern | None) -> None:
    """UserError, naming the tensor, if an N:M pattern does not fit its inputs or the cell's sparsity."""
    if pattern is None:
        return
    if sparsity != pattern.sparsity:
        raise UserError(f"{pattern} drops {float(pattern.sparsity):g} of {name}, the cell asks for {float(sparsity):g}")
    if columns % pattern.group:
        raise UserError(f"{name} has {columns} inputs, which the {pattern.group} of pattern {pattern} does not divide")


def check_block(method: str, block_size: int, pattern: Pattern | None) -> None:
    """UserError if blocks of columns would cut an N:M group in two."""
    if pattern is not None and block_size % pattern.group:
        raise UserError(f"{method}: block_size {block_size} is no multiple of the {pattern.group} of pattern {pattern}")
