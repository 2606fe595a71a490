"""Kernels for torch's operators on the CPU that do not depend on who made the processor.

Products and factorisations go to the OpenBLAS that NumPy and SciPy bring: its AVX2 kernels can be asked for by name and
take as long as MKL's. Square roots are NumPy's, correctly rounded; logarithms and exponentials come from torch's own
vector functions by way of operators that are made of them. All take float32 and float64; of other types the products go
back to torch's kernel, which the form with `out=` still reaches.

A row-major matrix is its transpose column by column, so that LAPACK is given transposes and "lower" becomes "upper".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from torch import Tensor

OURS = (torch.float32, torch.float64)
PER_E = 1 / math.log(2)


def _array(tensor: Tensor) -> NDArray:
    """The tensor's own memory; a copy if BLAS could not read its last two dimensions as they lie."""
    tensor = tensor.detach()
    tensor = tensor if tensor.dim() < 2 or 1 in tensor.stride()[-2:] else tensor.contiguous()
    # Memory that numpy() has seen can never be freed in place, as FSDP frees gathered weights; DLPack takes longer.
    return np.from_dlpack(tensor) if dist.is_initialized() else tensor.numpy()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of matrices, stacks of them, or vectors."""
    return torch.from_numpy(np.asarray(np.matmul(_array(a), _array(b))))


def _mm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype not in OURS:
        return torch.mm(a, b, out=a.new_empty(len(a), b.shape[1]))
    return _product(a, b)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype not in OURS:
        return torch.bmm(a, b, out=a.new_empty(*a.shape[:2], b.shape[2]))
    return _product(a, b)


def _mv(a: Tensor, x: Tensor) -> Tensor:
    if a.dtype not in OURS:
        return _mm(a, x.unsqueeze(1)).squeeze(1)
    return _product(a, x)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype not in OURS:
        return (x * y).sum(dtype=x.dtype)
    return _product(x, y)


def _added(base: Tensor, products: Tensor, beta: float, alpha: float) -> Tensor:
    """beta base + alpha products, in the place of `products`; without beta, `base` may hold anything."""
    products = products if alpha == 1 else products.mul_(alpha)
    return products.add_(base, alpha=beta) if beta else products


def _addmm(base: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(base, _mm(a, b), beta, alpha)


def _addmm_(base: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return base.copy_(_added(base, _mm(a, b), beta, alpha))


def _addmv(base: Tensor, a: Tensor, x: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(base, _mv(a, x), beta, alpha)


def _baddbmm(base: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(base, _bmm(a, b), beta, alpha)


def _real(x: Tensor) -> torch.dtype:
    """The type of a function of x: its own, or the default one if x holds whole numbers."""
    return x.dtype if x.is_floating_point() else torch.get_default_dtype()


def _exp(x: Tensor) -> Tensor:
    """By way of 2^x in float64, so that float32 is rounded once."""
    return torch.exp2(x.double() * PER_E).to(_real(x))


def _exp_(x: Tensor) -> Tensor:
    return x.copy_(_exp(x))


def _log(x: Tensor) -> Tensor:
    return torch.xlogy(1.0, x)


def _log_(x: Tensor) -> Tensor:
    return x.copy_(_log(x))


def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return _log(x / (1 - x))


def _sqrt(x: Tensor) -> Tensor:
    if x.dtype not in OURS:
        return torch.sqrt(x.double()).to(_real(x))
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.asarray(np.sqrt(x.detach().numpy())))


def _sqrt_(x: Tensor) -> Tensor:
    return x.copy_(_sqrt(x))


def _safe_softmax(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Softmax, 0 where all scores are -inf. Torch's own looks at every score for that; NaNs in the result show it."""
    shares = torch.softmax(scores, dim, dtype)
    if bool(shares.select(dim, 0).isnan().any()):
        shares.masked_fill_((scores == -math.inf).all(dim, keepdim=True), 0.0)
    return shares


def _cholesky_ex(matrix: Tensor, *, upper: bool = False, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    """The lower factor (or its transpose) of each matrix [..., n, n], and LAPACK's info: 0, or the first bad pivot."""
    flat = matrix.detach().reshape(-1, *matrix.shape[-2:]).numpy()
    factors, infos = np.empty_like(flat, order="C"), np.empty(len(flat), dtype=np.int32)
    potrf = lapack.get_lapack_funcs("potrf", dtype=flat.dtype)
    for index, each in enumerate(flat):
        factor, infos[index] = potrf(each.T, lower=False, clean=True)
        factors[index] = factor.T
    factor, info = torch.from_numpy(factors).view(matrix.shape), torch.from_numpy(infos).view(matrix.shape[:-2])
    if check_errors and bool(info.any()):
        found = "a matrix is not positive-definite"
        raise torch.linalg.LinAlgError(found)  # pyright: ignore[reportPrivateImportUsage]  # documented, not declared
    return factor.mT.contiguous() if upper else factor, info


def _cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    """The inverse of L L' [n, n], whole: LAPACK fills one triangle."""
    lower = _array(factor.mT if upper else factor)
    inverse, _ = lapack.get_lapack_funcs("potri", (lower,))(lower.T, lower=False)
    found = torch.from_numpy(np.ascontiguousarray(inverse.T)).tril_()
    return found.add_(found.tril(-1).T)


def _cholesky_solve(right: Tensor, factor: Tensor, upper: bool) -> Tensor:
    """x with L L' x = right, [..., n, k]."""
    lower = (factor.mT if upper else factor).detach().contiguous()
    n = lower.shape[-1]
    rights, lowers = right.detach().reshape(-1, n, right.shape[-1]).numpy(), lower.view(-1, n, n).numpy()
    potrs = lapack.get_lapack_funcs("potrs", dtype=rights.dtype)
    solved = np.empty_like(rights, order="C")
    for index, (each, its) in enumerate(zip(rights, lowers, strict=True)):
        solved[index], _ = potrs(its.T, each, lower=False)
    return torch.from_numpy(solved).view(right.shape)


def _solve_triangular(
    matrix: Tensor, right: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """x with A x = right (or x A = right) for one triangular A [n, n]."""
    if matrix.dim() != 2:
        raise NotImplementedError("stacks of triangular matrices are not supported: solve them one by one")
    a, b = matrix.detach().contiguous().numpy(), right.detach().contiguous().numpy()
    trsm: Any = blas.get_blas_funcs("trsm", (a, b))
    return torch.from_numpy(trsm(1.0, a.T, b.T, side=int(left), lower=int(upper), diag=int(unitriangular)).T)


KERNELS = {
    "mm": _mm,
    "bmm": _bmm,
    "mv": _mv,
    "dot": _dot,
    "vdot": _dot,
    "addmm": _addmm,
    "addmm_": _addmm_,
    "addmv": _addmv,
    "baddbmm": _baddbmm,
    "exp": _exp,
    "exp_": _exp_,
    "log": _log,
    "log_": _log_,
    "logit": _logit,
    "sqrt": _sqrt,
    "sqrt_": _sqrt_,
    "_safe_softmax": _safe_softmax,
    "linalg_cholesky_ex": _cholesky_ex,
    "cholesky_inverse": _cholesky_inverse,
    "_cholesky_solve_helper": _cholesky_solve,
    "linalg_solve_triangular": _solve_triangular,
}
"""By the operator's name in torch's "aten" library."""
