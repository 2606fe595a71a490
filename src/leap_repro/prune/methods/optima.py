"""OPTIMA (arXiv 2512.13886): the best values of the kept weights, for the mask of any one-shot method.

Per output row with kept set K and dropped set P: min over d of d'Hd / 2 with d_P = -w_P, w the original row. The paper
runs a first-order QP solver; the problem has equality constraints only, so its exact answer is

    w_K + H_KK^-1 H_KP w_P.

`selector` names the method whose mask is completed; weights that it moved are put back before the solve.
Shapes: W, values and masks are [out, in]; H = (2/n) X'X is [in, in].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from leap_repro.checked import Rate, Weight, contradiction
from leap_repro.prune import declaration
from leap_repro.prune.layerwise.declaration import Reconstruction
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.operations import of_solve

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 0.01
CONVERGED = 0.95
BATCH_ENTRIES = 128 * 12 * 1024**2
"""The public code solves rows in mini-batches, as many at once as have so many entries with a Hessian each, and leaves
a matrix as it was once less than the share CONVERGED of a mini-batch meets the tolerance."""

RELEASED_STEPS = 1000
"""Steps that the public code's solver is planned with: 74 to 1,354 in benchmarks/optima_released.csv."""


class Options(declaration.Options):
    """As released: `solver: as_released` and `only_if_better: true`."""

    damping: Weight = Field(
        0.0,
        description="added to the Hessian's diagonal, as a share of its mean; 0 is the paper's objective (more is "
        "added where float32 cannot factor the matrix)",
    )
    solver: Literal["exact", "as_released"] = Field(
        "exact",
        description="exact: the exact solution; as_released: the public code's first-order solver, whose changes are "
        "rounded to bfloat16; a matrix then keeps the selector's values unless 95 % of the rows of each mini-batch "
        "meet the tolerance",
    )
    tolerance: Rate = Field(
        TOLERANCE,
        description="absolute and relative tolerance of the as-released solver; the public job script has 1e-3 for "
        "both",
    )
    only_if_better: bool = Field(
        False, description="true: a matrix keeps the selector's values unless its output error falls"
    )

    def operations(self, rows: float, columns: float, kept: float) -> float:
        """The solve, by the way that the exact solver takes, or the released one's products."""
        return of_solve(rows, columns, kept) if self.solver == "exact" else RELEASED_STEPS * 2 * rows * columns**2

    @model_validator(mode="after")
    def _only_one_solver_stops_early(self) -> Options:
        if self.solver == "exact" and self.tolerance != TOLERANCE:
            raise contradiction("tolerance", self.tolerance, "leave it out, because solver is exact")
        return self


def reconstruct(layer: Layer, selected: PrunedLayer, options: Options) -> PrunedLayer:
    """The selector's mask with the best values for it; `layer` holds the original weights and the Gram matrix."""
    from leap_repro.prune.layerwise.statistics import relative_error

    keep, gram = selected.keep, layer.statistics.gram
    solve = optimal_values if options.solver == "exact" else released_values
    values, row = solve(layer, keep, options)
    selectors = (layer.weight if selected.values is None else selected.values) * keep
    before = relative_error(layer.weight, selectors, gram)
    better = not options.only_if_better or relative_error(layer.weight, values, gram) < before
    updated = better and row.get("converged_rows", 1.0) >= CONVERGED
    row |= {"selector_relative_error": before, "updated": updated}
    row |= {f"selector_{column}": value for column, value in selected.log.items()}
    return PrunedLayer(keep, values if updated else selectors, row)


def optimal_values(layer: Layer, keep: Tensor, options: Options) -> tuple[Tensor, dict[str, Any]]:
    """The best weights, in the weight's dtype; for the log the dampings tried, the KKT residual, the most steps of
    conjugate gradients that a row took, and the number of rows that were solved by factors."""
    from leap_repro.prune.layerwise.cholesky import factor_damped, fill_dead_inputs
    from leap_repro.prune.layerwise.masked_solve import solve

    weight = layer.weight.clone()
    hessian = fill_dead_inputs(layer.statistics.hessian.to(weight.dtype), weight)
    dampings = factor_damped(hessian, layer.name, options.damping).dampings
    found = solve(hessian, (weight * ~keep) @ hessian, keep, layer.name)
    values = weight * keep + found.x
    row = {"dampings": dampings, "kkt_residual": kkt_residual(hessian, weight, values, keep)}
    return values, row | {"iterations": found.steps, "factored_rows": found.factored}


def released_values(layer: Layer, keep: Tensor, options: Options) -> tuple[Tensor, dict[str, Any]]:
    """What the public code makes of the weights: its solver's changes, added in bfloat16. Its objective is d'Hd / 4, so
    that half the Hessian is what its tolerance speaks of. For the log also the most steps of a row, and the
    share of rows that met the tolerance in the mini-batch where it is least."""
    from leap_repro.prune.layerwise.first_order import solve_as_released

    weight, hessian = layer.weight, layer.statistics.hessian.to(layer.weight.dtype)
    hessian.diagonal().add_(options.damping * hessian.diagonal().mean())
    found = solve_as_released(hessian / 2, weight, keep, options.tolerance)
    values = ((weight.bfloat16() + found.change.bfloat16()) * keep).to(weight.dtype)
    residual = kkt_residual(hessian, weight, values, keep)
    row = {"dampings": (options.damping,), "kkt_residual": residual, "iterations": found.iterations}
    return values, row | {"converged_rows": least_share(found.converged, weight.shape[1])}


def least_share(converged: Tensor, inputs: int) -> float:
    """Of the rows [rows] of a matrix with so many inputs, in the public code's mini-batch that has the least: 96 rows
    of 4,096 inputs."""
    batches = converged.split(max(1, BATCH_ENTRIES // inputs**2))
    return min(float(batch.double().mean()) for batch in batches)


def kkt_residual(hessian: Tensor, weight: Tensor, values: Tensor, keep: Tensor) -> float:
    """The worst row's ||(dH)_K|| / ||(d0 H)_K||, in float64: the gradient over the free weights at d = values - weight,
    relative to that of plain masking, d0. 0 at the optimum; rows with nothing to gain count as 0."""
    hessian = hessian.double()
    weight = weight.double()
    gradient = ((values.double() - weight) @ hessian * keep).norm(dim=1)
    masking = ((weight * ~keep) @ hessian * keep).norm(dim=1)
    return float((gradient / masking).where(masking > 0, 0.0).max())


METHOD = Reconstruction(reconstruct, options=Options)
