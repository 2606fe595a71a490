"""Thanos (arXiv 2504.05346): choose a block's weights by Wanda's score, and remove each row's weights together.

Shapes: W is [out, in]; H = (2/n) X'X is [in, in]; U is upper triangular with U'U = H^-1. Of H restricted to the columns
from j on, the inverse is U[j:, j:]'U[j:, j:], so one factorisation serves every block; nothing is inverted again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from leap_repro.checked import Positive, Share, Weight, contradiction
from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import all_kept, drop_smallest, drop_smallest_in_groups, released_count
from leap_repro.sparsity.budget import dropped
from leap_repro.sparsity.patterns import DENSE_ROWS

if TYPE_CHECKING:
    from torch import Tensor

BATCH_ENTRIES = {"cpu": 2**20, "cuda": 2**27}
"""Entries of the small systems solved at a time: on a CPU 8 MB in float64, since larger batches fall out of its cache;
on a GPU 1 GB, which holds all rows of the largest matrix here (14,336 rows that drop 77 of a block's 128 columns: 85
million), so that a block is few batches."""
LEAST_FILL = 0.8
"""Rows share a batch if none is padded to more than 1 / LEAST_FILL of its own number of dropped weights."""


class Options(CalibratedOptions):
    """As released, the number of dropped weights is rounded down, and with N:M one row stays dense even if `alpha` is
    0."""

    block_size: Positive = Field(
        128, description="number of columns removed together; Thanos' scripts use 512, LEAP's authors 128"
    )
    damping: Weight = Field(0.01, description="added to the Hessian's diagonal, as a share of its mean")
    alpha: Share = Field(
        0.0, description="with N:M, the ⌊alpha · rows⌋ + 1 rows with the highest loss stay dense; 0: none"
    )

    @model_validator(mode="after")
    def _dense_rows_need_a_pattern(self) -> Options:
        if self.alpha and self.n_of_m is None:
            raise contradiction("alpha", f"{self.alpha:g}", "without an N:M pattern it must be 0")
        return self

    @property
    def keeps_dense_rows(self) -> bool:
        """Whether some rows stay dense, so that the budget is not met."""
        return self.n_of_m is not None and (self.alpha > 0 or self.as_released)

    @property
    def facts(self) -> dict[str, str]:
        """Dense rows are part of the promised pattern, and leave no promise of a count."""
        if self.keeps_dense_rows:
            return {"pattern": self.pattern + DENSE_ROWS, "budget_scope": "none"}
        return super().facts


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Choose and remove block after block of columns, from left to right."""
    from leap_repro.prune.layerwise.cholesky import fill_dead_inputs, upper_factor_of_inverse

    weight = layer.weight.clone()
    columns = weight.shape[1]
    outliers = _outlier_rows(layer, options)
    hessian = fill_dead_inputs(layer.statistics.hessian, weight)
    factor, dampings = upper_factor_of_inverse(hessian, layer.name, options.damping)
    keep = all_kept(weight)
    for start in range(0, columns, options.block_size):
        block = slice(start, min(start + options.block_size, columns))
        keep[:, block] = _choose(weight, keep, block, layer, options)
        keep[outliers] = True
        remove_jointly(weight, keep[:, block], factor, block)
    return PrunedLayer(keep, weight, {"dampings": dampings})


def _outlier_rows(layer: Layer, options: Options) -> Tensor:
    """The numbers of the rows that stay dense: those whose loss ||X w_r||^2, were the row removed, is highest.

    As released, the loss leaves out what features have in common: the sum of the row's squared Wanda scores.
    """
    if not options.keeps_dense_rows:
        return layer.weight.new_empty(0).long()
    if options.as_released:
        losses = layer.weight.square() @ layer.statistics.gram.diagonal()
    else:
        losses = ((layer.weight @ layer.statistics.gram) * layer.weight).sum(dim=1)
    count = math.floor(options.alpha * len(losses)) + 1
    return losses.sort(descending=True, stable=True).indices[:count]


def _choose(weight: Tensor, keep: Tensor, block: slice, layer: Layer, options: Options) -> Tensor:
    """The block's mask: N:M within the block, else its part of what is smallest in all that remains of the matrix."""
    norms = layer.statistics.column_norms
    if options.n_of_m:
        return drop_smallest_in_groups(weight[:, block].abs() * norms[block], options.n_of_m)
    count = (released_count if options.as_released else dropped)(layer.sparsity, weight.numel())
    removed = block.start * len(weight) - int(keep[:, : block.start].sum())
    scores = weight[:, block.start :].abs() * norms[block.start :]
    return drop_smallest(scores, count - removed)[:, : block.stop - block.start]


def remove_jointly(weight: Tensor, keep: Tensor, factor: Tensor, block: slice) -> None:
    """Zero each row's dropped weights q of a block and move all others from the block on, in place, so that the error
    is least: w -= w_q (G_qq)^-1 G_q: with G the inverse of H from the block on.

    `keep` is [out, block]. All rows share one matrix product; only the small systems in G_qq differ by row.
    """
    corner = factor[block, block]
    multipliers = _solve_rows(weight[:, block], ~keep, corner)
    weight[:, block.start :] -= multipliers @ (corner.T @ factor[block, block.start :])
    weight[:, block] *= keep


def _solve_rows(weight: Tensor, drop: Tensor, corner: Tensor) -> Tensor:
    """Per row w_q (G_qq)^-1, zero outside q, [out, block]; the batches are solved in float64, which cannot fail here:
    G is a product of float32 factors that were found sound."""
    import torch

    inverse = corner.double().T @ corner.double()
    multipliers = weight.new_zeros(weight.shape)
    counts = drop.sum(dim=1)
    for rows, width in _batches(counts, BATCH_ENTRIES[weight.device.type]):
        columns = drop[rows].byte().sort(dim=1, descending=True, stable=True).indices[:, :width]
        real = drop[rows].gather(1, columns)
        systems = inverse[columns.unsqueeze(2), columns.unsqueeze(1)]
        systems *= real.unsqueeze(2) & real.unsqueeze(1)
        systems.diagonal(dim1=1, dim2=2).add_(~real)
        right = (weight[rows].gather(1, columns) * real).double().unsqueeze(2)
        solved = right.cholesky_solve(torch.linalg.cholesky(systems)).squeeze(2)
        multipliers[rows] = weight.new_zeros(weight[rows].shape).scatter_(1, columns, solved.to(weight))
    return multipliers


def _batches(counts: Tensor, entries: int) -> Iterator[tuple[Tensor, int]]:
    """Rows that drop something, in batches of similar counts [out] and at most `entries` (but one row at the least),
    each with the count that it is padded to."""
    order = counts.sort(descending=True, stable=True).indices
    sizes = counts[order].tolist()
    start = 0
    while start < len(sizes) and sizes[start]:
        width = sizes[start]
        stop = start + 1
        most = start + max(1, entries // width**2)
        while stop < min(len(sizes), most) and sizes[stop] >= LEAST_FILL * width:
            stop += 1
        yield order[start:stop], width
        start = stop


METHOD = LayerWise(prune_layer, options=Options, statistics="gram", moves_weights=True)
