"""Dense: keeps every weight. The unpruned rows of the tables go through the same door as every other cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from leap_repro.errors import UserError
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers


@dataclass(frozen=True)
class Options:
    """Dense has no options."""


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics=None)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Keep everything; UserError if the cell asks for a sparsity above 0."""
    if layer.sparsity:
        raise UserError(f"the method dense keeps every weight: its sparsity must be 0, not {float(layer.sparsity):g}")
    return PrunedLayer(torch.ones_like(layer.weight, dtype=torch.bool))
