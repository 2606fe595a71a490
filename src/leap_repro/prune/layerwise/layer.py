"""The interface of a layer-wise rule: its input and its result for one matrix."""

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
    """One matrix to prune.

    Attributes:
        name: The name of the tensor.
        weight: Float32 [out, in], a copy that the rule may change.
        collected: The statistics of the matrix's inputs that METHOD declares, or None.
        sparsity: The share of the matrix's weights to drop.
    """

    name: str
    weight: Tensor
    collected: InputStatistics | None
    sparsity: Fraction

    @property
    def statistics(self) -> InputStatistics:
        """The statistics of the matrix's inputs; UserError if the method's declaration has no `statistics`."""
        if self.collected is None:
            raise UserError("the rule reads statistics of its inputs: its METHOD must have statistics=…")
        return self.collected


@dataclass(frozen=True)
class PrunedLayer:
    """The result of a rule for one matrix.

    Attributes:
        keep: The mask, bool [out, in], True where the weight is kept. values: New values, float32 [out, in] and zero
        where dropped, or None if the rule changes none. log: Further columns of the matrix's row in the log, the same
        for every matrix of a method. Columns whose names end in "dampings" hold all dampings that were tried for a
        Cholesky factor (`cholesky.py`); raised ones also go into the manifest.
    """

    keep: Tensor
    values: Tensor | None = None
    log: dict[str, Any] = field(default_factory=dict)
