"""SparseGPT (arXiv 2301.00774): drop weights column by column and update the columns to the right to compensate.

Shapes: W is [out, in]; H = (2/n) X'X is [in, in]; U is upper triangular with U'U = H^-1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leap_repro.checked import Positive, Weight
from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import all_kept, drop_smallest, drop_smallest_in_groups, up_to_threshold
from leap_repro.sparsity.budget import dropped
from leap_repro.sparsity.patterns import Pattern

if TYPE_CHECKING:
    from torch import Tensor


class Options(CalibratedOptions):
    """As released, each block drops all weights up to a threshold: one too many, and all ties."""

    block_size: Positive = Field(128, description="number of columns whose mask is chosen together")
    damping: Weight = Field(0.01, description="added to the Hessian's diagonal, as a share of its mean")
    update_weights: bool = Field(
        True,
        description="true: columns to the right compensate for dropped weights; false: weights do not change, and "
        "masks are chosen by the original weights",
    )


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Prune block after block of columns, from left to right."""
    from leap_repro.prune.layerwise.cholesky import fill_dead_inputs, upper_factor_of_inverse

    weight = layer.weight.clone()
    columns = weight.shape[1]
    hessian = fill_dead_inputs(layer.statistics.hessian, weight)
    factor, dampings = upper_factor_of_inverse(hessian, layer.name, options.damping)
    keep = all_kept(weight)
    for start in range(0, columns, options.block_size):
        block = slice(start, min(start + options.block_size, columns))
        if options.n_of_m is None:
            keep[:, block] = _choose(_scores(weight, factor, block), block, layer, options)
        if options.update_weights:
            prune_columns(weight, keep, factor, block, options.n_of_m)
        elif options.n_of_m:
            keep[:, block] = drop_smallest_in_groups(_scores(weight, factor, block), options.n_of_m)
    return PrunedLayer(keep, weight * keep, {"dampings": dampings})


def _scores(weight: Tensor, factor: Tensor, columns: slice) -> Tensor:
    """w^2 / U_jj^2 (up to a factor 2 the error that dropping w makes), of the weights as they now are."""
    return (weight[:, columns] / factor.diagonal()[columns]).square()


def _choose(scores: Tensor, block: slice, layer: Layer, options: Options) -> Tensor:
    """The block's mask. Exact: the budget of columns 0..b is round(s * out * b), so that the total is exact."""
    if options.as_released:
        return up_to_threshold(scores, layer.sparsity)
    rows = scores.shape[0]
    count = dropped(layer.sparsity, rows * block.stop) - dropped(layer.sparsity, rows * block.start)
    return drop_smallest(scores, count)


def prune_columns(weight: Tensor, keep: Tensor, factor: Tensor, block: slice, pattern: Pattern | None) -> None:
    """Zero the dropped weights of a block of columns, spread their error to the right within the block as they go,
    and to the rest of the matrix once at the end (the lazy batch update: exact up to rounding).

    An N:M pattern is chosen on the way, at the first column of each group, from the weights as updated so far.
    """
    errors = weight.new_zeros(weight[:, block].shape)
    for column in range(block.start, block.stop):
        if pattern and column % pattern.group == 0:
            group = slice(column, column + pattern.group)
            keep[:, group] = drop_smallest_in_groups(_scores(weight, factor, group), pattern)
        kept_values = weight[:, column] * keep[:, column]
        error = (weight[:, column] - kept_values) / factor[column, column]
        weight[:, column : block.stop] -= error.outer(factor[column, column : block.stop])
        weight[:, column] = kept_values
        errors[:, column - block.start] = error
    weight[:, block.stop :] -= errors @ factor[block, block.stop :]


METHOD = LayerWise(prune_layer, options=Options, statistics="gram", moves_weights=True)
