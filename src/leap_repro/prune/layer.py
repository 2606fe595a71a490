"""The contract of a layer-wise rule: what it is given for one matrix and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from leap_repro.prune.statistics import InputStatistics


@dataclass(frozen=True)
class Layer:
    """One matrix to prune. `weight` is [out, in] in float32, a copy that the rule may change; `statistics` is what the
    method asked `prune_layers` for."""

    name: str
    weight: Tensor
    statistics: InputStatistics | None
    sparsity: Fraction


@dataclass(frozen=True)
class PrunedLayer:
    """A keep-mask [out, in] (bool) and, if the method moves weights, their new values (float32, zero where dropped)."""

    keep: Tensor
    values: Tensor | None = None
