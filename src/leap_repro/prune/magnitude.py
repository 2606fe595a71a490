"""Magnitude pruning: drop the smallest |W|, compared over the whole matrix. No data, no weight update."""

from __future__ import annotations

from dataclasses import dataclass

from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers
from leap_repro.prune.select import drop_smallest_in_matrix


@dataclass(frozen=True)
class Options:
    """Magnitude pruning has no options."""


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics=None)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Keep the numel - round(s * numel) largest magnitudes exactly (no overshoot on ties)."""
    return PrunedLayer(drop_smallest_in_matrix(layer.weight.abs(), layer.sparsity))
