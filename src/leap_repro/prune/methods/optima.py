"""OPTIMA (arXiv 2512.13886): for the mask of any one-shot method, the best values of the weights that stay.

Per output row with kept set K and dropped set P: min over d of d'Hd / 2 with d_P = -w_P, w the original row. The paper
runs a first-order QP solver; the problem has equality constraints only, so its exact answer is

    w_K + H_KK^-1 H_KP w_P.

`selector` names the method whose mask is completed; weights that it moved are put back before the solve.
Shapes: W, values and masks are [out, in]; H = (2/n) X'X is [in, in].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leap_repro.checked import Share, Weight
from leap_repro.prune import declaration
from leap_repro.prune.layerwise.declaration import Reconstruction
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer

if TYPE_CHECKING:
    from torch import Tensor


class Options(declaration.Options):
    """As released: damping 0, tolerance 1e-2, only_if_better."""

    damping: Weight = Field(
        0.0,
        description="share of the Hessian's mean diagonal that is added to its diagonal; 0 is the paper's objective "
        "(what float32 cannot factor gets more)",
    )
    tolerance: Share = Field(0.0, description="0: exact; above 0 conjugate gradients stop at this relative residual")
    only_if_better: bool = Field(
        False, description="a matrix keeps the selector's values unless its output error falls"
    )


def reconstruct(layer: Layer, selected: PrunedLayer, options: Options) -> PrunedLayer:
    """The selector's mask with the best values for it; `layer` holds the original weights and the Gram matrix."""
    from leap_repro.prune.layerwise.statistics import relative_error

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
    from leap_repro.prune.layerwise.cholesky import factor_damped, fill_dead_inputs
    from leap_repro.prune.layerwise.masked_solve import solve_exactly, solve_to_tolerance

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
    return float((gradient / masking).where(masking > 0, 0.0).max())


METHOD = Reconstruction(reconstruct, options=Options)
