"""N:M patterns by name, so that the config, the pruners, hardening and evaluation mean the same thing by "2:4"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from leap_repro.errors import UserError

UNSTRUCTURED = "unstructured"
DENSE_ROWS = "+dense-rows"
"""Suffix of a mask's pattern whose rows each follow it or keep every weight (Thanos' outlier rows)."""


@dataclass(frozen=True)
class Pattern:
    """Of each `group` consecutive inputs of a row, `dropped` are dropped and the others stay."""

    dropped: int
    group: int
    dense_rows: bool = False

    @property
    def sparsity(self) -> Fraction:
        """The share that the pattern drops, exactly."""
        return Fraction(self.dropped, self.group)

    def __str__(self) -> str:
        return f"{self.dropped}:{self.group}"


def parse_pattern(name: str) -> Pattern | None:
    """The N:M pattern of a name such as "2:4" or "2:4+dense-rows", None for "unstructured"; else UserError."""
    if name == UNSTRUCTURED:
        return None
    found = re.fullmatch(r"(\d+):(\d+)(\+dense-rows)?", str(name))
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise UserError(f"pattern {name!r} is neither {UNSTRUCTURED!r} nor N:M with 0 < N < M, such as '2:4'")
    return Pattern(int(found[1]), int(found[2]), bool(found[3]))
