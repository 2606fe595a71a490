"""DSnoT (arXiv 2310.08915): weights of a one-shot mask change places until a row's expected output error is small.

Per output row the error that is expected is D = sum of W_j E[x_j] over what is dropped (the paper's Eq. 1). A cycle
grows the dropped weight that takes the most off it for its input's variance (Eq. 2), and prunes the kept weight of
Wanda's lowest score among those whose loss takes something off, too (Eq. 3). Weights keep their values.
Shapes: W, effects and masks are [out, in].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leap_repro.checked import Positive, Weight
from leap_repro.errors import UserError
from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import drop_smallest_in_groups, drop_smallest_in_rows, floor_in_rows

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = 2048
"""Errors are summed over so many tokens: the public code adds them up over a sequence, and its have 2048."""
INPUTS = 4096
"""Of the rows that the public code's 50 swaps are meant for, LLaMA-7B's."""


class Options(CalibratedOptions):
    """The defaults are the public code's (github.com/zyxxmu/DSnoT, main.py), except that the number of swaps is in
    proportion to the row's length. With rounding `as_released`, each row's number of dropped weights is rounded
    down."""

    start: Literal["wanda", "magnitude"] = Field(
        "wanda", description="score of the initial mask, compared within an output row or an N:M group"
    )
    cycles: Positive = Field(50, description="largest number of swaps in a row of 4096 inputs")
    scale_cycles: bool = Field(
        True,
        description="true: swaps in proportion to a row's inputs, at least 1; false: as many in every row, as "
        "released, and rows that keep fewer weights are refused",
    )
    threshold: Weight = Field(
        0.1, description="swaps in a row end once its expected error, summed over 2048 tokens, is not above this"
    )
    variance_power: Weight = Field(1.0, description="exponent of the input's variance by which growth is divided")
    swaps: Literal["as_released", "improving"] = Field(
        "as_released",
        description="as_released: swaps in a row end at the threshold, and with N:M also where the expected error "
        "would change sign; improving, not in the public code: at the first swap that would not reduce that error",
    )
    skip_mlp: bool = Field(True, description="true: matrices of modules called mlp keep the initial mask")

    def most_swaps(self, inputs: int) -> int:
        """Of a row with so many inputs."""
        return max(1, round(self.cycles * inputs / INPUTS)) if self.scale_cycles else self.cycles


@dataclass(frozen=True)
class Swaps:
    """What a matrix's swaps are chosen by: `effects` is W_j E[x_j] over TOKENS tokens, `growth` the same over the
    variance, `scores` Wanda's."""

    effects: Tensor
    growth: Tensor
    scores: Tensor


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """The first mask, with its swaps; the log says which share of all weights changed, in how many cycles, and the
    rows' mean expected error before and after."""
    weight, statistics = layer.weight, layer.statistics
    scores = weight.abs() * statistics.column_norms
    first = _first_mask(scores if options.start == "wanda" else weight.abs(), layer, options)
    effects = weight * (statistics.means * TOKENS).to(weight)
    divisor = (statistics.variances**options.variance_power).to(weight)
    growth = effects / divisor.where(divisor > 0, 1.0)
    keep, cycles = first.clone(), 0
    if not (options.skip_mlp and "mlp" in layer.name.split(".")):
        _require_long_rows(first, layer.name, options)
        cycles = swap(keep, Swaps(effects, growth, scores), options)
    before, after = (float(expected_error(effects, mask).abs().mean()) for mask in (first, keep))
    row = {"changed": float((keep != first).double().mean()), "cycles": cycles}
    return PrunedLayer(keep, log=row | {"expected_error_before": before, "expected_error": after})


def expected_error(effects: Tensor, keep: Tensor) -> Tensor:
    """Each row's D over TOKENS tokens, [out]."""
    return (effects * ~keep).sum(dim=1)


def _first_mask(scores: Tensor, layer: Layer, options: Options) -> Tensor:
    if options.n_of_m:
        return drop_smallest_in_groups(scores, options.n_of_m)
    return (floor_in_rows if options.as_released else drop_smallest_in_rows)(scores, layer.sparsity)


def _require_long_rows(keep: Tensor, name: str, options: Options) -> None:
    """UserError where the public code, which walks along the kept weights of a row, would step over their end."""
    least = int(keep.sum(dim=1).min())
    if not options.scale_cycles and least < options.cycles:
        raise UserError(
            f"dsnot: cycles is {options.cycles}, but a row of {name} keeps {least} weights, over whose end the public "
            "code steps; with scale_cycles: true swaps go by the row's length"
        )


def swap(keep: Tensor, by: Swaps, options: Options) -> int:
    """Swap weights of `keep`, in place, and return in how many cycles. No weight moves twice, so no swap is undone."""
    fresh, most = keep.new_ones(keep.shape), options.most_swaps(keep.shape[1])
    error = expected_error(by.effects, keep)
    started = error.sign()
    cycle, rows = 0, _open(error, options).nonzero().squeeze(1)
    while cycle < most and len(rows):
        grown, pruned, found = _candidates(keep[rows], fresh[rows], error[rows], _rows_of(by, rows), options)
        after = error[rows] - by.effects[rows, grown] + by.effects[rows, pruned]
        if options.swaps == "improving":
            found &= after.abs() < error[rows].abs()
        elif options.n_of_m:
            found &= after.sign() == started[rows]
        rows, grown, pruned = rows[found], grown[found], pruned[found]
        keep[rows, grown], keep[rows, pruned] = True, False
        fresh[rows, grown], fresh[rows, pruned] = False, False
        error[rows] = after[found]
        cycle += int(len(rows) > 0)
        rows = rows[_open(error[rows], options)]
    return cycle


def _open(error: Tensor, options: Options) -> Tensor:
    return error.abs() > options.threshold


def _rows_of(by: Swaps, rows: Tensor) -> Swaps:
    return Swaps(by.effects[rows], by.growth[rows], by.scores[rows])


def _candidates(
    keep: Tensor, fresh: Tensor, error: Tensor, by: Swaps, options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Per row the column to grow, the one to prune, and whether there are such. With N:M the pruned weight is of the
    grown one's group, whatever its sign."""
    import torch

    sign = error.sign().unsqueeze(1)
    helps = by.effects * sign
    may_grow = ~keep & fresh & (helps > 0)
    grown = (by.growth * sign).masked_fill(~may_grow, -float("inf")).argmax(dim=1)
    if options.n_of_m:
        group, columns = options.n_of_m.group, torch.arange(keep.shape[1], device=keep.device)
        may_prune = keep & fresh & (columns // group == grown.unsqueeze(1) // group)
    else:
        may_prune = keep & fresh & (helps < 0)
    pruned = by.scores.masked_fill(~may_prune, float("inf")).argmin(dim=1)
    return grown, pruned, may_grow.any(dim=1) & may_prune.any(dim=1)


METHOD = LayerWise(prune_layer, options=Options, statistics="moments")
