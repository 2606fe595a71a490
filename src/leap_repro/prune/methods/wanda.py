"""Wanda (arXiv 2306.11695): score |W_ij| * ||X_:j||_2, compared within each output row; kept weights do not change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import drop_smallest_in_groups, drop_smallest_in_rows, floor_in_rows

if TYPE_CHECKING:
    from torch import Tensor


class Options(CalibratedOptions):
    """As released, each row's number of dropped weights is rounded down."""

    shift_norms: bool = Field(
        False,
        description="true: the smallest squared norm above 0 is added to all squared norms, as in the scripts of "
        "LEAP's authors",
    )


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Each output row, or each N:M group, keeps its highest-scoring inputs."""
    norms = layer.statistics.column_norms
    scores = layer.weight.abs() * (shifted(norms) if options.shift_norms else norms)
    if options.n_of_m:
        return PrunedLayer(drop_smallest_in_groups(scores, options.n_of_m))
    select = floor_in_rows if options.as_released else drop_smallest_in_rows
    return PrunedLayer(select(scores, layer.sparsity))


def shifted(norms: Tensor) -> Tensor:
    """Input norms [in] whose squares are larger by the smallest one above 0, so that inputs never on count a little."""
    squares = norms.square()
    above = squares[squares > 0]
    return (squares + above.min()).sqrt() if len(above) else norms


METHOD = LayerWise(prune_layer, options=Options, statistics="norms")
