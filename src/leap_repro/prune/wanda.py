"""Wanda (arXiv 2306.11695): score |W_ij| * ||X_:j||_2, compared within each output row; weights stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers
from leap_repro.prune.select import drop_smallest_in_groups, drop_smallest_in_rows, floor_in_rows
from leap_repro.prune.selector import SelectorOptions


@dataclass(frozen=True)
class Options(SelectorOptions):
    """Only what every selector has; as released, each row drops the floor of its share."""


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics="norms", facts=job.options.facts)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Each output row, or each N:M group, keeps its highest-scoring inputs."""
    scores = layer.weight.abs() * layer.statistics.column_norms
    if options.n_of_m:
        return PrunedLayer(drop_smallest_in_groups(scores, options.n_of_m))
    select = floor_in_rows if options.as_released else drop_smallest_in_rows
    return PrunedLayer(select(scores, layer.sparsity))
