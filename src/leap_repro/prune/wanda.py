"""Wanda (arXiv 2306.11695): score |W_ij| * ||X_:j||_2, compared within each output row; weights stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers
from leap_repro.prune.select import drop_smallest_in_rows


@dataclass(frozen=True)
class Options:
    """Wanda has no options."""


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics="norms")


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Each output row keeps its highest-scoring inputs; the matrix's total meets the budget exactly."""
    scores = layer.weight.abs() * layer.statistics.column_norms
    return PrunedLayer(drop_smallest_in_rows(scores, layer.sparsity))
