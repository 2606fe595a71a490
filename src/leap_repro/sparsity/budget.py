"""Integer budgets: how many weights a sparsity drops, so that every stage counts the same.

Sparsities travel as decimal strings ("0.6") and are turned into exact fractions, because 0.6 * n in floating point is
not always 3n/5 and a budget that is one off is a different experiment.
"""

from __future__ import annotations

from fractions import Fraction

from leap_repro.errors import UserError


def parse_sparsity(text: str | float) -> Fraction:
    """The exact fraction of a decimal sparsity; UserError unless it lies in [0, 1)."""
    try:
        sparsity = Fraction(str(text))
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"sparsity {text!r} is not a decimal number in [0, 1)") from error
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity {text!r} is outside [0, 1)")
    return sparsity


def dropped(sparsity: Fraction, count: int) -> int:
    """round(s * n), halves to even: the number of weights that a sparsity drops out of `count`."""
    return round(sparsity * count)


def kept(sparsity: Fraction, count: int) -> int:
    """n - round(s * n): the number of weights that stay (docs/trust.md)."""
    return count - dropped(sparsity, count)
