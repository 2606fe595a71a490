"""OWL (arXiv 2310.05175): blocks with more outliers keep more weights; within a block, the rule is Wanda's.

The outliers of a block are the scores |W_ij| * ||X_:j||_2 above `outlier` times their mean over all matrices of the
block, measured on the dense model. The density of a block is linear in its share D_b of outliers, so that the densities
have a range of 2 `spread` and the whole model meets the requested one. Other one-shot methods take the same budgets by
`budget_from`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leap_repro.checked import Rate, Weight
from leap_repro.errors import UserError
from leap_repro.prune.layerwise.declaration import CalibratedOptions, LayerWise
from leap_repro.prune.layerwise.layer import Layer, PrunedLayer
from leap_repro.prune.layerwise.select import drop_smallest_in_rows
from leap_repro.sparsity.budget import dropped

if TYPE_CHECKING:
    from torch import Tensor

    from leap_repro.prune.job import Job, PrunedCell


class Options(CalibratedOptions):
    """The defaults are those of the README's commands for LLaMA-7B (github.com/luuyin/OWL); main.py's own M is 3."""

    pattern: Literal["unstructured"] = Field(
        "unstructured",
        description="only unstructured; the public code's N:8, with an N for each block, is not supported",
    )
    rounding: Literal["exact"] = Field(
        "exact", description="only exact: the whole model meets its budget to the weight"
    )
    outlier: Rate = Field(5.0, description="M: a score above M times its block's mean is an outlier")
    spread: Weight = Field(0.08, description="λ: the densities of blocks have a range of 2λ")

    @property
    def facts(self) -> dict[str, str]:
        """One budget for all matrices."""
        return {"pattern": self.pattern, "budget_scope": "global"}


def prune_layer(layer: Layer, options: Options) -> PrunedLayer:
    """Each output row keeps its highest-scoring inputs, as Wanda's, at the budget of the layer's block."""
    return PrunedLayer(drop_smallest_in_rows(layer.weight.abs() * layer.statistics.column_norms, layer.sparsity))


def outlier_share(scores: Sequence[Tensor], outlier: float) -> Fraction:
    """The share of all scores of a block that lie above `outlier` times their mean."""
    count = sum(score.numel() for score in scores)
    mean = sum(float(score.double().sum()) for score in scores) / count
    return Fraction(sum(int((score > outlier * mean).sum()) for score in scores), count)


def densities(shares: Sequence[Fraction], sizes: Sequence[int], density: Fraction, spread: Fraction) -> list[Fraction]:
    """The density of each block from its share of outliers: a range of 2 `spread`, and `density` for all `sizes`
    weights together. Blocks that do not differ have one density. UserError if one would lie outside [0, 1]."""
    least, most = min(shares), max(shares)
    scale = 2 * spread / (most - least) if most > least else Fraction(0)
    mean = sum((share * size for share, size in zip(shares, sizes, strict=True)), Fraction(0)) / sum(sizes)
    found = [density + scale * (share - mean) for share in shares]
    if not all(0 <= value <= 1 for value in found):
        outside = next(value for value in found if not 0 <= value <= 1)
        raise UserError(f"spread is {float(spread):g}: a block would keep {float(outside):.3g} of its weights")
    return found


def budgets(wanted: dict[str, tuple[Fraction, int]], sparsity: Fraction) -> dict[str, Fraction]:
    """Sparsities that drop whole numbers of weights, and round(s N) in all: from {tensor: (density, weights)} each
    drops the floor of its share, and those that lose most by that one more."""
    shares = {name: (1 - density) * numel for name, (density, numel) in wanted.items()}
    drops = {name: int(share) for name, share in shares.items()}
    missing = dropped(sparsity, sum(numel for _, numel in wanted.values())) - sum(drops.values())
    for name in sorted(shares, key=lambda name: drops[name] - shares[name])[:missing]:
        drops[name] += 1
    return {name: Fraction(count, wanted[name][1]) for name, count in drops.items()}


def allocate(job: Job[Options]) -> dict[str, Fraction]:
    """Every matrix's sparsity, from one pass of the calibration sample through the dense model."""
    from leap_repro.prune.layerwise.driver import blocks, collect

    options = job.options
    sizes: list[dict[str, int]] = []
    shares: list[Fraction] = []
    for linears, runner in blocks(job, {"norms"}):
        found = collect(linears, runner, {"norms"}, options)
        norms = [statistics.column_norms for statistics in found.values() if statistics is not None]
        sized = zip(linears, norms, strict=True)
        scores = [linear.weight.detach().float().abs() * of_inputs for linear, of_inputs in sized]
        shares.append(outlier_share(scores, options.outlier))
        sizes.append({linear.name: linear.weight.numel() for linear in linears})
    of_blocks = densities(shares, [sum(s.values()) for s in sizes], 1 - job.sparsity, Fraction(str(options.spread)))
    wanted = {
        name: (density, numel) for density, block in zip(of_blocks, sizes, strict=True) for name, numel in block.items()
    }
    return budgets(wanted, job.sparsity)


@dataclass(frozen=True, kw_only=True)
class Allocating(LayerWise[Options]):
    """A layer-wise rule that first looks at the whole dense model to share out its budget."""

    starts: tuple[str, ...] = ()

    def run(self, job: Job[Options]) -> PrunedCell:
        return super().run(replace(job, budgets=allocate(job)))


METHOD = Allocating(prune_layer, options=Options, statistics="norms")
