"""Cholesky factors of damped Gram and Hessian matrices: the one place where a matrix that float32 cannot factor is met.

Damping is a share of the mean diagonal, as in SparseGPT. A matrix that is singular or indefinite with the damping that
was asked for gets ten times as much, step after step; every value tried is returned, for the log and the manifest. Past
`MAX_DAMPING` the layer fails by name: nothing is ever replaced by an identity (docs/numerics.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.seeds import named_seed

log = logging.getLogger(__name__)
FIRST_RAISE = 1e-5
RAISE = 10.0
MAX_DAMPING = 1.0
SOUND_EPS = 4.0
INVERSE_ITERATIONS = 6


@dataclass(frozen=True)
class Factored:
    """`factor` is the lower L [n, n] with L L' = the damped matrix; `dampings` all shares tried: the last one held."""

    factor: Tensor
    dampings: tuple[float, ...]

    def inverse(self) -> Tensor:
        """The inverse of the damped matrix, [n, n]."""
        return torch.cholesky_inverse(self.factor)

    def solve(self, right: Tensor) -> Tensor:
        """The damped matrix's inverse times `right` [n, k]."""
        return torch.cholesky_solve(right, self.factor)


def fill_dead_inputs(hessian: Tensor, weight: Tensor) -> Tensor:
    """Dead inputs (H_jj = 0) get H_jj = 1, and weights [out, in] of zero, both in place; returns `hessian`.

    The ones count in the mean diagonal that damping is a share of, as in SparseGPT's reference.
    """
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1.0
    weight[:, dead] = 0.0
    return hessian


def factor_damped(matrix: Tensor, name: str, damping: float = 0.0, shift: float = 0.0) -> Factored:
    """Factor matrix + (damping * mean diagonal + shift) I, raising the damping as far as is needed.

    `matrix` is symmetric [n, n]; on return its own diagonal carries the damping that held (not the shift), so that
    what else is computed from it agrees with the factor. Raises UserError with the layer's `name` if the matrix is not
    finite, or not positive definite with MAX_DAMPING.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise UserError(f"the Hessian of {name} is not finite: check for very large activations or weights")
    diagonal = matrix.diagonal().clone()
    mean = diagonal.double().mean()
    tried: list[float] = []
    for share in _ladder(damping):
        tried.append(share)
        damped = diagonal + (share * mean).to(diagonal)
        matrix.diagonal().copy_(damped + shift)
        factor, info = torch.linalg.cholesky_ex(matrix)
        matrix.diagonal().copy_(damped)
        if int(info) == 0 and _is_sound(factor, damped + shift):
            if len(tried) > 1:
                log.warning("%s: damping raised from %g to %g of the mean diagonal", name, damping, share)
            return Factored(factor, tuple(tried))
    raise UserError(
        f"the Hessian of {name} is not positive definite in {str(matrix.dtype).removeprefix('torch.')}, "
        f"though damping was raised to {tried[-1]:g} of its mean diagonal: its activations are not usable"
    )


def upper_factor_of_inverse(matrix: Tensor, name: str, damping: float = 0.0) -> tuple[Tensor, tuple[float, ...]]:
    """The upper U with U'U = (damped matrix)^-1, as SparseGPT uses it, and the dampings tried.

    U[j:, j:]' U[j:, j:] is the inverse of the damped matrix restricted to the columns from j on. U is the inverse of
    the factor of the matrix in reversed order, so there is one factorisation that can fail, not two. Damps like
    `factor_damped`, but leaves `matrix` as it is.
    """
    factored = factor_damped(matrix.flip(0, 1), name, damping)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    inverse = torch.linalg.solve_triangular(factored.factor, identity, upper=False)
    return inverse.flip(0, 1).contiguous(), factored.dampings


def _ladder(start: float) -> Iterator[float]:
    """The damping asked for, then ten times as much (at least FIRST_RAISE) while it does not pass MAX_DAMPING."""
    yield start
    share = max(start * RAISE, FIRST_RAISE)
    while share <= MAX_DAMPING * (1 + 1e-9):
        yield share
        share *= RAISE


def _is_sound(factor: Tensor, diagonal: Tensor) -> bool:
    """Whether the smallest eigenvalue of LL', scaled to a unit diagonal, stands above rounding noise.

    A singular matrix can pass a Cholesky by luck: rounding leaves a tiny positive pivot, and its inverse is noise.
    Scaled, because large and small features side by side do no harm. Inverse iteration from one vector costs O(n^2).
    """
    root = diagonal.sqrt().unsqueeze(1)
    start = torch.randn(len(root), 1, generator=torch.Generator().manual_seed(named_seed("inverse iteration")))
    x = start.to(factor)
    for _ in range(INVERSE_ITERATIONS):
        x = root * torch.cholesky_solve(root * (x / x.norm()), factor)
    return bool(1 / x.norm() > SOUND_EPS * torch.finfo(factor.dtype).eps)
