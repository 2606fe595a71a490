"""Cholesky factors of damped Gram and Hessian matrices, failing by name and never silently."""

from __future__ import annotations

import torch
from torch import Tensor

from leap_repro.errors import UserError


def inverse_spd(matrix: Tensor, name: str) -> Tensor:
    """The inverse of a symmetric positive definite [n, n] matrix; UserError naming the layer if it is not one."""
    return torch.cholesky_inverse(_factor(matrix, name))


def upper_factor_of_inverse(matrix: Tensor, name: str) -> Tensor:
    """The upper-triangular U with U'U = matrix^-1, as SparseGPT uses it; UserError if not positive definite."""
    return torch.linalg.cholesky(inverse_spd(matrix, name), upper=True)


def _factor(matrix: Tensor, name: str) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info) != 0 or not bool(torch.isfinite(factor).all()):
        raise UserError(f"the damped Hessian of {name} is not positive definite in {matrix.dtype}: raise its damping")
    return factor
