"""OPTIMA (arXiv 2512.13886): for the mask of any one-shot method, the best values of the weights that stay.

Per output row with kept set K and dropped set P: min over d of d'Hd / 2 with d_P = -w_P, w the original row. The paper
runs a first-order QP solver; the problem has equality constraints only, so its exact answer is

    w_K + H_KK^-1 H_KP w_P.

`selector` names the method whose mask is completed; weights that it moved are put back before the solve.
Shapes: W, values and masks are [out, in]; H = (2/n) X'X is [in, in].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.prune.cholesky import factor_damped, fill_dead_inputs
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.masked_solve import solve_exactly, solve_to_tolerance
from leap_repro.prune.statistics import relative_error


@dataclass(frozen=True)
class Options:
    """`damping`: added to H, as a share of its mean diagonal (0: the paper's objective; what float32 cannot factor gets
    more, see cholesky.py); `tolerance`: 0 solves exactly, above 0 conjugate gradients stop at this relative residual;
    `only_if_better`: a matrix keeps the selector's values unless its output error falls.

    As released: damping 0, tolerance 1e-2, only_if_better.
    """

    damping: float = 0.0
    tolerance: float = 0.0
    only_if_better: bool = False

    def __post_init__(self) -> None:
        if self.damping < 0 or not 0 <= self.tolerance < 1:
            raise UserError(f"optima: damping must be at least 0 and tolerance lie in [0, 1), not {self}")


def prune_cell(job: Job) -> PrunedCell:
    """Run the selector's own driver with `reconstruct` after each matrix, so that its budget and pattern hold."""
    if job.selector is None:
        raise UserError("the method optima completes the mask of another one: it needs --selector")
    rule = partial(reconstruct, options=job.options)
    return job.selector.method.prune_cell(
        replace(job, options=job.selector.options, selector=None, reconstruct=rule),
    )


def reconstruct(layer: Layer, selected: PrunedLayer, options: Options) -> PrunedLayer:
    """The selector's mask with the best values for it; `layer` holds the original weights and the Gram matrix."""
    keep, gram = selected.keep, layer.statistics.gram
    values, dampings, residual = optimal_values(layer, keep, options)
    selectors = (layer.weight if selected.values is None else selected.values) * keep
    before = relative_error(layer.weight, selectors, gram)
    updated = not options.only_if_better or relative_error(layer.weight, values, gram) < before
    row = {
        "dampings": dampings,
        "kkt_residual": residual,
        "selector_relative_error": before,
        "updated": updated,
    } | {f"selector_{column}": value for column, value in selected.log.items()}
    return PrunedLayer(keep, values if updated else selectors, row)


def optimal_values(layer: Layer, keep: Tensor, options: Options) -> tuple[Tensor, tuple[float, ...], float]:
    """The reconstructed weights, the dampings tried and the KKT residual. Works in the weight's dtype."""
    weight = layer.weight.clone()
    hessian = fill_dead_inputs(layer.statistics.hessian.to(weight.dtype), weight)
    if options.tolerance:
        dampings: tuple[float, ...] = (options.damping,)
        hessian.diagonal().add_(options.damping * hessian.diagonal().mean())
    else:
        dampings = factor_damped(hessian, layer.name, options.damping).dampings
    right = (weight * ~keep) @ hessian
    if options.tolerance:
        change = solve_to_tolerance(hessian, right, keep, options.tolerance)
    else:
        change = solve_exactly(hessian, right, keep, layer.name)
    values = weight * keep + change
    return values, dampings, kkt_residual(hessian, weight, values, keep)


def kkt_residual(hessian: Tensor, weight: Tensor, values: Tensor, keep: Tensor) -> float:
    """The worst row's ||(dH)_K|| / ||(d0 H)_K||, in float64: the gradient over the free weights at d = values - weight,
    relative to that of plain masking, d0. 0 at the optimum; rows with nothing to gain count as 0."""
    hessian = hessian.double()
    weight = weight.double()
    gradient = ((values.double() - weight) @ hessian * keep).norm(dim=1)
    masking = ((weight * ~keep) @ hessian * keep).norm(dim=1)
    return float(torch.where(masking > 0, gradient / masking, 0.0).max())
