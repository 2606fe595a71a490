"""ADMM pruning (arXiv 2401.02938): alternate between the exact least-squares weights and the sparse projection.

Per layer: min over P with ||P||_0 <= k of ||X (W - P)'||^2. Shapes: weights are handled transposed, V is [in, out].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from leap_repro.errors import UserError
from leap_repro.prune.cholesky import factor_damped
from leap_repro.prune.job import Job, PrunedCell
from leap_repro.prune.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise import prune_layers
from leap_repro.prune.select import (
    drop_smallest_in_groups,
    drop_smallest_in_matrix,
    drop_smallest_in_rows,
    floor_in_matrix,
    floor_in_rows,
)
from leap_repro.prune.selector import SelectorOptions

SCHEDULES = ("gradual", "as_released")
EXACT = {"matrix": drop_smallest_in_matrix, "row": drop_smallest_in_rows}
AS_RELEASED = {"matrix": floor_in_matrix, "row": floor_in_rows}


@dataclass(frozen=True)
class Options(SelectorOptions):
    """`iterations` in all, the mask moving in the first `mask_iterations`; `rho` the penalty; `damping` a share of the
    mean diagonal; `schedule` "gradual" (as written) or "as_released" (the authors' code: the final sparsity from the
    first iteration on where weights compete in the whole matrix, gradual elsewhere); `group` "matrix" or "row"."""

    iterations: int = 20
    mask_iterations: int = 15
    rho: float = 1.0
    damping: float = 0.1
    schedule: str = "gradual"
    group: str = "matrix"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in SCHEDULES or self.group not in EXACT:
            raise UserError(f"admm: schedule is one of {SCHEDULES} and group one of {tuple(EXACT)}, not {self}")
        if self.n_of_m and self.group != "matrix":
            raise UserError(f"admm: pattern {self.pattern} leaves no choice of group, {self.group!r} would be ignored")
        if not 1 <= self.mask_iterations <= self.iterations:
            raise UserError(f"admm: mask_iterations must lie between 1 and iterations, not {self}")


def sparsity_at(iteration: int, final: Fraction, options: Options) -> Fraction:
    """s_t = s (1 - (1 - (t+1)/15)^3) as written; s from t = 0 on as released, in the whole-matrix path only."""
    if options.schedule == "as_released" and options.group == "matrix" and options.n_of_m is None:
        return final
    remaining = 1 - Fraction(min(iteration + 1, options.mask_iterations), options.mask_iterations)
    return final * (1 - remaining**3)


def prune_cell(job: Job) -> PrunedCell:
    """Prune the whole model, layer by layer."""
    return prune_layers(job, prune_layer, statistics="gram", facts=job.options.facts)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Twenty ADMM iterations on the column-normalised problem; the result is Z of the last mask, scaled back."""
    scale = layer.statistics.column_norms + 1e-8
    gram = layer.statistics.gram / torch.outer(scale, scale)
    factored = factor_damped(gram, layer.name, options.damping, shift=options.rho)
    v_IO = (layer.weight * scale).T
    keep, z_IO = _iterate(v_IO, gram @ v_IO, factored.inverse(), layer.sparsity, options)
    return PrunedLayer(keep.T.contiguous(), (z_IO.T / scale).contiguous(), {"dampings": factored.dampings})


def _iterate(
    v_IO: Tensor, target_IO: Tensor, inverse: Tensor, sparsity: Fraction, options: Options
) -> tuple[Tensor, Tensor]:
    """The loop Z = (V + U) * mask; U += V - Z; V = K (B + rho (Z - U)); returns the last mask and (V + U) * mask."""
    u_IO = torch.zeros_like(v_IO)
    keep = torch.ones_like(v_IO, dtype=torch.bool)
    for iteration in range(options.iterations):
        if iteration < options.mask_iterations:
            keep = _project((v_IO + u_IO).abs().T, sparsity_at(iteration, sparsity, options), options).T
        z_IO = (v_IO + u_IO) * keep
        u_IO = u_IO + v_IO - z_IO
        v_IO = inverse @ (target_IO + options.rho * (z_IO - u_IO))
    return keep, (v_IO + u_IO) * keep


def _project(scores_OI: Tensor, sparsity: Fraction, options: Options) -> Tensor:
    """The mask of the sparse set nearest to V + U. With N:M only the N smallest of each group can be dropped, the
    smallest of the whole matrix first, so that the pattern is complete when the schedule is at its end."""
    if options.n_of_m:
        protected = drop_smallest_in_groups(scores_OI, options.n_of_m)
        scores_OI = scores_OI.masked_fill(protected, torch.inf)
    return (AS_RELEASED if options.as_released else EXACT)[options.group](scores_OI, sparsity)
