"""Magnitude pruning: drop the smallest |W|, compared over the whole matrix. No data, no weight update."""

from __future__ import annotations

from leap_repro.prune.layerwise.declaration import LayerWise, SelectorOptions
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import drop_smallest_in_groups, drop_smallest_in_matrix, up_to_threshold


class Options(SelectorOptions):
    """As released, a matrix drops all weights up to a threshold: one too many, and all ties."""


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Drop the smallest magnitudes of the matrix, or of each N:M group."""
    scores = layer.weight.abs()
    if options.n_of_m:
        return PrunedLayer(drop_smallest_in_groups(scores, options.n_of_m))
    select = up_to_threshold if options.as_released else drop_smallest_in_matrix
    return PrunedLayer(select(scores, layer.sparsity))


METHOD = LayerWise(prune_layer, options=Options)
