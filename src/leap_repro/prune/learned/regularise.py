"""What a learned method adds to the language-modelling loss, as a function of two numbers per matrix.

Every such term depends on the masks only through their sums and the sizes of the masked weights: their squared norms,
or their absolute sums. So a term is
written once, on vectors over the matrices; the trainer takes its slope in these numbers and carries it back to each
matrix's logits alone, without ever holding all masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

TINY = 1e-30
"""Below this a squared norm counts as zero: the square root's slope there would be infinite."""


@dataclass(frozen=True)
class MaskStatistics:
    """Per matrix, float64 [matrices]: the sum of its mask, the size of W * M, its number of weights, the size of W.
    Sizes are ||.||_F^2, or ||.||_1 if the regulariser is `absolute`."""

    sums: Tensor
    sizes: Tensor
    numels: Tensor
    dense_sizes: Tensor

    @property
    def density(self) -> Tensor:
        """The mean of the relaxed mask over all weights of all matrices."""
        return self.sums.sum() / self.numels.sum()


class Regulariser(Protocol):
    """(statistics, share of the steps that remain) -> (density term, norm term), both scalars as added to the loss."""

    @property
    def absolute(self) -> bool: ...

    def __call__(self, statistics: MaskStatistics, remaining: float) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class BudgetAndNorms:
    """LEAP's and PATCH's terms: lambda1 |density - target| - lambda2 (1 - t/T) sum ||W * M||_F / sum ||W||_F.

    With `per_matrix` each matrix has the target for itself: the distances are averaged, weighted by their sizes. With
    `absolute` the last term is lambda2 (1 - t/T) sum ||W * M||_1, as a secondary source writes it, divided by nothing.
    """

    target: float
    density_weight: float
    norm_weight: float
    per_matrix: bool = False
    absolute: bool = False

    def __call__(self, statistics: MaskStatistics, remaining: float) -> tuple[Tensor, Tensor]:
        numels = statistics.numels
        if self.per_matrix:
            distance = ((statistics.sums - self.target * numels).abs() / numels.sum()).sum()
        else:
            distance = (statistics.density - self.target).abs()
        if self.absolute:
            norms = statistics.sizes.sum()
        else:
            norms = _root(statistics.sizes).sum() / _root(statistics.dense_sizes).sum()
        return self.density_weight * distance, -self.norm_weight * remaining * norms


@dataclass(frozen=True)
class SquaredNorms:
    """MaskLLM's term: -lambda (1 - t/T) sum ||W * M||_F^2; its density needs no push, 2:4 fixes it."""

    norm_weight: float
    absolute: bool = False

    def __call__(self, statistics: MaskStatistics, remaining: float) -> tuple[Tensor, Tensor]:
        return statistics.sums.sum() * 0, -self.norm_weight * remaining * statistics.sizes.sum()


def _root(squares: Tensor) -> Tensor:
    return torch.clamp(squares, min=TINY).sqrt()
