"""Solve one masked linear system per output row, all with the same matrix: x_K = H_KK^-1 b_K, zero outside K.

This is what an optimal reconstruction for a given mask comes down to. Shapes: H is [n, n] symmetric positive definite,
b, x and the mask are [rows, n]; K is where a row's mask is true. Works in the dtype that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from leap_repro.errors import UserError

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**28}
"""Matrix entries gathered at a time: on a CPU the systems should fit its cache (measured), on a GPU fill it."""


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
