"""Thanos (arXiv 2504.05346): a block's weights are chosen by Wanda's score, and each row's are removed together.

Shapes: W is [out, in]; H = (2/n) X'X is [in, in]; U is upper triangular with U'U = H^-1. Of H restricted to the columns
from j on, the inverse is U[j:, j:]'U[j:, j:], so one factorisation serves every block; nothing is inverted again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from leap_repro.budget import dropped
from leap_repro.errors import UserError
from leap_repro.patterns import DENSE_ROWS
from leap_repro.prune.cholesky import fill_dead_inputs, upper_factor_of_inverse
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers
from leap_repro.prune.select import drop_smallest, drop_smallest_in_groups, released_count
from leap_repro.prune.selector import SelectorOptions, check_block

BATCH_ENTRIES = 2**20
"""Entries of the small systems solved at a time: 8 MB in float64; larger batches fall out of a processor's cache."""
LEAST_FILL = 0.8
"""Rows share a batch if none is padded to more than 1 / LEAST_FILL of its own number of dropped weights."""


@dataclass(frozen=True)
class Options(SelectorOptions):
    """`block_size`: columns removed together (the paper's scripts: 512; its code elsewhere: 128 and 256); `damping`:
    added to H, as a share of its mean diagonal; `alpha`: with N:M, the floor(alpha * rows) + 1 rows of highest loss
    stay dense (0: none; as released, one even then)."""

    block_size: int = 128
    damping: float = 0.01
    alpha: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block("thanos", self.block_size, self.n_of_m)
        if not 0 <= self.alpha < 1 or (self.alpha and self.n_of_m is None):
            raise UserError(f"thanos: alpha is {self.alpha:g}; it must lie in [0, 1), and be 0 without an N:M pattern")

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


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics="gram", facts=job.options.facts)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Choose and remove block after block of columns, from left to right."""
    weight = layer.weight.clone()
    columns = weight.shape[1]
    outliers = _outlier_rows(layer, options)
    hessian = fill_dead_inputs(layer.statistics.hessian, weight)
    factor, dampings = upper_factor_of_inverse(hessian, layer.name, options.damping)
    keep = torch.ones_like(weight, dtype=torch.bool)
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
        return torch.empty(0, dtype=torch.long, device=layer.weight.device)
    if options.as_released:
        losses = layer.weight.square() @ layer.statistics.gram.diagonal()
    else:
        losses = ((layer.weight @ layer.statistics.gram) * layer.weight).sum(dim=1)
    count = math.floor(options.alpha * len(losses)) + 1
    return torch.sort(losses, descending=True, stable=True).indices[:count]


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
    inverse = corner.double().T @ corner.double()
    multipliers = torch.zeros_like(weight)
    counts = drop.sum(dim=1)
    for rows, width in _batches(counts):
        columns = torch.sort(drop[rows].byte(), dim=1, descending=True, stable=True).indices[:, :width]
        real = drop[rows].gather(1, columns)
        systems = inverse[columns.unsqueeze(2), columns.unsqueeze(1)]
        systems *= real.unsqueeze(2) & real.unsqueeze(1)
        systems.diagonal(dim1=1, dim2=2).add_(~real)
        right = (weight[rows].gather(1, columns) * real).double().unsqueeze(2)
        solved = torch.cholesky_solve(right, torch.linalg.cholesky(systems)).squeeze(2)
        multipliers[rows] = torch.zeros_like(weight[rows]).scatter_(1, columns, solved.to(weight))
    return multipliers


def _batches(counts: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Rows that drop something, in batches of similar counts [out], each with the count that it is padded to."""
    order = torch.sort(counts, descending=True, stable=True).indices
    sizes = counts[order].tolist()
    start = 0
    while start < len(sizes) and sizes[start]:
        width = sizes[start]
        stop = start + 1
        while (
            stop < len(sizes) and sizes[stop] >= LEAST_FILL * width and (stop - start + 1) * width**2 <= BATCH_ENTRIES
        ):
            stop += 1
        yield order[start:stop], width
        start = stop
