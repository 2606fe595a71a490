"""SparseGPT (arXiv 2301.00774): drop weights column by column and let the columns to the right make up for it.

Shapes: W is [out, in]; H = (2/n) X'X is [in, in]; U is upper triangular with U'U = H^-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leap_repro.budget import dropped
from leap_repro.prune.cholesky import fill_dead_inputs, upper_factor_of_inverse
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers
from leap_repro.prune.select import drop_smallest


@dataclass(frozen=True)
class Options:
    """`block_size`: columns whose mask is chosen together; `damping`: added to H, as a share of its mean diagonal."""

    block_size: int = 128
    damping: float = 0.01


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics="gram")


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Prune block after block of columns; the budget of columns 0..b is round(s * out * b), so the total is exact."""
    weight = layer.weight.clone()
    rows, columns = weight.shape
    hessian = fill_dead_inputs(layer.statistics.hessian, weight)
    factor, dampings = upper_factor_of_inverse(hessian, layer.name, options.damping)
    keep = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, columns, options.block_size):
        stop = min(start + options.block_size, columns)
        count = dropped(layer.sparsity, rows * stop) - dropped(layer.sparsity, rows * start)
        diagonal = factor.diagonal()[start:stop]
        keep[:, start:stop] = drop_smallest((weight[:, start:stop] / diagonal).square(), count)
        prune_columns(weight, keep, factor, start, stop)
    return PrunedLayer(keep, weight, {"dampings": dampings})


def prune_columns(weight: Tensor, keep: Tensor, factor: Tensor, start: int, stop: int) -> None:
    """Zero the dropped weights of columns start..stop, spread their error to the right within the block as they go,
    and to the rest of the matrix once at the end (the lazy batch update: exact up to rounding)."""
    errors = torch.zeros_like(weight[:, start:stop])
    for column in range(start, stop):
        kept_values = weight[:, column] * keep[:, column]
        error = (weight[:, column] - kept_values) / factor[column, column]
        weight[:, column:stop] -= torch.outer(error, factor[column, column:stop])
        weight[:, column] = kept_values
        errors[:, column - start] = error
    weight[:, stop:] -= errors @ factor[start:stop, stop:]
