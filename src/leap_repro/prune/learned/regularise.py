"""What a learned method adds to the language-modelling loss, as a function of two numbers per matrix.

Every such term depends on the masks only through their sums and the squared norms of the masked weights. So a term is
written once, on vectors over the matrices; the trainer takes its slope in these numbers and carries it back to each
matrix's logits alone, without ever holding all masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-30
"""Below this a squared norm counts as zero: the square root's slope there would be infinite."""


@dataclass(frozen=True)
class MaskStatistics:
    """Per matrix, float64 [matrices]: the sum of its mask, ||W * M||_F^2, its number of weights, ||W||_F^2."""

    sums: Tensor
    squares: Tensor
    numels: Tensor
    dense_squares: Tensor

    @property
    def density(self) -> Tensor:
        """The mean of the relaxed mask over all weights of all matrices."""
        return self.sums.sum() / self.numels.sum()


Regulariser = Callable[[MaskStatistics, float], tuple[Tensor, Tensor]]
"""(statistics, share of the steps that remain) -> (density term, norm term), both scalars as added to the loss."""


@dataclass(frozen=True)
class BudgetAndNorms:
    """LEAP's and PATCH's terms: lambda1 |density - target| - lambda2 (1 - t/T) sum ||W * M||_F / sum ||W||_F.

    With `per_matrix` each matrix has the target for itself: the distances are averaged, weighted by their sizes.
    """

    target: float
    density_weight: float
    norm_weight: float
    per_matrix: bool = False

    def __call__(self, statistics: MaskStatistics, remaining: float) -> tuple[Tensor, Tensor]:
        numels = statistics.numels
        if self.per_matrix:
            distance = ((statistics.sums - self.target * numels).abs() / numels.sum()).sum()
        else:
            distance = (statistics.density - self.target).abs()
        norms = _root(statistics.squares).sum() / _root(statistics.dense_squares).sum()
        return self.density_weight * distance, -self.norm_weight * remaining * norms


@dataclass(frozen=True)
class SquaredNorms:
    """MaskLLM's term: -lambda (1 - t/T) sum ||W * M||_F^2; its density needs no push, 2:4 fixes it."""

    norm_weight: float

    def __call__(self, statistics: MaskStatistics, remaining: float) -> tuple[Tensor, Tensor]:
        return statistics.sums.sum() * 0, -self.norm_weight * remaining * statistics.squares.sum()


def _root(squares: Tensor) -> Tensor:
    return torch.clamp(squares, min=TINY).sqrt()
