"""Wanda (arXiv 2306.11695): score |W_ij| * ||X_:j||_2, compared within each output row; weights stay as they are."""

from __future__ import annotations

from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import drop_smallest_in_groups, drop_smallest_in_rows, floor_in_rows


class Options(CalibratedOptions):
    """Only what every selector has; as released, each row drops the floor of its share."""


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Each output row, or each N:M group, keeps its highest-scoring inputs."""
    scores = layer.weight.abs() * layer.statistics.column_norms
    if options.n_of_m:
        return PrunedLayer(drop_smallest_in_groups(scores, options.n_of_m))
    select = floor_in_rows if options.as_released else drop_smallest_in_rows
    return PrunedLayer(select(scores, layer.sparsity))


METHOD = LayerWise(prune_layer, options=Options, statistics="norms")
