"""Solve one masked linear system per output row, all with the same matrix: x_K = H_KK^-1 b_K, zero outside K.

This is what an optimal reconstruction for a given mask comes down to. A factor for each row costs |K|^3/3 operations;
where matrices are wide, conjugate gradients with the H that all rows share cost less (`operations.py` counts both), and
what they leave unsolved gets its factor. Shapes: H is [n, n] symmetric positive definite, b, x and the mask are
[rows, n]; K is where a row's mask is true. Works in the dtype that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.prune.layerwise.conjugate_gradients import TOLERANCE, solve_by_gradients
from leap_repro.prune.layerwise.operations import gradients_pay

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**28}
"""Matrix entries gathered at a time: on a CPU the systems should fit its cache (measured), on a GPU fill it."""

ROUNDING = 4.0
"""How far a residual computed anew may lie above the tolerance that the steps' own one met."""


@dataclass(frozen=True)
class Solution:
    """x [rows, n], the most steps of a row (0 without conjugate gradients) and how many rows had factors."""

    x: Tensor
    steps: int
    factored: int


def solve(matrix: Tensor, right: Tensor, keep: Tensor, name: str) -> Solution:
    """x [rows, n] by the way that counts fewer operations for a matrix of this shape and mask; UserError as below."""
    if not gradients_pay(keep.shape[0], keep.shape[1], float(keep.sum()) / max(len(keep), 1)):
        return Solution(solve_exactly(matrix, right, keep, name), 0, len(keep))
    found = solve_by_gradients(matrix, right, keep)
    unsolved = ~(found.residual <= ROUNDING * TOLERANCE[right.dtype])
    found.x[unsolved] = solve_exactly(matrix, right[unsolved], keep[unsolved], name)
    return Solution(found.x, found.steps, int(unsolved.sum()))


def solve_exactly(matrix: Tensor, right: Tensor, keep: Tensor, name: str) -> Tensor:
    """x [rows, n] by a batched Cholesky over rows, padded with ones on the diagonal to the widest row of a chunk.

    Raises UserError with the layer's `name` if a row's system is not positive definite.
    """
    solution = torch.zeros_like(right)
    right = right * keep
    counts = keep.sum(dim=1) * right.any(dim=1)
    for rows, width in _chunks(counts, len(matrix), CHUNK_ELEMENTS[matrix.device.type]):
        columns = torch.argsort(~keep[rows], dim=1, stable=True)[:, :width]
        padding = torch.arange(width, device=matrix.device) >= counts[rows].unsqueeze(1)
        system = matrix[columns].gather(2, columns.unsqueeze(1).expand(-1, width, -1))
        if bool(padding.any()):
            system.masked_fill_(padding.unsqueeze(1) | padding.unsqueeze(2), 0.0)
            system.diagonal(dim1=1, dim2=2).masked_fill_(padding, 1.0)
        x = _solve_systems(system, right[rows].gather(1, columns), name)
        solution[rows] = torch.zeros_like(right[rows]).scatter_(1, columns, x)
    return solution


def _chunks(counts: Tensor, columns: int, elements: int) -> Iterator[tuple[Tensor, int]]:
    """Row indices and their widest count, rows of similar counts together, few enough to gather at a time."""
    counts, order = torch.sort(counts, descending=True, stable=True)
    start, stop = 0, int((counts > 0).sum())
    while start < stop:
        width = int(counts[start])
        size = max(1, elements // (width * columns))
        yield order[start : min(start + size, stop)], width
        start += size


def _solve_systems(systems: Tensor, right: Tensor, name: str) -> Tensor:
    """x [c, k] of systems [c, k, k] and right [c, k]. Refinement does not pay: rounding x itself costs as much."""
    factor, info = torch.linalg.cholesky_ex(systems)
    if bool(info.any()):
        raise UserError(f"a row's share of the Hessian of {name} is not positive definite: raise its damping")
    return torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)
