"""Conjugate gradients for many masked systems with one matrix: x_K = H_KK^-1 b_K, zero outside K, for each row's K.

A step is one product of all rows with the shared H. The Hessians of language models have a few strong factors and much
else: H is nearly L L' + D, with L [n, r] and a diagonal D, and so is H_KK, by the rows of L and D in K. That is the
preconditioner. Its inverse is Woodbury's, with one [r, r] matrix per row, I + L_K' D_K^-1 L_K. L is Nyström's for H
scaled to a unit diagonal, from a seeded sketch and one round of the power method; D is what L leaves of the diagonal.

Shapes: H is [n, n] symmetric positive definite, b, x and the mask are [rows, n]. Works in the dtype that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leap_repro.prune.layerwise.operations import rank_of
from leap_repro.prune.layerwise.rows import SomeRows
from leap_repro.seeds import named_seed

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""A row is done when its residual has fallen to this share of its right side."""
LIMIT = 100
"""The most steps: rows that need more are for a factor of their own."""
FLOOR = 0.001
"""The least share of H's diagonal that D has."""


@dataclass(frozen=True)
class Approximation:
    """H is nearly L L' + D. `factors` is D^-1 L, [n, r], `diagonal` is D, [n], and `products` [n, r r] holds each row
    of D^-1/2 L times itself, of which a mask's sums are L_K' D_K^-1 L_K."""

    factors: Tensor
    diagonal: Tensor
    products: Tensor


@dataclass(frozen=True)
class Rows(SomeRows):
    """The rows that are not done: x, the residual b - xH over K, the direction, the residual times its preconditioned
    self (`fall`), the size of residual that is small enough, and the inverses of I + L_K' D_K^-1 L_K (`cores`)."""

    keep: Tensor
    x: Tensor
    residual: Tensor
    direction: Tensor
    fall: Tensor
    goal: Tensor
    cores: Tensor


@dataclass(frozen=True)
class Solved:
    """x [rows, n], each row's residual relative to its right side, from a product of its own at the end (0 for rows
    with nothing to solve), and the steps taken."""

    x: Tensor
    residual: Tensor
    steps: int


def solve_by_gradients(matrix: Tensor, right: Tensor, keep: Tensor) -> Solved:
    """x by preconditioned conjugate gradients, each row with its own lengths of steps and its own end."""
    near, right, x = approximate(matrix), right * keep, torch.zeros_like(right)
    rows, steps = _begin(near, right, keep), 0
    while len(rows.index):
        rows, steps = _step(matrix, near, rows), steps + 1
        # A residual that is not a number compares as done, and tells at the end.
        left = (rows.residual.norm(dim=1) > rows.goal) & (steps < LIMIT)
        if not bool(left.all()):
            x[rows.index[~left]] = rows.x[~left]
            rows = rows.take(left)
    size = right.norm(dim=1)
    residual = ((right - x @ matrix) * keep).norm(dim=1) / size
    return Solved(x, residual.where(size > 0, 0.0), steps)


def approximate(matrix: Tensor) -> Approximation:
    """L and D for H; FLOOR keeps D away from zero where L takes all of a diagonal entry."""
    size, rank, scale = len(matrix), rank_of(len(matrix)), matrix.diagonal().sqrt().unsqueeze(1)
    generator = torch.Generator().manual_seed(named_seed("sketch of a Hessian"))
    sketch = torch.randn(size, rank, generator=generator).to(matrix)
    sketch = _orthogonal(matrix @ (sketch / scale) / scale)
    image = matrix @ (sketch / scale) / scale
    factors = _over_root(image, sketch.T @ image)
    diagonal = (1 - factors.square().sum(dim=1, keepdim=True)).clamp(min=FLOOR)
    products = (factors.unsqueeze(2) * (factors / diagonal).unsqueeze(1)).flatten(1)
    return Approximation(factors / diagonal / scale, (diagonal * scale.square()).squeeze(1), products)


def _orthogonal(matrix: Tensor) -> Tensor:
    """An orthogonal basis of the columns, as far as rounding goes; in float64, because their squares are compared."""
    wide = matrix.double()
    return _over_root(wide, wide.T @ wide).to(matrix)


def _over_root(matrix: Tensor, square: Tensor) -> Tensor:
    """matrix R^-1 for the R'R that `square` [r, r] is but for rounding, which its shifted diagonal outweighs."""
    square = (square + square.T) / 2
    square.diagonal().add_(len(square) * torch.finfo(square.dtype).eps * square.diagonal().sum())
    lower = torch.linalg.cholesky_ex(square).L
    return torch.linalg.solve_triangular(lower, matrix.T.contiguous(), upper=False).T.contiguous()


def _begin(near: Approximation, right: Tensor, keep: Tensor) -> Rows:
    """All rows that have something to solve, at zero."""
    index = right.any(dim=1).nonzero().squeeze(1)
    right, keep = right[index], keep[index]
    rank = near.factors.shape[1]
    cores = (keep.to(right) @ near.products).unflatten(1, (rank, rank))
    cores.diagonal(dim1=1, dim2=2).add_(1.0)
    identity = torch.eye(rank, dtype=right.dtype, device=right.device).expand_as(cores)
    cores = torch.cholesky_solve(identity, torch.linalg.cholesky_ex(cores).L)
    direction = _preconditioned(near, right, keep, cores)
    fall, goal = (right * direction).sum(dim=1, keepdim=True), TOLERANCE[right.dtype] * right.norm(dim=1)
    return Rows(index, keep, torch.zeros_like(right), right, direction, fall, goal, cores)


def _preconditioned(near: Approximation, residual: Tensor, keep: Tensor, cores: Tensor) -> Tensor:
    """(L_K L_K' + D_K)^-1 times each row's residual, by Woodbury's formula."""
    inner = (residual @ near.factors).unsqueeze(1) @ cores
    return (residual / near.diagonal - inner.squeeze(1) @ near.factors.T) * keep


def _step(matrix: Tensor, near: Approximation, rows: Rows) -> Rows:
    """To the minimum along each row's direction, and the next direction, conjugate to it."""
    image = rows.direction @ matrix * rows.keep
    length = rows.fall / (rows.direction * image).sum(dim=1, keepdim=True)
    residual = rows.residual - length * image
    steepest = _preconditioned(near, residual, rows.keep, rows.cores)
    fall = (residual * steepest).sum(dim=1, keepdim=True)
    direction = steepest + fall / rows.fall * rows.direction
    return replace(rows, x=rows.x + length * rows.direction, residual=residual, direction=direction, fall=fall)
