"""ADMM pruning (arXiv 2401.02938): alternate between the exact least-squares weights and the sparse projection.

Per layer: min over P with ||P||_0 <= k of ||X (W - P)'||^2. Shapes: weights are handled transposed, V is [in, out].
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from leap_repro.checked import Positive, Rate, Weight, contradiction
from leap_repro.prune.layerwise.declaration import LayerWise
from leap_repro.prune.layerwise.grouped import EXACT_IN, GroupedOptions
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import (
    drop_smallest_in_groups,
    floor_in_matrix,
    floor_in_rows,
)

if TYPE_CHECKING:
    from torch import Tensor

AS_RELEASED = {"matrix": floor_in_matrix, "row": floor_in_rows}


class Options(GroupedOptions):
    """As released, the number of dropped weights is rounded down, and where weights compete in the whole matrix, the
    final sparsity holds from the first iteration on."""

    iterations: Positive = Field(20, description="total number of iterations")
    mask_iterations: Positive = Field(15, description="number of iterations after which the mask is frozen")
    rho: Rate = Field(1.0, description="penalty")
    damping: Weight = Field(0.1, description="added to the normalised Gram matrix's diagonal, as a share of its mean")
    schedule: Literal["gradual", "as_released"] = Field(
        "gradual",
        description="how the sparsity grows; gradual: as the paper writes it; as_released: as in the authors' code, "
        "the final sparsity from the first iteration on",
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Options:
        if self.mask_iterations > self.iterations:
            most = f"it may be at most the number of iterations, {self.iterations}"
            raise contradiction("mask_iterations", self.mask_iterations, most)
        return self


def sparsity_at(iteration: int, final: Fraction, options: Options) -> Fraction:
    """s_t = s (1 - (1 - (t+1)/15)^3) as the paper writes it; as released, s from t = 0 on where weights compete in the
    whole matrix."""
    if options.schedule == "as_released" and options.group == "matrix" and options.n_of_m is None:
        return final
    remaining = 1 - Fraction(min(iteration + 1, options.mask_iterations), options.mask_iterations)
    return final * (1 - remaining**3)


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Twenty ADMM iterations on the column-normalised problem; the result is Z of the last mask, scaled back."""
    from leap_repro.prune.layerwise.cholesky import factor_damped

    scale = layer.statistics.column_norms + 1e-8
    gram = layer.statistics.gram / scale.outer(scale)
    factored = factor_damped(gram, layer.name, options.damping, shift=options.rho)
    v_IO = (layer.weight * scale).T
    keep, z_IO = _iterate(v_IO, gram @ v_IO, factored.inverse(), layer.sparsity, options)
    return PrunedLayer(keep.T.contiguous(), (z_IO.T / scale).contiguous(), {"dampings": factored.dampings})


def _iterate(
    v_IO: Tensor, target_IO: Tensor, inverse: Tensor, sparsity: Fraction, options: Options
) -> tuple[Tensor, Tensor]:
    """The loop Z = (V + U) * mask; U += V - Z; V = K (B + rho (Z - U)); returns the last mask and (V + U) * mask."""
    import torch

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
        scores_OI = scores_OI.masked_fill(protected, float("inf"))
    return (AS_RELEASED if options.as_released else EXACT_IN)[options.group](scores_OI, sparsity)


METHOD = LayerWise(prune_layer, options=Options, statistics="gram", moves_weights=True)
