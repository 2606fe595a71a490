"""The contract of a layer-wise rule: what it is given for one matrix and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from leap_repro.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from leap_repro.prune.layerwise.statistics import InputStatistics


@dataclass(frozen=True)
class Layer:
    """One matrix to prune. `weight` is [out, in] in float32, a copy that the rule may change; `collected` is what the
    method asked for of its inputs, if it did."""

    name: str
    weight: Tensor
    collected: InputStatistics | None
    sparsity: Fraction

    @property
    def statistics(self) -> InputStatistics:
        """Of the inputs; UserError if the method's declaration did not ask for any."""
        if self.collected is None:
            raise UserError("the rule reads statistics of its inputs: its METHOD must have statistics=…")
        return self.collected


@dataclass(frozen=True)
class PrunedLayer:
    """A keep-mask [out, in] (bool) and, if the method moves weights, their new values (float32, zero where dropped).

    `log` holds further columns of the matrix's row in the log, the same ones for every matrix of a method. Columns
    whose names end in "dampings" hold all dampings that a Cholesky factor was tried with (`cholesky.py`); raised ones
    also go into the manifest.
    """

    keep: Tensor
    values: Tensor | None = None
    log: dict[str, Any] = field(default_factory=dict)
