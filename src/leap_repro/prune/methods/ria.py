"""RIA (Zhang et al., Plug-and-Play, ICLR 2024): a weight's share of its row and of its column, times a power of its
input's norm. Kept weights do not change.

    score = (|W_ij| / sum_k |W_ik| + |W_ij| / sum_k |W_kj|) * ||X_:j||_2 ^ a
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leap_repro.checked import Weight
from leap_repro.prune.layerwise.declaration import LayerWise
from leap_repro.prune.layerwise.grouped import EXACT_IN, GroupedOptions
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import (
    drop_smallest_in_groups,
    floor_in_rows,
    up_to_threshold,
)

if TYPE_CHECKING:
    from torch import Tensor

AS_RELEASED = {"matrix": up_to_threshold, "row": floor_in_rows}


class Options(GroupedOptions):
    """As released, a matrix drops all scores up to a threshold, and a row's number of dropped weights is rounded
    down."""

    exponent: Weight = Field(0.5, description="exponent of the input norms; 0: relative importance alone")


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Drop the lowest scores of the matrix, of each output row, or of each N:M group."""
    scores = relative_importance(layer.weight) * layer.statistics.column_norms**options.exponent
    if options.n_of_m:
        return PrunedLayer(drop_smallest_in_groups(scores, options.n_of_m))
    select = (AS_RELEASED if options.as_released else EXACT_IN)[options.group]
    return PrunedLayer(select(scores, layer.sparsity))


def relative_importance(weight: Tensor) -> Tensor:
    """Each weight's share of its row's absolute sum plus its share of its column's, [out, in]; 0 of a sum that is 0."""
    sizes = weight.abs()
    sums = sizes.sum(dim=1, keepdim=True), sizes.sum(dim=0, keepdim=True)
    by_row, by_column = (sizes / total.where(total > 0, 1.0) for total in sums)
    return by_row + by_column


METHOD = LayerWise(prune_layer, options=Options, statistics="norms")
