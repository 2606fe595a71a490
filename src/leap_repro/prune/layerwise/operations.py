"""How many floating point operations one matrix's masked systems take, by either solver (`masked_solve.py`).

Counted from shapes alone and without torch, so that the plan asks the same functions as the solver's choice does.
"""

from __future__ import annotations

from math import isqrt

STEPS = 40
"""Steps of conjugate gradients that a matrix is counted with: real ones take 37 on average
(benchmarks/optima_solvers.csv)."""
FACTORING = 2.5
"""How much longer an operation takes in a row's own factor than in a product of all rows (the same table)."""
NARROW = 512
"""Fewer columns are always solved by factors: they take no time to speak of."""


def of_factors(rows: float, kept: float) -> float:
    """A Cholesky factor for each row, of its own [kept, kept] system."""
    return rows * kept**3 / 3


def of_gradients(rows: float, columns: float, steps: float = STEPS) -> float:
    """Each step's product of all rows with the shared [columns, columns] matrix and its preconditioner; besides, the
    preconditioner's making, and the product that checks the answer."""
    rank = rank_of(columns)
    preconditioned = 4 * columns * rank + 2 * rank**2
    making = 2 * columns * rank**2 + 7 / 3 * rank**3
    shared = 4 * columns**2 * rank + 8 * columns * rank**2
    return rows * ((steps + 1) * (2 * columns**2 + preconditioned) + making) + shared


def rank_of(columns: float) -> int:
    """Of the preconditioner: as many factors as make its making for all rows cost what one step does."""
    return isqrt(int(columns))


def gradients_pay(rows: float, columns: float, kept: float) -> bool:
    """Whether rows that keep `kept` weights on average are solved by conjugate gradients, by these counts."""
    return columns >= NARROW and of_gradients(rows, columns) < FACTORING * of_factors(rows, kept)


def of_solve(rows: float, columns: float, kept: float) -> float:
    """What the way that is taken counts."""
    pay = gradients_pay(rows, columns, kept)
    return of_gradients(rows, columns) if pay else of_factors(rows, kept)
