"""N:M patterns by name, so that the config, the pruners, hardening and evaluation mean the same thing by "2:4"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

from leap_repro.errors import UserError

UNSTRUCTURED = "unstructured"
DENSE_ROWS = "+dense-rows"
"""Suffix of a mask's pattern whose rows each follow it or keep every weight (Thanos' outlier rows)."""
DENSE_TILES = "+dense-tiles-"
"""Suffix, before the tiles' size, of a mask whose square tiles each follow the pattern or keep every weight (PATCH)."""
TWO_OF_FOUR = tuple(tuple(int(place in kept) for place in range(4)) for kept in combinations(range(4), 2))
"""The six ways to keep two of four weights, in the order of MaskLLM's logits."""


@dataclass(frozen=True)
class Pattern:
    """Of each `group` consecutive inputs of a row, `dropped` are dropped and the others stay; but every weight stays in
    the rows (`dense_rows`) or the square tiles (of size `dense_tiles`, if not 0) that are wholly dense."""

    dropped: int
    group: int
    dense_rows: bool = False
    dense_tiles: int = 0

    @property
    def sparsity(self) -> Fraction:
        """The share that the pattern drops, exactly."""
        return Fraction(self.dropped, self.group)

    def __str__(self) -> str:
        return f"{self.dropped}:{self.group}"


TWO_FOUR = Pattern(2, 4)


def parse_pattern(name: str) -> Pattern | None:
    """The N:M pattern of a name such as "2:4", "2:4+dense-rows" or "2:4+dense-tiles-128", None for "unstructured"; else
    UserError."""
    if name == UNSTRUCTURED:
        return None
    found = re.fullmatch(r"(\d+):(\d+)(\+dense-rows)?(?:\+dense-tiles-(\d+))?", str(name))
    if found is None or not 0 < int(found[1]) < int(found[2]):
        raise UserError(f"pattern {name!r} is neither {UNSTRUCTURED!r} nor N:M with 0 < N < M, such as '2:4'")
    return Pattern(int(found[1]), int(found[2]), bool(found[3]), int(found[4] or 0))


def check_shape(name: str, columns: int, pattern: Pattern | None) -> None:
    """UserError, naming the tensor, if an N:M pattern does not fit its inputs."""
    if pattern is not None and columns % pattern.group:
        raise UserError(f"{name} has {columns} inputs, which the {pattern.group} of pattern {pattern} does not divide")
