"""Choose which weights stay, by score, with integer budgets that are met exactly whatever the comparison group.

All functions take scores [out, in] (larger stays) and return a bool keep-mask of the same shape. Ties go by position:
of equal scores the earlier one is dropped, so that the result does not depend on a sort's whim.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from leap_repro.budget import dropped


def drop_smallest(scores: Tensor, count: int) -> Tensor:
    """Keep all but the `count` smallest of all scores (any shape)."""
    keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    order = torch.sort(scores.flatten(), stable=True).indices
    keep[order[:count]] = False
    return keep.view_as(scores)


def drop_smallest_in_rows(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Each row drops the floor of its share, and rows whose next score is smallest drop one more.

    The extra rows are as many as make the matrix's total exactly round(s * numel) (baselines.md, "Budgets").
    """
    rows, columns = scores.shape
    total = dropped(sparsity, rows * columns)
    per_row, extra = divmod(total, rows)
    order = torch.sort(scores, dim=1, stable=True).indices
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep.scatter_(1, order[:, :per_row], False)
    if extra:
        next_column = order[:, per_row : per_row + 1]
        next_score = scores.gather(1, next_column).squeeze(1)
        chosen = torch.sort(next_score, stable=True).indices[:extra]
        keep[chosen, next_column.squeeze(1)[chosen]] = False
    return keep


def drop_smallest_in_matrix(scores: Tensor, sparsity: Fraction) -> Tensor:
    """Keep all but the round(s * numel) smallest scores of the whole matrix."""
    return drop_smallest(scores, dropped(sparsity, scores.numel()))
