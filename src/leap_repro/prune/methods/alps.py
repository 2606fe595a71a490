"""ALPS (arXiv 2406.07831): ADMM whose penalty grows until the support settles, then the best weights on that support.

Per layer: min over D with ||D||_0 <= k of ||X (W - D)'||^2 + damping, columns brought to one scale. Shapes: weights,
duals and masks are [out, in], H is [in, in].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from leap_repro.checked import Positive, Rate, Weight
from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.operations import of_solve
from leap_repro.prune.layerwise.select import drop_smallest_in_groups, drop_smallest_in_matrix

if TYPE_CHECKING:
    from torch import Tensor

INTERVAL = 3
"""Iterations between two checks of the support."""
MANY, SOME = 0.1, 0.005
"""Shares of the kept weights: if more changed, the penalty grows by 1.3 or by 1.2, else by 1.1."""
LOWERED, PATIENCE, FEW = 5.0, 30, 0.0003
"""As released: the divisor of a penalty under which little changes; the iterations after which a share as small as
FEW counts as settled."""
PLANNED = 35
"""Iterations that a matrix is planned with: 27 to 36 on the miniature, and on random matrices of up to 1,024 inputs."""


class Options(CalibratedOptions):
    """As released, the number of dropped weights is the same, because the public code rounds to the weight too."""

    rho: Rate = Field(0.1, description="initial penalty")
    damping: Weight = Field(0.01, description="added to the Gram matrix's diagonal, as a share of its mean")
    iterations: Positive = Field(
        300, description="largest number of iterations, if the support does not settle earlier"
    )
    schedule: Literal["as_written", "as_released"] = Field(
        "as_written",
        description="as_written: the penalty grows until the support settles; as_released: the penalty may fall at "
        "first, a small change counts as settled after 30 iterations, and the largest free weights are the support",
    )

    def operations(self, rows: float, columns: float, kept: float) -> float:
        """A product per iteration, a factor and an inverse per penalty, and the solve."""
        count = min(PLANNED, self.iterations)
        return count * 2 * rows * columns**2 + count / INTERVAL * columns**3 + of_solve(rows, columns, kept)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """The support that ADMM finds, and the best weights on it; the log has the iterations and the last penalty."""
    from leap_repro.prune.layerwise.cholesky import factor_damped, fill_dead_inputs
    from leap_repro.prune.layerwise.masked_solve import solve

    weight = layer.weight.clone()
    hessian = fill_dead_inputs(layer.statistics.gram.to(weight, copy=True), weight)
    dampings = factor_damped(hessian, layer.name, options.damping).dampings
    scale = hessian.diagonal().sqrt()
    hessian, dense = hessian / scale.outer(scale), weight * scale
    keep, row = find_support(dense, hessian, layer, options)
    moved = solve(hessian, (dense * ~keep) @ hessian, keep, layer.name).x
    return PrunedLayer(keep, (dense * keep + moved) / scale, {"dampings": dampings} | row)


def find_support(dense: Tensor, hessian: Tensor, layer: Layer, options: Options) -> tuple[Tensor, dict[str, Any]]:
    """ADMM for D and a free copy of it that must agree: the mask, and for the log the iterations and the last penalty.

    The dual over the penalty is what the projection took away: zero on the support, and rescaled with the penalty.
    """
    seen = first = _project(dense, layer, options)
    released, kept, rho, iteration = options.schedule == "as_released", int(first.sum()), options.rho, 0
    if not 0 < kept < first.numel():
        return first, {"iterations": iteration, "rho": rho}
    sparse, dual, target = dense * first, 0 * dense, dense @ hessian
    grows, inverse = not released, _inverse(hessian, rho, layer)
    for iteration in range(1, options.iterations + 1):
        free = (target + rho * (sparse - dual)) @ inverse
        keep = _project(free + dual, layer, options)
        sparse, dual = (free + dual) * keep, (free + dual) * ~keep
        if iteration % INTERVAL:
            continue
        moved, seen = int((keep != seen).sum()), keep
        grows = grows or moved > SOME * kept
        if (grows and not moved) or (released and iteration > PATIENCE and moved < FEW * kept):
            break
        if not grows and moved:
            sparse, dual = dense * first, 0 * dense
        factor = growth(moved / kept) if grows else 1 / LOWERED
        rho, dual = rho * factor, dual / factor
        inverse = _inverse(hessian, rho, layer)
    return _project(free, layer, options) if released else keep, {"iterations": iteration, "rho": rho}


def growth(moved: float) -> float:
    """What the penalty is multiplied with when this share of the weights that stay, counted at both places, moved."""
    return 1.3 if moved > MANY else 1.2 if moved > SOME else 1.1


def _project(weights: Tensor, layer: Layer, options: Options) -> Tensor:
    """The mask of the nearest sparse matrix."""
    if options.n_of_m:
        return drop_smallest_in_groups(weights.abs(), options.n_of_m)
    return drop_smallest_in_matrix(weights.abs(), layer.sparsity)


def _inverse(hessian: Tensor, rho: float, layer: Layer) -> Tensor:
    """(H + rho I)^-1 by a factor of its own: an eigendecomposition would serve all penalties, but is not the same to
    the bit on every processor (docs/numerics.md)."""
    from leap_repro.prune.layerwise.cholesky import factor_damped

    return factor_damped(hessian, layer.name, shift=rho).inverse()


METHOD = LayerWise(prune_layer, options=Options, statistics="gram", moves_weights=True)
